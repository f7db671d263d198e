"""What a depth map shows, as a few short sentences (SSR's rationale, arXiv 2505.12448)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from mm.geometry import Region

from .depth import DepthMap, RegionDepth, compare, nearest_first, region_depth

MAX_NAMED = 8
"""At most so many things are told of: the nearest."""

MAX_PAIRS = 6
"""At most so many pairs are compared, those that lie next to each other in depth first."""


@dataclass(frozen=True)
class Placed:
    """Something in an image, and how far it is; None where the map does not know."""

    name: str
    region: Region
    depth: RegionDepth | None


def placed(depth: DepthMap, named: Sequence[tuple[str, Region]]) -> list[Placed]:
    """What is `named`, the nearest first; what has no depth comes last."""
    order = nearest_first(depth, [region for _, region in named])
    rest = [i for i in range(len(named)) if i not in order]
    return [Placed(*named[i], region_depth(depth, named[i][1])) for i in [*order, *rest]]


def rationale(depth: DepthMap, named: Sequence[tuple[str, Region]]) -> str:
    """How far each thing is, their order, and how pairs of them lie.

    Distances are told in metres by a metric map alone; a relation is told only where the map can
    tell it. The order is that of the medians, also where two are about as far, which the relation
    then says: `tiny` was taught the order so. Where a map without metres tells none to be nearer
    than another, that is said in the order's place. "" where nothing is named.
    """
    things = placed(depth, named)[:MAX_NAMED]
    if not things:
        return ""
    lines = [_distances(depth, things), *_relations(depth, things)]
    unknown = [thing.name for thing in things if thing.depth is None]
    if unknown:
        lines.append(f"Not known: {', '.join(unknown)}.")
    return "\n".join(filter(None, lines))


def whole_view(columns: int = 3, rows: int = 3) -> list[tuple[str, Region]]:
    """Parts of an image by name, where nothing in it could be named: "top left", ..., "middle"."""
    down = _names(rows, ("top", "middle", "bottom"))
    across = _names(columns, ("left", "middle", "right"))
    parts = []
    for row, high in enumerate(down):
        for column, side in enumerate(across):
            name = high if high == side else f"{high} {side}"
            box = (column / columns, row / rows, (column + 1) / columns, (row + 1) / rows)
            parts.append((name, Region(*box)))
    return parts


def _names(count: int, usual: Sequence[str]) -> Sequence[str]:
    return usual if count == len(usual) else [str(n + 1) for n in range(count)]


def _distances(depth: DepthMap, things: Sequence[Placed]) -> str:
    known = [thing for thing in things if thing.depth is not None]
    if depth.kind == "metric":
        told = [f"{thing.name} {_metres(thing.depth)}" for thing in known if thing.depth]
    else:
        told = [thing.name for thing in known]
    said = "From the nearest to the farthest"
    if depth.kind != "metric" and _tied(depth, known):
        said = "About as far as each other"
    return f"{said}: {', '.join(told)}." if known else ""


def _tied(depth: DepthMap, things: Sequence[Placed]) -> bool:
    """Whether there are several, of which the map tells none to be nearer than another."""
    pairs = list(combinations(things, 2))
    told = (compare(depth, a.region, b.region) for a, b in pairs)
    return bool(pairs) and all(each == "cannot tell" for each in told)


def _metres(depth: RegionDepth) -> str:
    return f"{depth.median:.2f} m" if depth.median < 10 else f"{depth.median:.0f} m"


def _relations(depth: DepthMap, things: Sequence[Placed]) -> list[str]:
    """Of pairs, those next to each other in depth first."""
    known = [(i, thing) for i, thing in enumerate(things) if thing.depth is not None]
    pairs = sorted(combinations(known, 2), key=lambda pair: pair[1][0] - pair[0][0])
    return [_relation(depth, a, b) for (_, a), (_, b) in pairs[:MAX_PAIRS]]


def _relation(depth: DepthMap, a: Placed, b: Placed) -> str:
    said = compare(depth, a.region, b.region)
    far = {"nearer": "nearer than", "farther": "farther than"}.get(said, "about as far as")
    beside = _beside(a.region, b.region)
    gap = _gap(depth, a, b) if said != "cannot tell" else ""
    return f"The {a.name} is {far} the {b.name}{gap}{beside}."


def _gap(depth: DepthMap, a: Placed, b: Placed) -> str:
    if depth.kind != "metric" or a.depth is None or b.depth is None:
        return ""
    gap = abs(a.depth.median - b.depth.median)
    digits = 2 if gap >= 0.005 else 3  # not "nearer by 0.00 m"
    return f" by {gap:.{digits}f} m" if gap >= 0.0005 else ""


def _beside(a: Region, b: Region) -> str:
    """Where `a` lies beside `b`; nothing where one covers the other's middle."""
    if a.x1 <= (b.x0 + b.x1) / 2 and (a.x0 + a.x1) / 2 <= b.x0:
        return " and to the left of it"
    if a.x0 >= (b.x0 + b.x1) / 2 and (a.x0 + a.x1) / 2 >= b.x1:
        return " and to the right of it"
    return ""
