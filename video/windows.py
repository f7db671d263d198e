"""Long clips, gone through window by window: what each holds for the question is noted."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from threading import Lock

from mm.answers.extraction import shown_reply
from mm.answers.thought_limit import write_within
from mm.markup import render_parts
from mm.session import Session
from mm.strategies.verdict import Metered
from mm.types import (
    Clip,
    Conversation,
    Cost,
    Generation,
    Message,
    Sampling,
    Thinking,
    assistant,
    message,
    user,
)

from .context import Showing, plan, seconds, shown, tokens_of
from .decode import Video
from .frames import BadVideo, ClipInfo, Frame
from .sampling import within
from .subtitles import MARKED, between

SUMMARISE = (
    "These frames are from {start} s to {end} s of a longer clip. Note in one or two sentences "
    "what in them bears on this question, or nothing: {question}"
)
UNREAD = "cannot be read"
"""The note on a window whose frames are damaged: the others may still tell."""

NOTE_TOKENS = 96
"""The most tokens of a note, and as many again for the thought before it."""

_WRITING = Sampling(max_tokens=2 * NOTE_TOKENS, max_thought_tokens=NOTE_TOKENS)

_LOCK = "windows"


def note_windows(
    session: Session,
    clips: Sequence[Clip],
    videos: Sequence[Video],
    showing: Showing,
    window_s: float,
) -> None:
    """Go through long clips window by window, and tell the model what it noted of each.

    Of several draws the first does this and bears the cost; the others read its notes.
    """
    key, cost = f"windows of {window_s} s, {showing}", Cost()
    with session.shared.setdefault(_LOCK, Lock()):
        if key not in session.shared:
            meter = Metered(session.vlm, own_context=True)
            found = list(_notes(session, meter, clips, videos, showing, window_s))
            if session.stopped:
                return
            session.shared[key], cost = found, meter.cost
    if notes := session.shared[key]:
        told = "\n".join(line for line, _ in notes)
        session.note("windows", [facts for _, facts in notes])
        session.say(message("system", f"Notes on the whole clip:\n{told}"), cost=cost)


def _notes(
    session: Session,
    meter: Metered,
    clips: Sequence[Clip],
    videos: Sequence[Video],
    showing: Showing,
    window_s: float,
) -> Iterator[tuple[str, dict[str, object]]]:
    """Of each window the line that tells its note, with the clip's number where there are several,
    and the facts: its span, and the times of the frames shown."""
    lines: list[str] = []
    for number, (clip, video) in enumerate(zip(clips, videos, strict=True)):
        which = f"clip {number}, " if len(clips) > 1 else ""
        for span in _windows(video.info, window_s):
            if session.stopped:
                return
            frames = _frames(session, video, showing, span)
            said = UNREAD
            if frames is not None:
                cues = between(video.info.cues, *span)
                shows = shown(clip.source, frames, pack=showing.pack, cues=cues)
                said = _written(meter, (user(*shows, _asked(session, span, lines)),))
            start, end = (seconds(edge) for edge in span)
            lines.append(f"{which}{start} s to {end} s: {said}")
            times = [frame.time_s for frame in frames or ()]
            facts = {"clip": clip.source, "start_s": span[0], "end_s": span[1], "times_s": times}
            yield lines[-1], {**facts, "note": said}


def _windows(info: ClipInfo, window_s: float) -> list[tuple[float, float]]:
    """As many windows of one length as are needed; none where one would be all of it."""
    count = max(math.ceil(info.duration_s / window_s - 1e-9), 1)
    each = info.duration_s / count
    edges = [info.start_s + n * each for n in range(count + 1)] if count > 1 else []
    return list(pairwise(edges))


def _frames(
    session: Session, video: Video, showing: Showing, span: tuple[float, float]
) -> list[Frame] | None:
    """Those of a window; None where they cannot be read."""
    count, size = plan(_part(video.info, *span), showing, tokens_of(session.vlm))
    try:
        return list(video.frames_at(within(video.info, *span, count), size))
    except BadVideo:
        return None


def _asked(session: Session, span: tuple[float, float], before: Sequence[str]) -> str:
    start, end = (seconds(edge) for edge in span)
    asked = SUMMARISE.format(start=start, end=end, question=_question(session))
    return "Notes so far:\n" + "\n".join(before[-3:]) + "\n" + asked if before else asked


def _written(meter: Metered, prompt: Conversation) -> str:
    """The note that the model writes, without its thought."""

    def write(messages: Conversation, sampling: Sampling) -> Generation:
        spoken = messages[len(prompt) :]
        if spoken and not any(map(_thinks, spoken)):  # a note that has all it may have
            return Generation(assistant(""), finish="length")
        bound = min(sampling.max_tokens, NOTE_TOKENS)
        (reply,) = meter.generate([messages], replace(sampling, max_tokens=bound))
        return reply

    pieces = write_within(write, prompt, _WRITING)
    messages = (each if isinstance(each, Message) else each.message for each in pieces)
    said = shown_reply("".join(render_parts(each.parts) for each in messages))
    return " ".join(said.split()) or "nothing"


def _thinks(said: Message) -> bool:
    return any(isinstance(part, Thinking) for part in said.parts)


def _part(info: ClipInfo, start_s: float, end_s: float) -> ClipInfo:
    """What is in a window, as if it were a clip: `Showing` bounds what is shown of each."""
    times = tuple(t - start_s for t in info.times_s if start_s <= t < end_s)
    return replace(info, times_s=times, duration_s=end_s - start_s)


def _question(session: Session) -> str:
    said = [MARKED.sub("", m.text) for m in session.sample.prompt if m.role == "user"]
    return " ".join(re.sub(r"<[\d.]+ seconds>", "", said[-1]).split()) if said else ""
