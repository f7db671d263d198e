"""Frames of a clip as a model is shown them: images with their times in the text between.

A time is written as Qwen3-VL's own processor writes it, "<1.5 seconds>", before its frame: words
that every family reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from mm.errors import ModelError, UserError
from mm.geometry import Size
from mm.origins import FrameOf
from mm.types import Clip, Conversation, Image, Message, Part, Text
from mm.vlm import VLM

from .decode import Video, open_video, video_of
from .frames import SAME_S, BadVideo, ClipInfo, Cue, Frame
from .sampling import by_change, by_question, by_rate, plan_frames, smaller, uniform
from .subtitles import beside

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

TokensOf = Callable[[Size], int]
"""How many visual tokens an image of a size takes."""

Choose = Literal["uniform", "change", "question"]

MOST_FRAMES = 768
"""Of one clip, whatever is asked for; as many as Qwen's processors take."""


@dataclass(frozen=True)
class Showing:
    """How much of a clip is shown at first.

    Attributes:
        frames: at most so many.
        fps: so many a second, where they are fewer; None spreads `frames` over the whole length.
        clip_tokens: at most so many visual tokens for all frames, which are made smaller, then
            fewer; None for no bound but `side`.
        choose: "uniform" over the length, one from each scene ("change"), or those that fit the
            "question" best, spread.
        side: the shorter side of a frame in pixels, at most.
        siglip: for "question": a SigLIP checkpoint, a folder or a hub id.
        pack: two frames share the visual tokens of one, as Qwen's models take clips.
    """

    frames: int = 16
    fps: float | None = None
    clip_tokens: int | None = None
    choose: Choose = "uniform"
    side: int = 336
    siglip: str | None = None
    pack: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= MOST_FRAMES:
            raise UserError(f"frames must be from 1 to {MOST_FRAMES}, got {self.frames}")
        for name in ("clip_tokens", "side", "fps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{name} must be over 0 and finite, got {value}")
        if self.choose not in get_args(Choose):
            known = ", ".join(get_args(Choose))
            raise UserError(f"choose must be one of {known}, got {self.choose!r}")
        if (self.choose == "question") != bool(self.siglip):
            raise UserError("choose=question and siglip, a SigLIP checkpoint, go together")


def clip_of(frames: Sequence[Pixels], times_s: Sequence[float], name: str = "frames") -> Clip:
    """A clip of PIL images, shown from `times_s` on, in seconds.

    Raises:
        BadVideo: there are none, or the times do not rise, or are not as many.
    """
    return Clip(name, video_of(frames, times_s, name))


def opened(clip: Clip) -> Video:
    """The clip, open.

    Raises:
        BadVideo: it cannot be read; one line says why.
    """
    return clip.video or open_video(clip.source)


def tokens_of(vlm: VLM) -> TokensOf | None:
    """What an image of a size costs; None where the model cannot tell."""
    try:
        vlm.visual_tokens((64, 64))
    except ModelError:
        return None
    return vlm.visual_tokens


def first_frames(
    video: Video, showing: Showing, tokens_of: TokensOf | None, question: str = ""
) -> list[Frame]:
    """The frames of `video` that are shown at first.

    Args:
        question: what is asked, for frames that are chosen by it.
        tokens_of: None where the model cannot tell; there is no budget then.

    Raises:
        BadVideo: a frame cannot be decoded, or the budget pays for none.
    """
    count, size = plan(video.info, showing, tokens_of)
    if showing.choose == "change":
        times = by_change(video, count)
    elif showing.siglip:
        from .siglip import load_siglip

        times = by_question(video, question, count, load_siglip(showing.siglip).score)
    elif showing.fps:
        times = by_rate(video.info, showing.fps, count)
    else:
        times = uniform(video.info, count)
    return list(video.frames_at(times, size))


def plan(info: ClipInfo, showing: Showing, tokens_of: TokensOf | None) -> tuple[int, Size]:
    """How many frames of a clip, or of a part of it, are shown, and their size.

    Raises:
        BadVideo: the budget pays for no frame, or the model does not tell what one costs.
    """
    size, most = smaller(info.size, showing.side), _most(info, showing)
    if showing.clip_tokens is None:
        return most, size
    if tokens_of is None:
        raise BadVideo("clip_tokens: this model does not tell what an image costs: give frames")
    limited = replace(info, size=size)
    fps = showing.fps or showing.frames / max(info.duration_s, SAME_S)
    together = 2 if showing.pack else 1
    try:
        paid = plan_frames(limited, showing.clip_tokens, tokens_of, fps=fps / together)
    except ValueError as error:
        raise BadVideo(f"{info.source}: {error}") from error
    return min(paid.count * together, most), paid.size


def _most(info: ClipInfo, showing: Showing) -> int:
    if showing.fps is None:
        return showing.frames
    wanted = min(info.duration_s * showing.fps, showing.frames)
    return max(math.ceil(wanted - 1e-9), 1)


def shown(
    source: str, frames: Sequence[Frame], *, pack: bool = False, cues: Sequence[Cue] = ()
) -> list[Part]:
    """The frames as a message has them, each after its time, and before what `cues` say until the
    next one.

    `pack`: in pairs, each after the middle of its two times, to a tenth, as Qwen3-VL's processor
    writes it (`_calculate_timestamps`); the last of an odd number stands alone, which is how that
    processor shows it, twice.
    """
    together = 2 if pack else 1
    groups = [frames[n : n + together] for n in range(0, len(frames), together)]
    said = beside(cues, [first.time_s for first, *_ in groups]) if cues else [""] * len(groups)
    parts: list[Part] = []
    for (first, *second), words in zip(groups, said, strict=True):
        time = seconds(first.time_s)
        parts += _pair(source, first, *second) if pack else _one(source, first, time)
        parts += [Text(words)] if words else []
    return parts


def _one(source: str, frame: Frame, time: str) -> list[Part]:
    return [Text(f"<{time} seconds>"), Image(frame.pixels, FrameOf(source, frame.time_s))]


def _pair(source: str, first: Frame, second: Frame | None = None) -> list[Part]:
    if second is None:
        return _one(source, first, f"{first.time_s:.1f}")
    middle = (first.time_s + second.time_s) / 2
    both = FrameOf(source, first.time_s, second.time_s)
    return [Text(f"<{middle:.1f} seconds>"), Image(first.pixels, both, second.pixels)]


def apart(image: Image) -> list[Image]:
    """The frames that share the visual tokens of an image, each as an image; else itself."""
    if image.second is None or not isinstance(image.origin, FrameOf):
        return [image]
    pixels, times = (image.pixels, image.second), image.origin.times_s
    named = zip(pixels, times, strict=True)
    return [Image(each, FrameOf(image.origin.video, time_s)) for each, time_s in named]


def seconds(time_s: float) -> str:
    """A time as it is written: to a tenth, or to a hundredth where that differs by more."""
    tenth = f"{time_s:.1f}"
    return tenth if abs(float(tenth) - time_s) < 0.011 else f"{time_s:.2f}"


def with_frames(
    conversation: Conversation, showing: Showing, tokens_of: TokensOf | None
) -> Conversation:
    """`conversation` with each clip in it replaced by its first frames.

    Raises:
        BadVideo: a clip cannot be read.
    """
    return tuple(_with_frames(message, showing, tokens_of) for message in conversation)


def _with_frames(message: Message, showing: Showing, tokens_of: TokensOf | None) -> Message:
    if not message.clips:
        return message
    parts: list[Part] = []
    for part in message.parts:
        if isinstance(part, Clip):
            video = opened(part)
            frames = first_frames(video, showing, tokens_of, message.text)
            parts += shown(part.source, frames, pack=showing.pack, cues=video.info.cues)
        else:
            parts.append(part)
    return replace(message, parts=tuple(parts))
