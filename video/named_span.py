"""The span that a model names: in plain text, where it calls no tools; and inside its clip."""

from __future__ import annotations

import math
import re

from vision.zoom_tool import BadCall

from .context import seconds
from .frames import ClipInfo

_LEAST_S = 1e-3

_NAMED = re.compile(
    r"""\b(start_s|end_s|clip)["']?\s*[:=]\s*["']?(-?)((?:\d+:){0,2}(?:\d+(?:\.\d*)?|\.\d+))"""
)


def named_span(text: str) -> tuple[int, float, float] | None:
    """The clip, the start and the end in seconds that a reply names; None where an end is missing.

    The keys stand in any order; the first value of each counts. Times are numbers, or written as
    clocks show them. The clip is the first one where none is named, -1 where it is no whole number.
    """
    found: dict[str, float] = {}
    for key, sign, number in _NAMED.findall(text):
        found.setdefault(key, _in_seconds(number) * (-1 if sign else 1))
    if not {"start_s", "end_s"} <= found.keys():
        return None
    clip = found.get("clip", 0.0)
    return int(clip) if clip.is_integer() else -1, found["start_s"], found["end_s"]


def _in_seconds(clock: str) -> float:
    """Seconds, as "4", ".5", "00:04" and "1:02:03.5" have them."""
    return sum(float(part) * 60**n for n, part in enumerate(reversed(clock.split(":"))))


def inside(info: ClipInfo, start_s: float, end_s: float) -> tuple[float, float]:
    """The span inside the clip; its ends may be given in either order.

    Raises:
        BadCall: it lies outside.
    """
    start_s, end_s = min(start_s, end_s), max(start_s, end_s)
    first, last = info.start_s, info.start_s + info.duration_s
    if not (math.isfinite(start_s) and math.isfinite(end_s)) or end_s < first or start_s > last:
        length, ends = seconds(last - first), f"{seconds(first)} to {seconds(last)}"
        raise BadCall(f"The clip is {length} s long: name a span from {ends}.")
    start_s, end_s = max(start_s, first), min(end_s, last)
    if end_s - start_s < _LEAST_S:  # a moment: half a second around it
        start_s, end_s = max(start_s - 0.25, first), min(end_s + 0.25, last)
    rounded = max(round(start_s, 3), first), min(round(end_s, 3), last)
    return rounded if rounded[0] < rounded[1] else (start_s, end_s)
