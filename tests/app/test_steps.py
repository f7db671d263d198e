"""What was done on the way to an answer: a line for each action, and every step as JSON."""

from __future__ import annotations

import json

import pytest
from images import plain

import mm
from app.report import as_json, as_text
from app.steps import step_lines
from vision import act, scale, zoom


def call(name: str, **arguments) -> str:
    said = json.dumps({"name": name, "arguments": arguments})
    return f"<tool_call>\n{said}\n</tool_call>"


MARK = call("mark", boxes=[[100, 100, 500, 500]])
ZOOM = call("image_zoom_in_tool", bbox_2d=[250, 500, 500, 1000], label="sign")
ANSWER = "<answer>K</answer>"


def never(branch: mm.Branch) -> float:
    return 0.25


def judged(session: mm.Session) -> mm.Branch:
    return scale(session, verifier=never, max_steps=2)


@pytest.mark.parametrize(
    ("strategy", "replies", "lines"),
    [
        pytest.param(zoom, [ZOOM, ANSWER], [], id="looks alone are told elsewhere"),
        pytest.param(
            act,
            [MARK, ANSWER],
            ["2: mark(boxes=[[100, 100, 500, 500]]): image 256 x 256, marks"],
            id="an action",
        ),
        pytest.param(
            act,
            [call("mark"), ANSWER],
            ['2: mark(): "Nothing to mark: give "boxes" or "points"."'],
            id="what was wrong with it",
        ),
        pytest.param(
            judged,
            [MARK, ANSWER, ANSWER],
            [
                "2: mark(boxes=[[100, 100, 500, 500]]): image 256 x 256, marks; never 0.25",
                '3: "<answer>K</answer>"; never 0.25',
            ],
            id="judged",
        ),
    ],
)
def test_a_line_for_each_action_and_each_judged_answer(strategy, replies, lines):
    sample = mm.question("Which?", plain("red", size=(256, 256)))
    trace = mm.run(strategy, sample, mm.ScriptedVLM(replies))
    assert trace.error is None
    said = step_lines(trace.best)
    assert said[: len(lines)] == lines
    assert bool(said) == bool(lines)
    assert all(f"step       {line}" in as_text(trace, ["a.png"]) for line in said)


def test_every_step_is_there_for_programs():
    sample = mm.question("Which?", plain("red", size=(256, 256)))
    trace = mm.run(act, sample, mm.ScriptedVLM([MARK, ANSWER]))
    asked, seen, answer = json.loads(json.dumps(as_json(trace)))["steps"]
    assert asked["actions"] == [{"action": "mark", "arguments": {"boxes": [[100, 100, 500, 500]]}}]
    assert (seen["step"], seen["role"], seen["images"][0]["size"]) == (2, "tool", [256, 256])
    assert seen["images"][0]["origin"]["what"] == "marks"
    assert (answer["role"], answer["text"]) == ("assistant", ANSWER)


def test_half_a_character_in_a_call_can_be_written():
    sample = mm.question("Which?", plain("red"))
    said = '<tool_call>\n{"name": "mark", "arguments": {"labels": ["\\ud83d"]}}\n</tool_call>'
    trace = mm.run(act, sample, mm.ScriptedVLM([said, ANSWER]))
    json.dumps(as_json(trace), ensure_ascii=False).encode()
