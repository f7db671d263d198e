"""What was done on the way to an answer, step by step, for people and as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import mm
from mm.origins import Drawn, origin_row
from mm.types import Latents
from vision import ZOOM_TOOL

LONG = 100
"""Characters of a reply or an observation that a line shows."""


def printable(text: str) -> str:
    """`text` without the control characters that could steer a terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", text).strip()


def number(score: float | None) -> str:
    """A verifier's score as people read it."""
    return "cannot tell" if score is None else f"{score:.3g}"


def steps_json(branch: mm.Branch) -> list[dict[str, object]]:
    """The steps of `branch` besides system messages: what each asks for, says, shows, and what
    verifiers said of it."""
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
            "scores": dict(step.scores),
        }
        for n, step in enumerate(branch.steps)
        if step.message.role != "system"
    ]


def _action(call: mm.ToolCall) -> dict[str, Any]:
    """A call; what cannot be written, such as half a character, becomes a question mark."""
    written = json.dumps(dict(call.arguments), ensure_ascii=False).encode("utf-8", "replace")
    return {"action": call.name, "arguments": json.loads(written)}


def step_lines(branch: mm.Branch) -> list[str]:
    """A line for each action of `branch`, with its arguments, what came back and what verifiers
    said, and for each answer that they judged; none where there were looks alone, unjudged."""
    called = {call.name for step in branch.steps for call in step.message.tool_calls}
    if called <= {ZOOM_TOOL.name} and not any(step.scores for step in branch.steps):
        return []
    lines: list[str] = []
    asked: list[str] = []
    begun = False
    for n, step in enumerate(branch.steps):
        said, begun = step.message, begun or step.sampled
        judged = "".join(f"; {name} {number(value)}" for name, value in step.scores.items())
        if step.sampled:
            asked = [*map(_called, said.tool_calls)] or [_quoted(said)]
        elif begun and said.role != "system" and (said.role != "assistant" or said.visuals):
            before = f"{asked.pop(0)}: " if asked else ""
            lines.append(f"{n}: {before}{_came_back(said)}{judged}")
            continue
        if judged:
            lines.append(f"{n}: {', '.join(asked)}{judged}")
            asked = []
    return lines


def _called(call: mm.ToolCall) -> str:
    return f"{call.name}({_arguments(call.arguments)})"


def _arguments(given: Mapping[str, Any]) -> str:
    said = (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in given.items())
    return printable(", ".join(said))


def _came_back(said: mm.Message) -> str:
    seen = [_seen(each) for each in said.visuals if not isinstance(each, Latents)]
    return ", ".join([*seen, *([_quoted(said)] if said.text.strip() else [])])


def _seen(each: mm.Image | mm.Features) -> str:
    if not isinstance(each, mm.Image):
        return "features from memory"
    what = f", {each.origin.what}" if isinstance(each.origin, Drawn) else ""
    return f"image {each.size[0]} x {each.size[1]}{what}"


def _quoted(said: mm.Message) -> str:
    words = " ".join(printable(said.text).split())
    return f'"{words[:LONG]}..."' if len(words) > LONG else f'"{words}"'
