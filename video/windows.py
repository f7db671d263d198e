"""Long clips, gone through window by window: what each holds for the question is noted."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from mm.session import Session
from mm.strategies.verdict import Metered
from mm.types import Clip, Sampling, message, user

from .context import Showing, plan, seconds, shown, tokens_of
from .decode import Video
from .frames import BadVideo, ClipInfo
from .sampling import within

SUMMARISE = (
    "These frames are from {start} s to {end} s of a longer clip. Note in one or two sentences "
    "what in them bears on this question, or nothing: {question}"
)
UNREAD = "cannot be read"
"""The note on a window whose frames are damaged: the others may still tell."""


def note_windows(
    session: Session,
    clips: Sequence[Clip],
    videos: Sequence[Video],
    showing: Showing,
    window_s: float,
) -> None:
    """Go through long clips window by window, and tell the model what it noted of each."""
    notes: list[str] = []
    meter = Metered(session.vlm)
    for clip, video in zip(clips, videos, strict=True):
        count = math.ceil(video.info.duration_s / window_s - 1e-9)
        edges = [n * video.info.duration_s / count for n in range(count + 1)] if count > 1 else []
        for span in pairwise(edges):
            if session.stopped:
                return
            said = _noted(session, meter, clip, video, showing, span, notes)
            start, end = (seconds(edge) for edge in span)
            notes.append(f"{start} s to {end} s: {said}")
    if notes:
        told = "\n".join(notes)
        session.note("windows", notes)
        session.say(message("system", f"Notes on the whole clip:\n{told}"), cost=meter.cost)


def _noted(
    session: Session,
    meter: Metered,
    clip: Clip,
    video: Video,
    showing: Showing,
    span: tuple[float, float],
    before: Sequence[str],
) -> str:
    count, size = plan(_part(video.info, *span), showing, tokens_of(session.vlm))
    try:
        frames = list(video.frames_at(within(video.info, *span, count), size))
    except BadVideo:
        return UNREAD
    start, end = (seconds(edge) for edge in span)
    asked = SUMMARISE.format(start=start, end=end, question=_question(session))
    if before:
        asked = "Notes so far:\n" + "\n".join(before[-3:]) + "\n" + asked
    prompt = (user(*shown(clip.source, frames, pack=showing.pack), asked),)
    (reply,) = meter.generate([prompt], Sampling(max_tokens=96))
    return " ".join(reply.message.text.split()) or "nothing"


def _part(info: ClipInfo, start_s: float, end_s: float) -> ClipInfo:
    """What is in a window, as if it were a clip: `Showing` bounds what is shown of each."""
    times = tuple(t - start_s for t in info.times_s if start_s <= t < end_s)
    return replace(info, times_s=times, duration_s=end_s - start_s)


def _question(session: Session) -> str:
    said = [m.text for m in session.sample.prompt if m.role == "user"]
    return " ".join(re.sub(r"<[\d.]+ seconds>", "", said[-1]).split()) if said else ""
