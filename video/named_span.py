"""The span that a model names in plain text, where it calls no tools."""

from __future__ import annotations

import re

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
