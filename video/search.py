"""Looking again in time: strategies over clips.

`uniform` shows frames spread over the whole clip and lets any strategy answer. `watch` then lets
the model ask for more frames of a span, or for a region of a frame, before it answers.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from mm.errors import ModelError, UserError
from mm.geometry import Size
from mm.origins import FrameOf
from mm.session import Session, Strategy
from mm.strategies.single import direct
from mm.trace import Branch, Sample
from mm.types import Clip, Conversation, Image, Message, Part, Text, message, user
from vision.act import act
from vision.action_schema import Action
from vision.actions import terminate, zoom_in
from vision.look_loop import Limits
from vision.zoom_tool import BadCall

from .context import Choose, Showing, opened, shown, tokens_of, with_frames
from .decode import Video
from .frames import BadVideo, Frame
from .named_span import inside, named_span
from .sampling import smaller, within
from .subtitles import between
from .windows import note_windows

SPANS = "spans"
"""The trace's setting that lists the spans looked at again: clip, start and end in seconds."""

WHERE = (
    "Do not answer yet. Which part of the clip must be seen in more frames to answer the question? "
    'Reply with its start and end in seconds only: {"start_s": s, "end_s": e}'
)
WHERE_OF = (
    "Do not answer yet. Which part of which clip must be seen in more frames to answer the "
    "question? Reply with the clip's number, from 0, and its start and end in seconds only: "
    '{"clip": n, "start_s": s, "end_s": e}'
)
"""The same where there are several clips."""

NO_SPAN = user("No span could be read from that. Now answer the question.")
SHOWN = "These are more frames of that part. Now answer the question."
Look = Callable[[int, float, float, float | None], list[Image | str]]
"""Frames of a clip, by its number, from one second to another, so many a second."""

Span = tuple[float, float]
"""Start and end in seconds, as the clip's own times count them: frames in memory may begin late."""

ChooseSpan = Callable[[Sample, Span, Span], Span]
"""The span really shown for the one asked for; the last that is given is the whole clip."""

_OPEN = "open clips"


def uniform(
    session: Session,
    *,
    strategy: Strategy = direct,
    frames: int = 16,
    fps: float | None = None,
    clip_tokens: int | None = None,
    choose: Choose = "uniform",
    side: int = 336,
    siglip: str | None = None,
    pack: bool = False,
) -> Branch:
    """Show frames spread over each clip, then let `strategy` answer.

    Args:
        frames, fps, clip_tokens, choose, side, siglip, pack: as `Showing` has them.
        strategy: sees the frames as images; `zoom` may enlarge parts of them.

    Raises:
        UserError: a number is out of its bounds.
        ModelError: the model failed, or a clip cannot be read.
    """
    _show(session, Showing(frames, fps, clip_tokens, choose, side, siglip, pack))
    return strategy(session)


def watch(
    session: Session,
    *,
    frames: int = 8,
    fps: float | None = None,
    clip_tokens: int | None = None,
    choose: Choose = "uniform",
    side: int = 336,
    siglip: str | None = None,
    pack: bool = False,
    look_frames: int = 8,
    look_side: int = 672,
    max_looks: int = 4,
    look_tokens: int | None = None,
    window_s: float = 600.0,
    regions: bool = True,
    choose_span: ChooseSpan | None = None,
) -> Branch:
    """Show few frames of the clip, then more of the spans that the model names, until it answers.

    A model that calls no tools, or was taught others alone, is asked once which span it must see.
    A clip longer than `window_s` is first gone through in windows of that length, and what each
    holds for the question is noted.

    Args:
        frames, fps, clip_tokens, choose, side, siglip: what is shown at first, as `Showing` has it.
        pack: two frames share the visual tokens of one, at first and in looks.
        look_frames: frames of a look, at most.
        look_side: the shorter side of a look's frames in pixels, at most.
        max_looks: looks, wrong ones included; then it must answer.
        look_tokens: no more looks once their frames cost this many visual tokens.
        window_s: seconds of a window, over 0.
        regions: whether a part of a frame may be enlarged too.
        choose_span: replaces each span asked for, for controls.

    Raises:
        UserError: a number is out of its bounds.
        ModelError: the model failed, or a clip cannot be read.
    """
    if not window_s > 0 or look_frames < 1 or max_looks < 0:
        raise UserError(
            "window_s must be over 0, look_frames 1 or more, max_looks 0 or more; got "
            f"{window_s:g}, {look_frames} and {max_looks}"
        )
    showing = Showing(frames, fps, clip_tokens, choose, side, siglip, pack)
    clips, videos = _show(session, showing)
    if not videos:
        return direct(session)
    note_windows(session, clips, videos, showing, window_s)
    look = partial(
        _span,
        session,
        clips,
        videos,
        count=look_frames,
        side=look_side,
        choose=choose_span,
        pack=pack,
    )
    traits = session.vlm.traits
    if not traits.calls_tools or (traits.tools and look_at_span.__name__ not in traits.tools):
        return _asked_where(session, clips, look, Limits(max_looks, look_tokens))
    actions: list[Action] = [partial(look_at_span, clips=clips, look=look)]
    actions += [zoom_in, terminate] if regions else [terminate]
    return act(session, actions=actions, max_steps=max_looks, look_tokens=look_tokens)


def over_clips(strategy: Strategy) -> Strategy:
    """`strategy`, which sees frames spread over a clip where the question has one."""
    return strategy if _choosing(strategy) else partial(uniform, strategy=strategy)


def shown_first(strategy: Strategy) -> Showing:
    """How much of a clip `strategy` shows at first, spread over its length."""
    options = inspect.signature(_choosing(strategy) or uniform).parameters
    names = ("frames", "fps", "clip_tokens", "side", "pack")
    given: Any = {name: options[name].default for name in names if name in options}
    return Showing(**given)


def _choosing(strategy: Strategy) -> Strategy | None:
    """It, or a strategy that it was bound to, which chooses frames itself."""
    if "clip_tokens" in inspect.signature(strategy).parameters:
        return strategy
    inner = strategy.keywords.get("strategy") if isinstance(strategy, partial) else None
    return _choosing(inner) if inner is not None else None


def look_at_span(
    start_s: float,
    end_s: float,
    fps: float | None = None,
    clip: int = 0,
    *,
    clips: Sequence[Clip],
    look: Look,
) -> list[Image | str]:
    """See more frames of a part of the clip, with their times.

    Args:
        start_s: where the part starts, in seconds.
        end_s: where it ends.
        fps: frames a second; as many as are allowed, by default.
        clip: which clip, from 0.
    """
    if not 0 <= clip < len(clips):
        raise BadCall(f'"clip" must be from 0 to {len(clips) - 1}, got {clip}.')
    return look(clip, start_s, end_s, fps)


def _show(session: Session, showing: Showing) -> tuple[Sequence[Clip], Sequence[Video]]:
    """Put the first frames of each clip in its place, once a trace; the clips, and they open."""
    if showing.pack and not session.vlm.traits.packs_frames:
        raise ModelError(
            f"pack: {session.vlm.name} takes no two frames in the visual tokens of one; Qwen's "
            "models do, loaded here: leave it out"
        )
    clips = session.sample.clips
    if not clips:  # none, or another draw of the same question has put the frames in
        return session.shared.get(_OPEN, ((), ()))
    try:
        videos = [opened(clip) for clip in clips]
        clips = _held(clips, videos)
        prompt = _holding(session.sample.prompt, iter(clips))
        session.reword(with_frames(prompt, showing, tokens_of(session.vlm)))
    except BadVideo as error:  # this question's alone, of many that may be asked
        raise ModelError(str(error)) from error
    session.note("clips", [_facts(*each) for each in zip(clips, videos, strict=True)])
    session.shared[_OPEN] = clips, videos
    return clips, videos


def _held(clips: Sequence[Clip], videos: Sequence[Video]) -> list[Clip]:
    """The clips, open; of several in memory by one name the later ones are numbered, since a frame
    says by its clip's name where it is from."""
    held: list[Clip] = []
    seen: dict[str, list[Video | None]] = {}
    for clip, video in zip(clips, videos, strict=True):
        same = seen.setdefault(clip.source, [])
        if clip.video not in same:
            same.append(clip.video)
        number = same.index(clip.video) + 1
        held.append(Clip(f"{clip.source} {number}" if number > 1 else clip.source, video))
    return held


def _holding(prompt: Conversation, held: Iterator[Clip]) -> Conversation:
    """`prompt` with the clips in it replaced by those of `held`, in order."""

    def parts(said: Message) -> tuple[Part, ...]:
        return tuple(next(held) if isinstance(part, Clip) else part for part in said.parts)

    return tuple(replace(said, parts=parts(said)) for said in prompt)


def _facts(clip: Clip, video: Video) -> dict[str, object]:
    info = video.info
    return {
        "source": clip.source,
        "reader": video.reader,
        "duration_s": round(info.duration_s, 3),
        "frames": len(info.times_s),
        "notes": list(info.notes),
        **({"subtitles": len(info.cues)} if info.cues else {}),
    }


def _span(
    session: Session,
    clips: Sequence[Clip],
    videos: Sequence[Video],
    clip: int,
    start_s: float,
    end_s: float,
    fps: float | None,
    *,
    count: int,
    side: int,
    choose: ChooseSpan | None,
    pack: bool,
) -> list[Image | str]:
    """Frames of a span that the model named, as parts of an observation.

    Raises:
        BadCall: it lies outside the clip, or shows nothing new.
    """
    video = videos[clip]
    start_s, end_s = inside(video.info, start_s, end_s)
    if choose:
        whole = video.info.start_s, video.info.start_s + video.info.duration_s
        start_s, end_s = choose(session.sample, (start_s, end_s), whole)
    wanted = max(math.ceil(min((end_s - start_s) * fps, count)), 1) if fps and fps > 0 else count
    size = smaller(video.info.size, side)
    known = {t for t in video.info.times_s if _known(session, clips[clip], t, size)}
    found = _decoded(video, _unseen(video, start_s, end_s, wanted, known), size)
    if not found:
        raise BadCall("These frames were already shown above. Name another span, or answer.")
    told = session.trace.settings.get(SPANS, [])
    assert isinstance(told, list)
    session.note(SPANS, [*told, {"clip": clips[clip].source, "start_s": start_s, "end_s": end_s}])
    cues = between(video.info.cues, start_s, end_s)
    parts = shown(clips[clip].source, found, pack=pack, cues=cues)
    return [p.text if isinstance(p, Text) else p for p in parts]  # type: ignore[misc]


def _decoded(video: Video, times: Sequence[float], size: Size) -> list[Frame]:
    try:
        return list(video.frames_at(times, size))
    except BadVideo as error:
        raise BadCall(f"That part cannot be read: {error}") from error


def _unseen(
    video: Video, start_s: float, end_s: float, count: int, known: set[float]
) -> list[float]:
    """Up to `count` times of frames in the span that are not `known`.

    Where all of them are, times between them.
    """
    times = [t for t in within(video.info, start_s, end_s, count) if t not in known]
    if times:
        return times
    between = [t for t in within(video.info, start_s, end_s, 2 * count) if t not in known]
    return between[:: max(len(between) // count, 1)][:count]


def _known(session: Session, clip: Clip, time_s: float, size: Size) -> bool:
    """Whether the frame at `time_s` was shown at this size, or a larger one."""
    large = (i.origin for i in session.images if i.size[0] >= size[0])
    frames = (origin for origin in large if isinstance(origin, FrameOf))
    return any(f.video == clip.source and time_s in f.times_s for f in frames)


def _asked_where(session: Session, clips: Sequence[Clip], look: Look, limits: Limits) -> Branch:
    """For a model that calls no tools: it is asked for one span, shown it unless no look is
    allowed, and asked again."""
    several = len(clips) > 1
    session.say(user(WHERE_OF if several else WHERE))
    reply = session.generate().message
    named = named_span("".join(p.text for p in reply.parts if isinstance(p, Text)))
    parts = None
    if named and limits.allow(0, 0):
        clip, start_s, end_s = named
        with suppress(BadCall):  # where there is one clip, it can mean no other
            clip = clip if several else 0
            parts = look_at_span(start_s, end_s, clip=clip, clips=clips, look=look)
    session.say(NO_SPAN if parts is None else message("user", *parts, SHOWN))
    return direct(session)
