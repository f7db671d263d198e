"""What was done on the way to an answer, step by step, for people and as JSON."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import mm
from mm.origins import Drawn, origin_row
from mm.trace import Step
from mm.types import Latents
from video.search import look_at_span
from vision import ZOOM_TOOL
from vision.look_loop import SPENT

LOOKS = frozenset({ZOOM_TOOL.name, look_at_span.__name__})
"""Calls that only look: where they looked is told beside the steps."""

LONG = 100
"""Characters of a reply or an observation that a line shows."""


def printable(text: str) -> str:
    """`text` without the control characters that could steer a terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", text).strip()


def number(score: float | None) -> str:
    """A verifier's score as people read it."""
    return "cannot tell" if score is None else f"{score:.3g}"


def finite(score: float | None) -> float | None:
    """`score` as JSON can write it: None for NaN and the infinities."""
    return score if score is not None and math.isfinite(score) else None


def steps_json(branch: mm.Branch) -> list[dict[str, object]]:
    """The steps of `branch` besides system messages: what each asks for, says and shows, and its
    scores: what verifiers said of it, and `SPENT`."""
    return [
        {
            "step": n,
            "role": step.message.role,
            "actions": [_action(call) for call in step.message.tool_calls],
            "text": step.message.text,
            "images": [
                {"size": list(image.size), "origin": origin_row(image.origin)}
                for image in step.message.images
            ],
            "scores": {name: finite(score) for name, score in step.scores.items()},
        }
        for n, step in enumerate(branch.steps)
        if step.message.role != "system"
    ]


def _action(call: mm.ToolCall) -> dict[str, Any]:
    """A call; what JSON cannot hold, such as half a character, becomes a question mark, and a
    number that is none, such as 1e999, its name."""
    written = json.dumps(dict(call.arguments), ensure_ascii=False).encode("utf-8", "replace")
    return {"action": call.name, "arguments": json.loads(written, parse_constant=str)}


def step_lines(branch: mm.Branch) -> list[str]:
    """A line for each action of `branch`, with its arguments, what came back and what verifiers
    said, and for each answer that they judged; none where there were looks alone, unjudged."""
    called = {call.name for step in branch.steps for call in step.message.tool_calls}
    if called <= LOOKS and not any(map(judged, branch.steps)):
        return []
    lines: list[str] = []
    asked: list[str] = []
    begun = False
    for n, step in enumerate(branch.steps):
        said, begun = step.message, begun or step.sampled
        scores = "".join(f"; {name} {number(value)}" for name, value in judged(step).items())
        if step.sampled:
            asked = [*map(_called, said.tool_calls)] or [_quoted(said)]
        elif begun and (said.role == "tool" or said.visuals):
            before = f"{asked.pop(0)}: " if asked else ""
            lines.append(f"{n}: {before}{_came_back(said)}{scores}")
            continue
        if scores:
            lines.append(f"{n}: {', '.join(asked)}{scores}")
            asked = []
    return lines


def judged(step: Step) -> dict[str, float | None]:
    """What verifiers said of `step`; that the budget was spent is no verdict."""
    return {name: score for name, score in step.scores.items() if name != SPENT}


def _called(call: mm.ToolCall) -> str:
    return f"{call.name}({_arguments(call.arguments)})"


def _arguments(given: Mapping[str, Any]) -> str:
    said = (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in given.items())
    return printable(", ".join(said))


def _came_back(said: mm.Message) -> str:
    """What the model was shown, what looks alike counted, and told."""
    counts = Counter(_seen(each) for each in said.visuals if not isinstance(each, Latents))
    seen = [
        f"{kind} {what}" if n == 1 else f"{n} {kind}s {what}" for (kind, what), n in counts.items()
    ]
    return ", ".join([*seen, *([_quoted(said)] if said.text.strip() else [])])


def _seen(each: mm.Image | mm.Features) -> tuple[str, str]:
    if not isinstance(each, mm.Image):
        return "region", "from memory"
    what = f", {each.origin.what}" if isinstance(each.origin, Drawn) else ""
    return "image", f"{each.size[0]} x {each.size[1]}{what}"


def _quoted(said: mm.Message) -> str:
    words = " ".join(printable(said.text).split())
    return f'"{words[:LONG]}..."' if len(words) > LONG else f'"{words}"'
