"""What a person sees of an answer in the making: words, regions, crops, the cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

import mm
from app.report import cost_line, error_of, told_of_depth, watched
from app.steps import step_lines
from mm.answers.extraction import is_short
from mm.origins import FrameOf
from mm.types import Latents
from video.context import seconds
from video.strip import strip
from vision.depth_source import DepthSource
from vision.depth_strategies import NOTE

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

_WRITING = '<div class="writing">'

CUT = "Cut at the token limit."

SHOWN = 1024
"""The longest side, in pixels, of an image on the page."""


@dataclass(frozen=True)
class Crop:
    """A view that was looked at again, and the words that asked for it."""

    pixels: Pixels
    words: str


def crops(branch: mm.Branch) -> list[Crop]:
    """Every view of `branch` beyond the question's images, in order."""
    found, words = [], ""
    for step in branch.steps:
        if step.message.role == "assistant":
            words = asking_words(step.message) or words
        seen = [each for each in step.message.visuals if not isinstance(each, Latents)]
        found += [Crop(shown(pixels_of(each)), _caption(each, words)) for each in seen]
    return found


def _caption(seen: mm.Image | mm.Features, words: str) -> str:
    """`words`, behind the time of a frame of a clip."""
    origin = seen.origin if isinstance(seen, mm.Image) else None
    times = [f"{seconds(t)} s" for t in origin.times_s] if isinstance(origin, FrameOf) else []
    return ", ".join(filter(None, [*times, words]))


def pixels_of(seen: mm.Image | mm.Features) -> Pixels:
    """What was looked at, as a person sees it; of what was replayed, that part of the image."""
    if isinstance(seen, mm.Image):
        return seen.pixels
    pixels = seen.image.pixels
    return pixels.crop(seen.region.to_pixels(pixels.size))


def asking_words(message: mm.Message) -> str:
    """What a call says it looks for; else what was said or thought before it, if that is words."""
    labels = [str(call.arguments.get("label", "")).strip() for call in message.tool_calls]
    thoughts = [part.text.strip() for part in message.parts if isinstance(part, mm.Thinking)]
    said = [*filter(None, labels)] or [*filter(None, [message.text.strip(), *thoughts])]
    return ", ".join(words for words in said if not words.startswith("{"))[:200]  # no bare calls


def looked_at(
    trace: mm.Trace,
    depth: DepthSource = DepthSource(),
    strip: Callable[[mm.Branch], Pixels] = strip,
) -> Pixels:
    """The question's images with what was looked at drawn over them, side by side.

    Where the model was told of depth, the map from `depth` stands beside them. Of a clip it is the
    `strip` of all frames with their times.
    """
    from vision import draw, sheet

    seen = (*trace.sample.images, *trace.images)
    if any(isinstance(image.origin, FrameOf) for image in seen):
        return strip(trace.best)
    drawn = [draw(image, trace.best) for image in trace.sample.images]
    if told := trace.settings.get(NOTE):
        drawn.append(_depth(trace, depth, told))
    if len(drawn) == 1:
        return drawn[0]
    widest = max(max(pixels.size) for pixels in drawn)
    return sheet(drawn, columns=len(drawn), cell=min(widest, SHOWN))


def _depth(trace: mm.Trace, depth: DepthSource, told: Any) -> Pixels:
    from vision.draw_depth import coloured

    found = depth(trace.sample, trace.sample.images[0])
    return coloured(found, told["regions"])


def image(trace: mm.Trace, depth: DepthSource = DepthSource()) -> Pixels:
    """`looked_at`, small enough for a page, where frames have less room."""
    return shown(looked_at(trace, depth, partial(strip, across=4, letters=32)))


def shown(image: mm.Image | Pixels) -> Pixels:
    """`image` with no side over `SHOWN` pixels."""
    pixels = image.pixels if isinstance(image, mm.Image) else image
    if max(pixels.size) <= SHOWN:
        return pixels
    smaller = pixels.copy()
    smaller.thumbnail((SHOWN, SHOWN))
    return smaller


def writing(text: str) -> str:
    """HTML of words that are still coming."""
    return f"{_WRITING}{escape(text)}</div>"


def is_writing(html: str | None) -> bool:
    """Whether `html` is of words that are still coming."""
    return bool(html) and html.startswith(_WRITING)


def answered(trace: mm.Trace) -> str:
    """HTML of the reply with the thoughts before it, or of what went wrong.

    What is graded of the reply stands below it, where that is not all of it.
    """
    if trace.error:
        return mistake(trace.error)
    best = trace.best
    thought = "".join(f'<div class="thought">{escape(text)}</div>' for text in best.thoughts)
    if missing := error_of(trace):
        return thought + mistake(missing)
    kind = "answer" if is_short(best.reply) else "reply"
    reply = f'<div class="{kind}">{escape(best.reply)}</div>'
    graded = hint(f"Answer for grading: {best.answer}") if _is_part(best) else ""
    cut = hint(CUT) if best.finish == "length" else ""
    told = "".join(hint(f"Told of depth: {line}") for line in told_of_depth(trace))
    return thought + reply + graded + cut + told + _watched(trace) + _steps(trace)


def _watched(trace: mm.Trace) -> str:
    """HTML of the spans of the clip that were looked at again."""
    spans = [f"{seconds(s['start_s'])} s to {seconds(s['end_s'])} s" for s in watched(trace)]
    return hint(f"Watched again: {', '.join(spans)}") if spans else ""


def _steps(trace: mm.Trace) -> str:
    """HTML of what was done on the way, and what a verifier said of it."""
    return "".join(hint(f"Step {line}") for line in step_lines(trace.best))


def _is_part(branch: mm.Branch) -> bool:
    return branch.answer is not None and branch.answer.split() != branch.reply.split()


def mistake(words: str) -> str:
    """HTML of what the person can put right."""
    return f'<div class="mistake">{escape(words)}</div>'


def hint(words: str) -> str:
    """HTML of a quiet line."""
    return f'<div class="hint">{escape(words)}</div>'


def cost_html(cost: mm.Cost) -> str:
    """HTML of what it cost."""
    return hint(cost_line(cost))
