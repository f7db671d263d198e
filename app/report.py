"""A reply as text for a person, or as JSON for a program."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

import mm
from mm.origins import FrameOf
from mm.samples import is_clip
from video.context import seconds
from video.frames import SAME_S
from video.search import SPANS
from vision.depth_strategies import NOTE

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
    return [Verdict(n, name, x) for n, step in enumerate(steps) for name, x in step.scores.items()]


def depths(trace: mm.Trace) -> list[str]:
    """What a depth map said of each thing that was named, the nearest first."""
    told: Any = trace.settings.get(NOTE) or {"regions": (), "kind": ""}
    unit = " m" if told["kind"] == "metric" else f" ({told['kind']})"
    return [
        f"{printable(thing['name'])}: "
        + ("not known" if thing["depth"] is None else f"{thing['depth']:.2f}{unit}")
        for thing in told["regions"]
    ]


def error_of(trace: mm.Trace) -> str | None:
    """Why there is no reply: the model failed, or wrote none; None where there is one."""
    if trace.error or not trace.best.silence:
        return trace.error
    return f"no reply: {trace.best.silence}"


def unclear(trace: mm.Trace) -> str | None:
    """The reply that was replaced by the likeliest choice; None where none was."""
    last = trace.best.steps[-1:]
    if not last or last[0].sampled or last[0].message.text not in trace.sample.choices:
        return None
    others = [branch for branch in trace.branches if branch.leaf != trace.chosen]
    beside = [branch for branch in others if branch.steps[:-1] == trace.best.steps[:-1]]
    replaced = (beside or others)[-1:]
    return replaced[0].reply or replaced[0].silence if replaced else None


def as_json(trace: mm.Trace) -> dict[str, object]:
    """The contract of `--json`: what the model wrote, what of it is graded, where it looked.

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
        "verdicts": [asdict(verdict) for verdict in verdicts(trace)],
        "cost": asdict(trace.cost),
        "error": error_of(trace),
    }


def failure_json(error: Exception) -> dict[str, object]:
    """What `as_json` says when there was not even a trace."""
    return {**as_json(mm.Trace(mm.Sample("", ()))), "error": str(error)}


def as_text(trace: mm.Trace, names: list[str]) -> str:
    """The reply, then a line each for what is graded of it, what is left out, looks and cost.

    `names` are those of the images and clips.
    """
    reply = printable(trace.reply) or f"({error_of(trace)})"
    shown = _names(trace, names)
    looked = [f"looked at  {shown[look.image]} {list(look.xyxy)}" for look in looks(trace)]
    looked += [f"watched    {span}" for span in spans(trace)]
    notes = [f"{name:<11}{said}" for name, said in notes_on(trace)]
    judged = [f"verdict    step {v.step}: {v.verifier} {number(v.score)}" for v in verdicts(trace)]
    far = [f"depth      {line}" for line in depths(trace)]
    return "\n".join(
        [reply, "", *notes, *far, *looked, *judged, f"cost       {cost_line(trace.cost)}"]
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


def number(score: float | None) -> str:
    """A verifier's score as people read it."""
    return "cannot tell" if score is None else f"{score:.3g}"


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


def printable(text: str) -> str:
    """`text` without the control characters that could steer a terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", text).strip()
