"""The boxes in a model's words, and the words for a box.

Every family writes boxes in its own frame (`BoxFormat`); callers get `Region`s and never see it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from mm.geometry import BoxFormat, Region, Size

FALLBACK_KEYS = ("bbox_2d", "bbox", "box_2d", "box")
"""Keys read when a reply has no box under the family's own key."""

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_FOUR = r"[\s,]+".join([rf"(?:[\"']?({_NUMBER})[\"']?)"] * 4)
_BOX = re.compile(rf"(?:[\"'](?P<key>\w+)[\"']\s*:\s*)?\[\s*{_FOUR}\s*\]")
_CORNERS = re.compile(
    rf"\(\s*({_NUMBER})[\s,]+({_NUMBER})\s*\)\s*,?\s*\(\s*({_NUMBER})[\s,]+({_NUMBER})\s*\)"
)
_LABEL = re.compile(r"[\"']label[\"']\s*:\s*(\"(?:[^\"\\]|\\.)*\")")


@dataclass(frozen=True)
class Grounded:
    """A region and what the model called it; "" when it gave no label."""

    region: Region
    label: str = ""


def parse_grounding(text: str, box_format: BoxFormat, seen: Size) -> list[Grounded]:
    """Every box in `text` with its label, for a model that saw the image at `seen` pixels.

    Reads box by box rather than as one JSON document, so a reply cut off by the token limit keeps
    the boxes it finished. A box that is malformed, or empty once clipped to the image, is dropped.
    Numbers may be floats or quoted, and are parted by commas or blanks. Only boxes of the best
    kind found are read: under the family's key, else under one of `FALLBACK_KEYS`, else bare
    `[x0, y0, x1, y1]`, else `(x0, y0), (x1, y1)`; their frame and order are always the family's.
    """
    found = []
    for match in _best_kind(text, box_format.key):
        a, b, c, d = (float(number) for number in match.groups()[-4:])
        try:
            region = box_format.read((a, b, c, d), seen)
        except ValueError:
            continue
        found.append(Grounded(region, _label(text, match)))
    return found


def parse_boxes(text: str, box_format: BoxFormat, seen: Size) -> list[Region]:
    """Every box in `text`, read as `parse_grounding` does."""
    return [g.region for g in parse_grounding(text, box_format, seen)]


def format_box(region: Region, box_format: BoxFormat, seen: Size, label: str = "") -> str:
    """`region` as the family writes it, a JSON object that `parse_boxes` reads back."""
    named = {"label": label} if label else {}
    body = {box_format.key: box_format.write(region, seen), **named}
    return json.dumps(body, ensure_ascii=False)


def _best_kind(text: str, key: str) -> list[re.Match[str]]:
    boxes = list(_BOX.finditer(text))
    kinds = (
        [m for m in boxes if m["key"] == key],
        [m for m in boxes if m["key"] in FALLBACK_KEYS],
        [m for m in boxes if m["key"] is None],
        list(_CORNERS.finditer(text)),
    )
    return next((kind for kind in kinds if kind), [])


def _label(text: str, box: re.Match[str]) -> str:
    """The label in the same JSON object as `box`."""
    before = text[: box.start()].rpartition("{")[2]
    after = re.split(r"[{}]", text[box.end() :], maxsplit=1)[0]
    label = _LABEL.search(after) or _LABEL.search(before.rpartition("}")[2])
    try:
        return json.loads(label[1], strict=False) if label else ""
    except ValueError:  # an escape that JSON does not know
        return ""
