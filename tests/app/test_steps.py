"""What was done on the way to an answer: a line for each action, and every step as JSON."""

from __future__ import annotations

import json
import math
from functools import partial

import PIL.Image
import pytest
from images import plain

import mm
from app.report import as_json, as_text
from app.steps import step_lines
from video import clip_of, watch
from vision import act, scale, zoom
from vision.look_loop import SPENT


def call(name: str, **arguments) -> str:
    said = json.dumps({"name": name, "arguments": arguments})
    return f"<tool_call>\n{said}\n</tool_call>"


MARK = call("mark", boxes=[[100, 100, 500, 500]])
ZOOM = call("image_zoom_in_tool", bbox_2d=[250, 500, 500, 1000], label="sign")
ANSWER = "<answer>K</answer>"


def never(branch: mm.Branch) -> float:
    return 0.25


def short(session: mm.Session) -> mm.Branch:
    return zoom(session, max_looks=1)


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
    assert said == lines
    assert all(f"step       {line}" in as_text(trace, ["a.png"]) for line in said)


def test_a_spent_budget_is_no_verdict():
    sample = mm.question("Which?", plain("red", size=(256, 256)))
    trace = mm.run(short, sample, mm.ScriptedVLM([ZOOM + ZOOM, ANSWER]))
    said = json.loads(json.dumps(as_json(trace)))
    assert said["steps"][-1]["scores"] == {SPENT: 1.0}
    assert (said["verdicts"], step_lines(trace.best)) == ([], [])


def test_every_step_is_there_for_programs():
    sample = mm.question("Which?", plain("red", size=(256, 256)))
    trace = mm.run(act, sample, mm.ScriptedVLM([MARK, ANSWER]))
    asked, seen, answer = json.loads(json.dumps(as_json(trace)))["steps"]
    assert asked["actions"] == [{"action": "mark", "arguments": {"boxes": [[100, 100, 500, 500]]}}]
    assert (seen["step"], seen["role"], seen["images"][0]["size"]) == (2, "tool", [256, 256])
    assert seen["images"][0]["origin"]["what"] == "marks"
    assert (answer["role"], answer["text"]) == ("assistant", ANSWER)


@pytest.mark.parametrize(
    ("argument", "written"),
    [
        pytest.param('["\\ud83d"]', ["?"], id="half a character"),
        pytest.param("[NaN, 1e999]", ["NaN", "Infinity"], id="numbers that are none"),
    ],
)
def test_what_json_cannot_hold_is_written_otherwise(argument, written):
    def cannot_tell(branch: mm.Branch) -> float:
        return math.nan

    sample = mm.question("Which?", plain("red"))
    said = f'<tool_call>\n{{"name": "mark", "arguments": {{"labels": {argument}}}}}\n</tool_call>'
    judging = partial(scale, verifier=cannot_tell, max_steps=2)
    trace = mm.run(judging, sample, mm.ScriptedVLM([said, ANSWER]))
    told = json.dumps(as_json(trace), ensure_ascii=False, allow_nan=False).encode()
    first, *_ = json.loads(told)["steps"]
    assert first["actions"] == [{"action": "mark", "arguments": {"labels": written}}]
    assert {verdict["score"] for verdict in json.loads(told)["verdicts"]} == {None}


LOOKING = partial(watch, look_frames=2)


@pytest.mark.parametrize(
    ("strategy", "lines"),
    [
        pytest.param(LOOKING, [], id="looks alone are told elsewhere"),
        pytest.param(
            partial(mm.best_of, strategy=LOOKING, n=2, verifier=never, temperature=0.5),
            [
                "2: look_at_span(start_s=1.0, end_s=2.0): 2 images 32 x 32, "
                '"<1.25 seconds><1.75 seconds>"',
                '3: "<answer>K</answer>"; never 0.25',
            ],
            id="alike are counted",
        ),
    ],
)
def test_looks_in_time_are_folded(strategy, lines):
    frames = [PIL.Image.new("RGB", (32, 32), (n, 0, 0)) for n in range(40)]
    sample = mm.question("Which?", clip_of(frames, [n / 8 for n in range(40)]))
    span = call("look_at_span", start_s=1.0, end_s=2.0)
    trace = mm.run(strategy, sample, mm.ScriptedVLM([span, ANSWER] * 2))
    assert trace.error is None
    assert step_lines(trace.best) == lines
