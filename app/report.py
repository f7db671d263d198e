"""A reply as text for a person, or as JSON for a program."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import mm
from mm.origins import FrameOf
from mm.samples import is_clip
from mm.strategies.single import was_chosen
from video.context import seconds
from video.frames import SAME_S
from video.search import SPANS
from vision.depth_strategies import NOTE

from .steps import finite, judged, printable, step_lines, steps_json

Pixels = tuple[int, int, int, int]


@dataclass(frozen=True)
class Look:
    """Where the model looked: xyxy in pixels of the question's image number `image`, from 0."""

    image: int
    xyxy: Pixels


@dataclass(frozen=True)
class Verdict:
    """A verifier's number on step `step` of the chosen branch, from 0; None: it could not tell."""

    step: int
    verifier: str
    score: float | None


def looks(trace: mm.Trace) -> list[Look]:
    """What the chosen answer looked at again, in order."""
    from vision import regions_of

    sizes = [image.size for image in trace.sample.images]
    return [Look(i, region.to_pixels(sizes[i])) for i, region in regions_of(trace.best)]


def verdicts(trace: mm.Trace) -> list[Verdict]:
    """What verifiers said of the chosen answer on the way, in order."""
    steps = trace.best.steps
    return [
        Verdict(n, name, finite(score))
        for n, step in enumerate(steps)
        for name, score in judged(step).items()
    ]


def told_of_depth(trace: mm.Trace) -> list[str]:
    """What the model was told that a depth map shows, line by line."""
    note: Any = trace.settings.get(NOTE) or {}
    return [printable(line) for line in note.get("told", ())]


def error_of(trace: mm.Trace) -> str | None:
    """Why there is no reply: the model failed, or wrote none; None where there is one."""
    if trace.error or not trace.best.silence:
        return trace.error
    return f"no reply: {trace.best.silence}"


def unclear(trace: mm.Trace) -> str | None:
    """The reply that was replaced by the likeliest choice; None where none was."""
    if not was_chosen(trace.best):
        return None
    others = [branch for branch in trace.branches if branch.leaf != trace.chosen]
    beside = [branch for branch in others if branch.steps[:-1] == trace.best.steps[:-1]]
    replaced = (beside or others)[-1:]
    return replaced[0].reply or replaced[0].silence if replaced else None


def with_strategy_text(trace: mm.Trace, strategy: str) -> mm.Trace:
    """`trace`, which now says by which words its strategy was asked for, options included."""
    trace.settings = {**trace.settings, "strategy": strategy}
    return trace


def as_json(trace: mm.Trace) -> dict[str, object]:
    """The contract of `--json`: what the model wrote, what of it is graded, where it looked.

    `strategy` is what it was asked for by, with its options, and `sampling` all that held.
    `reply` is what a person is shown, whole; `answer` is what is graded, None where the reply marks
    none and is long. `unclear` is the reply that was replaced by the likeliest choice;
    `thoughts` is what was written on the way. `finish` says how the reply ended: "stop", "length"
    at the token limit, "cancelled", or None where nobody sampled it. `error` says why there is no
    reply.
    """
    return {
        "reply": trace.reply or None,
        "answer": trace.answer,
        "unclear": unclear(trace),
        "thoughts": list(trace.best.thoughts),
        "finish": trace.best.finish,
        "regions": [asdict(look) for look in looks(trace)],
        "spans": watched(trace),
        "depth": trace.settings.get(NOTE),
        "steps": steps_json(trace.best),
        "verdicts": [asdict(verdict) for verdict in verdicts(trace)],
        "cost": asdict(trace.cost),
        "model": trace.settings.get("model"),
        "strategy": trace.settings.get("strategy") or trace.strategy or None,
        "system": _system(trace.sample),
        "sampling": trace.settings.get("sampling"),
        "budgets": trace.settings.get("budgets"),
        "error": error_of(trace),
    }


def _system(sample: mm.Sample) -> str | None:
    """What the model was told before the question."""
    return next((said.text for said in sample.prompt if said.role == "system"), None)


def failure_json(error: Exception) -> dict[str, object]:
    """What `as_json` says when there was not even a trace."""
    return {**as_json(mm.Trace(mm.Sample("", ()))), "error": str(error)}


def as_text(trace: mm.Trace, names: list[str]) -> str:
    """The reply, then a line each for what is graded of it, what is left out, looks, steps and
    cost.

    `names` are those of the images and clips.
    """
    reply = printable(trace.reply) or f"({error_of(trace)})"
    shown = _names(trace, names)
    looked = [f"looked at  {shown[look.image]} {list(look.xyxy)}" for look in looks(trace)]
    looked += [f"watched    {span}" for span in spans(trace)]
    notes = [f"{name:<11}{said}" for name, said in notes_on(trace)]
    done = [f"step       {line}" for line in step_lines(trace.best)]
    far = [f"depth      {line}" for line in told_of_depth(trace)]
    return "\n".join(
        [reply, "", *notes, *far, *looked, *done, f"cost       {cost_line(trace.cost)}"]
    )


def _names(trace: mm.Trace, names: list[str]) -> list[str]:
    """What each image of the question is called; frames by their clip and time."""
    stills = (name for name in names if not is_clip(name))
    found = []
    for image in trace.sample.images:
        origin = image.origin
        if isinstance(origin, FrameOf):
            found.append(f"{origin.video} at {seconds(origin.time_s)} s")
        else:
            found.append(next(stills, "image"))
    return found


def spans(trace: mm.Trace) -> list[str]:
    """The spans of clips that were looked at again, in order."""
    told = watched(trace)
    return [f"{s['clip']} {seconds(s['start_s'])} s to {seconds(s['end_s'])} s" for s in told]


def watched(trace: mm.Trace) -> list[dict[str, Any]]:
    """The spans that the chosen answer rests on, of all that were looked at in the trace."""
    told: Any = trace.settings.get(SPANS, ())
    frames = [i.origin for i in trace.best.images if isinstance(i.origin, FrameOf)]
    return [s for s in told if any(_within(frame, s) for frame in frames)]


def _within(frame: FrameOf, span: dict[str, Any]) -> bool:
    start, end = span["start_s"] - SAME_S, span["end_s"] + SAME_S
    inside = any(start <= time_s <= end for time_s in frame.times_s)
    return inside and frame.video == span["clip"]


def notes_on(trace: mm.Trace) -> list[tuple[str, str]]:
    """Notes beside a reply: what of it is graded, whether it was cut, what is left out."""
    best, notes = trace.best, []
    answer = " ".join(printable(best.answer or "").split())
    if answer and answer != " ".join(best.reply.split()):
        notes.append(("answer", f"{answer}  (for grading)"))
    if instead := unclear(trace):
        quoted = " ".join(printable(instead).split())
        notes.append(("chosen", f"the likeliest choice, for the reply named none: {quoted}"))
    if best.reply and best.finish == "length":
        notes.append(("cut", "at the token limit; --max-tokens allows more"))
    if words := sum(len(thought.split()) for thought in best.thoughts):
        notes.append(("thoughts", f"{words} words, left out here; --json shows them"))
    return notes


def cost_line(cost: mm.Cost) -> str:
    """What an answer cost, in one line."""
    return (
        f"{cost.visual_tokens} visual tokens, {cost.computed_tokens} prompt tokens computed "
        f"and {cost.reused_tokens} reused, {cost.generated_tokens} generated, {cost.seconds:.1f} s"
    )
