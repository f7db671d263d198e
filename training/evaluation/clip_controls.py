"""Controls of clips: the same times and sizes, other frames in their places."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mm.errors import ModelError
from mm.geometry import Size
from mm.session import Session, Strategy
from mm.trace import Branch, Sample
from mm.types import Clip, Conversation, Message
from video.context import opened
from video.decode import Video
from video.frames import BadVideo
from video.search import Span
from vision.crop import GREY

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

Places = Callable[[int, int], int]
"""Which frame stands at a position, of so many frames."""


def middle_frame(position: int, count: int) -> int:
    """The frame in the middle, wherever one looks."""
    return count // 2


def reversed_frames(position: int, count: int) -> int:
    """The frames in reverse order."""
    return count - 1 - position


def shuffled_frames(position: int, count: int, *, seed: int = 0) -> int:
    """The frames in random order."""
    return random.Random(f"{seed} {count}").sample(range(count), count)[position]


CONTROLS: Mapping[str, Places | None] = {
    "blind": None,
    "middle-frame": middle_frame,
    "shuffled": shuffled_frames,
    "reversed": reversed_frames,
}
"""By name; None shows grey frames."""


def chosen_span(
    sample: Sample,
    asked: Span,
    whole: Span,
    *,
    true: Span | None,
    seed: int = 0,
) -> Span:
    """The `true` span; without one another of the length that was asked for, by chance."""
    if true is not None:
        return true
    long = asked[1] - asked[0]
    room = max(whole[1] - whole[0] - long, 0.0)
    start = whole[0] + random.Random(f"{seed} {sample.id} {asked}").uniform(0, room)
    return start, start + long


def over_changed(strategy: Strategy, control: str) -> Strategy:
    """`strategy`, which finds the clips of its question under one of `CONTROLS`.

    They are opened when it runs, so that one that cannot be fails its own question alone.
    """
    return partial(_over_changed, strategy=strategy, control=control)


def _over_changed(session: Session, *, strategy: Strategy, control: str) -> Branch:
    try:
        session.reword(changed_clips(session.sample.prompt, control))
    except BadVideo as error:
        raise ModelError(str(error)) from error
    return strategy(session)


def changed_clips(conversation: Conversation, control: str) -> Conversation:
    """`conversation` with its clips under one of `CONTROLS`.

    Raises:
        BadVideo: a clip cannot be opened.
    """
    change = partial(_changed, control=control)
    return tuple(_in_message(message, change) for message in conversation)


def _in_message(message: Message, change: Callable[[Clip], Clip]) -> Message:
    if not message.clips:
        return message
    parts = tuple(change(part) if isinstance(part, Clip) else part for part in message.parts)
    return replace(message, parts=parts)


def _changed(clip: Clip, control: str) -> Clip:
    video, places = opened(clip), CONTROLS[control]
    reading = partial(_grey, video.info.size) if places is None else partial(_other, video, places)
    return Clip(clip.source, Video(video.info, f"{video.reader}, {control}", reading))


def _grey(whole: Size, wanted: Sequence[int], size: Size | None) -> Iterator[tuple[int, Pixels]]:
    from PIL import Image as pil

    for position in wanted:
        yield position, pil.new("RGB", size or whole, GREY)


def _other(
    video: Video, places: Places, wanted: Sequence[int], size: Size | None
) -> Iterator[tuple[int, Pixels]]:
    times = video.info.times_s
    at = {position: places(position, len(times)) for position in wanted}
    needed = [times[position] for position in sorted(set(at.values()))]
    frames: dict[float, Any] = {f.time_s: f.pixels for f in video.frames_at(needed, size)}
    for position in wanted:
        yield position, frames[times[at[position]]]
