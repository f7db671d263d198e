"""Which frames of a clip to look at: times, chosen by several rules, within a budget.

Every rule gives rising times in seconds, none twice. `Video.frames_at` decodes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from mm.geometry import Size

from .decode import Video
from .frames import ClipInfo

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as Pixels

Scorer = Callable[[Sequence["Pixels"], str], Sequence[float]]
"""How well each image fits a text; larger fits better."""

LOOKED_AT = 128
"""Frames decoded, small, to find changes or what a question asks about."""

SMALL: Size = (64, 64)
"""The size at which frames are compared."""

FIT_SIDE = 384
"""The shorter side, at most, of frames that are compared with a question: what SigLIP sees."""

_TIMES_STEP = 1.25  # between the sizes that a budget tries


def uniform(info: ClipInfo, count: int) -> list[float]:
    """`count` frames spread over the whole length: the middle of each of as many equal spans."""
    _check_count(count)
    step = info.duration_s / count
    return _shown(info, [info.start_s + (i + 0.5) * step for i in range(count)])


def by_rate(info: ClipInfo, fps: float, most: int) -> list[float]:
    """`fps` frames a second from the start; where those are more than `most`, `most` uniformly."""
    if not (fps > 0 and math.isfinite(fps)):
        raise ValueError(f"fps must be a positive number, got {fps}")
    count = max(math.ceil(info.duration_s * fps - 1e-9), 1)
    if count > most:
        return uniform(info, most)
    return _shown(info, [info.start_s + i / fps for i in range(count)])


def around(info: ClipInfo, moment_s: float, count: int, span_s: float) -> list[float]:
    """`count` frames spread over `span_s` seconds around a moment, moved inside the clip."""
    span_s = min(span_s, info.duration_s)
    last = info.start_s + info.duration_s - span_s
    start = max(min(moment_s - span_s / 2, last), info.start_s)  # `last` may be rounded below it
    return within(info, start, start + span_s, count)


def within(info: ClipInfo, start_s: float, end_s: float, count: int) -> list[float]:
    """`count` frames spread over the span from `start_s` to `end_s`.

    Raises:
        ValueError: the span is empty, or outside the clip.
    """
    _check_count(count)
    first, last = info.start_s, info.start_s + info.duration_s
    if not first <= start_s < end_s <= last + 1e-6:
        raise ValueError(
            f"a span must rise and lie inside {first:g} to {last:g} s, got {start_s} to {end_s}"
        )
    step = (end_s - start_s) / count
    return _shown(info, [start_s + (i + 0.5) * step for i in range(count)])


def by_change(video: Video, count: int) -> list[float]:
    """`count` frames, one from the middle of each scene; the longest scenes are split for more.

    A scene begins where the image changes most: between frames that `LOOKED_AT` times spread over
    the clip show.
    """
    _check_count(count)
    times, shades = _glimpses(video)
    changes = [float(abs(b - a).mean()) for a, b in pairwise(shades)]
    largest = sorted(range(len(changes)), key=lambda i: -changes[i])[: count - 1]
    cuts = sorted(times[i + 1] for i in largest if changes[i] > _threshold(changes))
    start_s = video.info.start_s
    edges = [start_s, *cuts, start_s + video.info.duration_s]
    while len(edges) <= count:
        start, end = max(pairwise(edges), key=lambda span: span[1] - span[0])
        edges = sorted([*edges, (start + end) / 2])
    return _shown(video.info, [(start + end) / 2 for start, end in pairwise(edges)])


def by_question(video: Video, question: str, count: int, scorer: Scorer) -> list[float]:
    """The `count` frames that fit `question` best, of `LOOKED_AT` spread over the clip.

    One frame for each of `count` equal spans would ignore the question, the best ones alone would
    all show one moment: each that is taken excludes others within half such a span, until no others
    are left.
    """
    _check_count(count)
    size = smaller(video.info.size, FIT_SIDE)
    frames = list(video.frames_at(uniform(video.info, LOOKED_AT), size))
    scores = scorer([frame.pixels for frame in frames], question)
    apart = video.info.duration_s / count / 2
    ranked = sorted(range(len(frames)), key=lambda i: -scores[i])
    taken: list[int] = []
    for near in (apart, 0.0):
        for i in ranked:
            free = all(abs(frames[i].time_s - frames[j].time_s) > near for j in taken)
            if len(taken) < count and free:
                taken.append(i)
    return sorted(frames[i].time_s for i in taken)


def smaller(size: Size, side: int) -> Size:
    """`size` with a shorter side of at most `side` pixels."""
    scale = min(side / min(size), 1.0)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


@dataclass(frozen=True)
class FramePlan:
    """How a budget is spent: so many frames, each of `size`, of so many visual tokens together."""

    count: int
    size: Size
    visual_tokens: int


def plan_frames(
    info: ClipInfo,
    budget: int,
    tokens_of: Callable[[Size], int],
    *,
    fps: float = 2.0,
    least_side: int = 112,
) -> FramePlan:
    """The frames, and their size, that `budget` visual tokens pay for.

    Length first: as many frames as `fps` wants, made smaller until they fit, down to a shorter side
    of `least_side` pixels; then fewer frames. What is left over makes them larger again.

    Args:
        tokens_of: the visual tokens of an image of a size, as `VLM.visual_tokens` says.

    Raises:
        ValueError: the budget does not pay for one frame of the least size.
    """
    wanted = max(min(math.ceil(info.duration_s * fps), len(info.times_s)), 1)
    sizes = _sizes(info.size, least_side)
    if tokens_of(sizes[-1]) > budget:
        raise ValueError(
            f"a budget of {budget} visual tokens pays for no frame: one of {sizes[-1][0]} x "
            f"{sizes[-1][1]} pixels takes {tokens_of(sizes[-1])}"
        )
    count = min(wanted, budget // tokens_of(sizes[-1]))
    size = next(size for size in sizes if count * tokens_of(size) <= budget)
    return FramePlan(count, size, count * tokens_of(size))


def _sizes(size: Size, least_side: int) -> list[Size]:
    """Sizes of one shape from `size` down to a shorter side of `least_side`, or `size` alone."""
    sizes, scale = [size], 1 / _TIMES_STEP
    while min(size) * scale > least_side:
        sizes.append((round(size[0] * scale), round(size[1] * scale)))
        scale /= _TIMES_STEP
    least = least_side / min(size)
    if least < 1:
        sizes.append((round(size[0] * least), round(size[1] * least)))
    return sizes


def _shown(info: ClipInfo, times_s: Sequence[float]) -> list[float]:
    """When the frames shown at `times_s` begin, each once."""
    return [info.times_s[i] for i in sorted({info.index_at(time_s) for time_s in times_s})]


def _glimpses(video: Video) -> tuple[list[float], list[np.ndarray]]:
    import numpy as np

    frames = list(video.frames_at(uniform(video.info, LOOKED_AT), SMALL))
    shades = [np.asarray(frame.pixels, dtype=np.float32) for frame in frames]
    return [frame.time_s for frame in frames], shades


def _threshold(changes: Sequence[float]) -> float:
    """A change is a cut where it stands out: four times the median, and at least a shade."""
    return max(4 * sorted(changes)[len(changes) // 2], 1.0) if changes else 0.0


def _check_count(count: int) -> None:
    if count < 1:
        raise ValueError(f"the number of frames must be at least 1, got {count}")
