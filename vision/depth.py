"""How far things are: depth maps whose direction and unit are part of the value.

Depth networks disagree about what a larger number means: metric ones give metres (larger is
farther), most relative ones give inverse depth up to scale and shift (larger is nearer). A map
that is read the wrong way round looks perfectly sound, so the kind travels with the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from mm.errors import UserError
from mm.geometry import Region, Size

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as Pixels

Kind = Literal["metric", "relative", "inverse"]
"""metric: metres. relative: larger is farther. inverse: larger is nearer. Both in no unit."""

KINDS: tuple[Kind, ...] = ("metric", "relative", "inverse")

LEAST_SHARE = 0.2
"""Of a region's pixels, how many must have a known depth for the region to have one."""

Nearness = Literal["nearer", "farther", "cannot tell"]


class BadDepth(UserError):
    """A depth map that cannot be used; one line that names it and says the remedy."""


@dataclass(frozen=True, eq=False)
class DepthMap:
    """Depth of every pixel of an image.

    Attributes:
        values: (H, W), float32, in metres where `kind` is "metric".
        kind: what a larger number means.
        valid: (H, W), True where the depth is known; values elsewhere mean nothing.
        source: where it came from: a file, a model's name.
        error: of metres, the share by which two must differ for one to count as nearer.
    """

    values: np.ndarray = field(repr=False)
    kind: Kind
    valid: np.ndarray = field(repr=False)
    source: str = ""
    error: float = 0.0

    @property
    def size(self) -> Size:
        """(width, height)."""
        return self.values.shape[1], self.values.shape[0]

    @property
    def sign(self) -> int:
        """What numbers are multiplied by so that larger ones are farther, whatever the kind."""
        return -1 if self.kind == "inverse" else 1


@dataclass(frozen=True)
class RegionDepth:
    """The depth of what a region shows.

    Attributes:
        median: over its valid pixels, in the map's own numbers.
        low, high: quartiles, rising with farness: the near end first.
        share: of its pixels, how many are valid.
    """

    median: float
    low: float
    high: float
    share: float


def depth_map(
    values: np.ndarray, kind: Kind, source: str = "", *, zero_is_known: bool = False
) -> DepthMap:
    """A map of `values` (H, W); 0, NaN and infinity are "not known".

    Args:
        zero_is_known: 0 is a depth as any other: of a model's inverse depth, the farthest.

    Raises:
        BadDepth: it is no (H, W), nothing in it is known, or all that is known is the same.
    """
    import numpy as np

    name = source or "the depth map"
    if kind not in KINDS:
        raise BadDepth(f"{name}: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if values.ndim != 2 or 0 in values.shape:
        raise BadDepth(f"{name}: expected one number a pixel, (H, W), found {values.shape}")
    numbers = values.astype(np.float32)
    valid = np.isfinite(numbers) & (zero_is_known | (numbers != 0))
    if not valid.any():
        raise BadDepth(f"{name}: no pixel has a depth; 0, NaN and infinity mean not known")
    known = numbers[valid]
    if kind == "metric" and known.min() < 0:
        raise BadDepth(f"{name}: metres must not be negative, found {known.min():g}")
    if known.min() == known.max():
        raise BadDepth(f"{name}: every pixel has the depth {known[0]:g}: nothing is nearer")
    return DepthMap(np.where(valid, numbers, np.float32(0)), kind, valid, source)


def resized(depth: DepthMap, size: Size) -> DepthMap:
    """`depth` for an image of `size`, each pixel taking the nearest one's: edges stay edges.

    Raises:
        BadDepth: the shapes differ by more than rounding, so it is the map of another image; or
            none of the pixels that are taken has a depth.
    """
    import numpy as np

    (wide, high), (width, height) = depth.size, size
    if abs(wide / high - width / height) > 0.02 * width / height:
        raise BadDepth(
            f"{depth.source or 'the depth map'} is {wide} x {high}, the image {width} x {height}: "
            "give the map of this image"
        )
    rows = (np.arange(height) + 0.5) * high // height
    columns = (np.arange(width) + 0.5) * wide // width
    at = np.ix_(rows.astype(int), columns.astype(int))
    if not depth.valid[at].any():
        raise BadDepth(
            f"{depth.source or 'the depth map'} knows too few depths for an image of "
            f"{width} x {height}: give a denser map, or one of that size"
        )
    return replace(depth, values=depth.values[at], valid=depth.valid[at])


def nearest_and_farthest(depth: DepthMap) -> tuple[float, float]:
    """The least and the greatest known depth, times the map's sign, so that less is nearer."""
    known = depth.sign * depth.values[depth.valid]
    return float(known.min()), float(known.max())


def farness(depth: DepthMap) -> np.ndarray:
    """How far each pixel is, (H, W): from 0, the nearest, to 1, the farthest.

    All are 0 where the map is flat, as one may be that was made smaller.
    """
    import numpy as np

    near, far = nearest_and_farthest(depth)
    return np.clip((depth.sign * depth.values - near) / ((far - near) or 1.0), 0, 1)


def flipped(depth: DepthMap) -> DepthMap:
    """Near and far swapped: near + far - d over what is known. A control."""
    import numpy as np

    known = depth.values[depth.valid]
    turned = known.min() + known.max() - depth.values
    return replace(depth, values=np.where(depth.valid, turned, np.float32(0)))


def constant(depth: DepthMap) -> DepthMap:
    """The median of what is known everywhere, so that no two things can be told apart. A control.

    `depth_map` refuses such a map from people: theirs would be a mistake.
    """
    import numpy as np

    median = np.median(depth.values[depth.valid])
    return replace(depth, values=np.full_like(depth.values, median))


def noisy(depth: DepthMap, *, seed: int = 0) -> DepthMap:
    """Patches of random depths between the nearest and the farthest. A control."""
    import numpy as np

    known = depth.values[depth.valid]
    drawn = np.random.default_rng(seed).uniform(known.min(), known.max(), (8, 8))
    rows = np.arange(depth.size[1]) * 8 // depth.size[1]
    columns = np.arange(depth.size[0]) * 8 // depth.size[0]
    return replace(depth, values=drawn[np.ix_(rows, columns)].astype(np.float32))


def region_depth(depth: DepthMap, region: Region) -> RegionDepth | None:
    """The depth of what `region` shows; None where too few of its pixels have one.

    Its middle half each way counts: the corners of a box show what lies behind.
    """
    import numpy as np

    x0, y0, x1, y1 = _middle(region).to_pixels(depth.size)
    values, valid = depth.values[y0:y1, x0:x1], depth.valid[y0:y1, x0:x1]
    share = float(valid.mean())
    if share < LEAST_SHARE:
        return None
    low, median, high = (float(q) for q in np.quantile(values[valid], (0.25, 0.5, 0.75)))
    if depth.kind == "inverse":
        low, high = high, low
    return RegionDepth(median, low, high, share)


def _middle(region: Region) -> Region:
    aside, below = (region.x1 - region.x0) / 4, (region.y1 - region.y0) / 4
    return Region(region.x0 + aside, region.y0 + below, region.x1 - aside, region.y1 - below)


def greys(depth: DepthMap) -> Pixels:
    """`depth` in greys: the nearest is white, the farthest dark, what is not known black."""
    import numpy as np
    from PIL import Image as PILImage

    shade = np.where(depth.valid, 255 - 215 * farness(depth), 0)
    return PILImage.fromarray(shade.round().astype(np.uint8)).convert("RGB")


def compare(depth: DepthMap, a: Region, b: Region) -> Nearness:
    """Whether what `a` shows is nearer than what `b` shows.

    "cannot tell" where one has no depth, where the middle halves of both overlap as far as the
    medians, or where the medians differ by no more than the map's error.
    """
    first, second = region_depth(depth, a), region_depth(depth, b)
    if first is None or second is None:
        return "cannot tell"
    sign = depth.sign
    least = depth.error * min(first.median, second.median) if depth.kind == "metric" else 0.0
    if abs(second.median - first.median) <= least:
        return "cannot tell"
    near, far = (first, second) if sign * first.median < sign * second.median else (second, first)
    overlap = sign * near.high > sign * far.median and sign * far.low < sign * near.median
    if overlap:
        return "cannot tell"
    return "nearer" if near is first else "farther"


def nearest_first(depth: DepthMap, regions: Sequence[Region]) -> list[int]:
    """Positions of `regions` from the nearest to the farthest; those without a depth left out."""
    found = {i: region_depth(depth, region) for i, region in enumerate(regions)}
    known = {i: each.median for i, each in found.items() if each}
    return sorted(known, key=lambda i: depth.sign * known[i])
