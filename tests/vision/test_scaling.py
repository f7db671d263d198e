"""Looking under a verifier: when it stops, goes on, runs out, and what the trace says of it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from functools import partial

import pytest
from images import noise

from mm.errors import UserError
from mm.origins import Drawn
from mm.samples import question
from mm.scripted import ScriptedVLM
from mm.session import run
from mm.trace import Branch, Event, Trace
from mm.types import Image, Sampling, ToolSpec
from mm.vlm import Traits
from vision.act import act
from vision.look_loop import GO_ON, REFUSED, SPENT
from vision.scaling import scale
from vision.verifier import NO, YES, always, asked, never
from vision.zoom import zoom
from vision.zoom_tool import ZOOM

SAMPLE = question("What does the sign say?", noise(1), id="sign", target="STOP")
ZOOMS = Traits(tools=(ZOOM,))
ASKS = Traits(calls_tools=False)


def call(*box: int) -> str:
    body = {"name": ZOOM, "arguments": {"bbox_2d": box}}
    return f"<tool_call>\n{json.dumps(body)}\n</tool_call>"


BOX, OTHER_BOX = '{"bbox_2d": [0, 0, 400, 900]}', '{"bbox_2d": [500, 0, 900, 900]}'
LEFT, RIGHT, TOP = call(0, 0, 400, 900), call(500, 0, 900, 900), call(0, 0, 900, 300)


def scripted(scores: Sequence[float | None]):
    """A verifier that says these scores in turn."""
    said: Iterator[float | None] = iter(scores)

    def verifier(branch: Branch) -> float | None:
        return next(said)

    return verifier


def ran(replies: Sequence[str], scores: Sequence[float | None], **options) -> Trace:
    strategy = partial(scale, verifier=scripted(scores), **options)
    return run(strategy, SAMPLE, ScriptedVLM(list(replies), traits=ZOOMS))


def said(trace: Trace) -> list[float | None]:
    return [step.scores["verifier"] for step in trace.best.steps if "verifier" in step.scores]


@pytest.mark.parametrize(
    ("replies", "scores", "looks", "answer"),
    [
        pytest.param(["STOP"], [0.9], 0, "STOP", id="an answer at once that is enough"),
        pytest.param([LEFT, "STOP"], [0.9], 1, "STOP", id="one look is enough"),
        pytest.param([LEFT, RIGHT, "STOP"], [0.1, 0.5], 2, "STOP", id="enough from 0.5 on"),
        pytest.param(
            ["GO", LEFT, "STOP"], [0.1, 0.9], 1, "STOP", id="an answer that is not enough"
        ),
        pytest.param(
            [LEFT, RIGHT, "STOP</answer>"], [0.9], 1, "STOP", id="wants more than is enough"
        ),
        pytest.param([LEFT, "STOP"], [None, None], 1, "STOP", id="cannot tell"),
        pytest.param([LEFT, "STOP"], [float("nan"), 0.9], 1, "STOP", id="no number"),
        pytest.param(["<think>hm</think>", "STOP"], [0.9], 0, "STOP", id="opened, and enough"),
        pytest.param(["<think>hm</think>", "STOP"], [None], 0, "STOP", id="opened; cannot tell"),
        pytest.param(
            ["<think>hm</think>", "GO", LEFT, "STOP"],
            [0.1, 0.9],
            1,
            "STOP",
            id="opened, not enough",
        ),
        pytest.param(["<think>hm</think>", "", "STOP"], [], 0, "STOP", id="opened twice"),
        pytest.param(["<think>hm</think>", LEFT, "STOP"], [], 0, "STOP", id="opened, asks to look"),
    ],
)
def test_it_looks_until_that_is_enough(replies, scores, looks, answer) -> None:
    trace = ran(replies, scores)
    assert (len(trace.best.looks), trace.answer, trace.error) == (looks, answer, None)
    assert all(SPENT not in step.scores for step in trace.best.steps)


def test_it_stops_once_the_score_moves_no_more() -> None:
    trace = ran([LEFT, RIGHT, TOP, "STOP"], [0.0, 3.0, 1.0, 1.04], eps=0.1)
    assert (len(trace.best.looks), said(trace)) == (3, [0.0, 3.0, 1.0, 1.04])
    assert trace.answer == "STOP"


@pytest.mark.parametrize(
    ("replies", "scores", "looks"),
    [
        pytest.param([LEFT, "STOP"], [1.0, 1.04], 1, id="the first look moves nothing"),
        pytest.param(["STOP"], [1.0, 1.04], 0, id="nor an answer at once"),
        pytest.param([LEFT, RIGHT, "STOP"], [3.0, 1.0, 1.04], 2, id="it moved by the first look"),
        pytest.param([LEFT, RIGHT, "STOP"], [1.0, None, 1.04], 2, id="over one that cannot tell"),
        pytest.param([LEFT, RIGHT, "STOP"], [None, 1.0, 1.04], 2, id="nothing known before"),
    ],
)
def test_scores_are_compared_from_the_question_on(replies, scores, looks) -> None:
    trace = ran(replies, scores, eps=0.1)
    assert (len(trace.best.looks), said(trace), trace.answer) == (looks, scores, "STOP")
    assert all(SPENT not in step.scores for step in trace.best.steps)


def test_the_question_alone_is_judged_without_where_to_look() -> None:
    judged: list[Branch] = []

    def verifier(branch: Branch) -> float:
        judged.append(branch)
        return 1.0

    vlm = ScriptedVLM([BOX, "STOP"], traits=ASKS)
    trace = run(partial(scale, verifier=verifier, eps=0.1), SAMPLE, vlm)
    assert (judged[0].messages, trace.answer) == (SAMPLE.prompt, "STOP")
    assert [s.scores for s in trace.best.steps] == [{"verifier": 1.0}, {}, {"verifier": 1.0}, {}]


@pytest.mark.parametrize(
    ("replies", "options"),
    [
        pytest.param([LEFT, RIGHT, "STOP"], {"max_steps": 2}, id="steps"),
        pytest.param([LEFT, RIGHT, TOP, "STOP</answer>"], {"max_steps": 2}, id="wants a third"),
        pytest.param(["GO", "STOP"], {"max_steps": 1}, id="an answer that is not enough"),
        pytest.param([LEFT, RIGHT, "STOP</answer>"], {"look_tokens": 1}, id="visual tokens"),
        pytest.param([LEFT, RIGHT, "STOP</answer>"], {"max_seconds": 0.0}, id="seconds"),
    ],
)
def test_a_spent_budget_ends_in_an_answer_and_is_marked(replies, options) -> None:
    events: list[Event] = []
    strategy = partial(scale, verifier=scripted([0.0] * 9), **options)
    vlm = ScriptedVLM(list(replies), traits=ZOOMS)
    trace = run(strategy, SAMPLE, vlm, observer=events.append)
    assert (trace.answer, trace.error) == ("STOP", None)
    assert trace.best.steps[-1].scores == {SPENT: 1.0}
    assert [e.text for e in events if e.text.startswith(SPENT)] == [f"{SPENT}: 1.0"]


@pytest.mark.parametrize(
    ("scores", "options"),
    [
        pytest.param([], {"max_steps": 1}, id="steps"),
        pytest.param([], {"look_tokens": 1}, id="visual tokens"),
        pytest.param([], {"max_seconds": 0.0}, id="seconds"),
        pytest.param([None], {"max_steps": 2}, id="it could not tell"),
    ],
)
def test_an_answer_after_the_last_look_is_not_marked(scores, options) -> None:
    """Nothing says that it came too early: no look was refused, and no verdict was not enough."""
    trace = ran([LEFT, RIGHT, "STOP"] if scores else [LEFT, "STOP"], scores, **options)
    assert (trace.answer, trace.error) == ("STOP", None)
    assert all(SPENT not in step.scores for step in trace.best.steps)


def test_what_is_not_enough_is_said_and_what_is_enough_refuses_more() -> None:
    messages = ran(["GO", LEFT, RIGHT, "STOP</answer>"], [0.0, 1.0]).best.messages
    assert GO_ON in messages
    assert messages[-3] == REFUSED


def test_a_model_without_tools_is_asked_where() -> None:
    vlm = ScriptedVLM([BOX, "STOP"], traits=ASKS)
    trace = run(partial(scale, verifier=always), SAMPLE, vlm)
    assert (trace.answer, len(trace.best.looks)) == ("STOP", 1)


def test_without_images_a_model_without_tools_is_only_asked() -> None:
    trace = run(scale, question("2 + 2?"), ScriptedVLM(["4"], traits=ASKS))
    assert (trace.reply, trace.error) == ("4", None)


@pytest.mark.parametrize(
    ("places", "looks", "spent"),
    [
        pytest.param(["?"], 0, False, id="no box"),
        pytest.param([BOX, BOX], 1, False, id="a box again"),
        pytest.param([BOX, OTHER_BOX], 2, True, id="all that is allowed"),
    ],
)
def test_what_ends_the_asking(places, looks, spent) -> None:
    vlm = ScriptedVLM([*places, "STOP"], traits=ASKS)
    trace = run(partial(scale, verifier=never, max_steps=2), SAMPLE, vlm)
    assert (trace.answer, len(trace.best.looks)) == ("STOP", looks)
    assert (SPENT in trace.best.steps[-1].scores) is spent


def test_a_model_that_terminates_spends_no_budget() -> None:
    body = {"name": "terminate", "arguments": {"answer": "STOP"}}
    vlm = ScriptedVLM([f"<tool_call>{json.dumps(body)}</tool_call>"])
    trace = run(partial(scale, verifier=scripted([None])), SAMPLE, vlm)
    assert (trace.answer, trace.best.steps[-1].scores) == ("STOP", {"verifier": None})


@pytest.mark.parametrize(
    ("scores", "expected"),
    [({YES: -0.1, NO: -9.0}, 0.9998), ({YES: -1.0, NO: -1.0}, 0.5), ({YES: -800.0, NO: 0.0}, 0.0)],
    ids=["yes", "even", "far away"],
)
def test_the_model_itself_is_asked(scores, expected) -> None:
    vlm = ScriptedVLM(["STOP", "STOP"], traits=ZOOMS, scores=scores)
    trace = run(partial(scale, max_steps=1), SAMPLE, vlm)
    first = next(s.scores["asked"] for s in trace.best.steps if "asked" in s.scores)
    assert first == pytest.approx(expected, abs=1e-4)
    assert trace.cost.calls == len(vlm.conversations) + 1  # one verdict


def test_all_actions_are_on_offer_to_a_model_that_names_no_tools() -> None:
    vlm = ScriptedVLM(["STOP"], scores={YES: 0.0})
    run(scale, SAMPLE, vlm, sampling=Sampling(max_tokens=8))
    names = {part.name for part in vlm.conversations[0][0].parts if isinstance(part, ToolSpec)}
    assert {"zoom_in", "mark", "terminate"} <= names


def grey(image: Image) -> Image:
    """Show an image without its colours."""
    return Image(image.pixels.convert("L").convert("RGB"), Drawn(image.id, "grey"))


def test_actions_of_ones_own_are_on_offer_in_place_of_all() -> None:
    used = '<tool_call>{"name": "grey", "arguments": {"img_idx": 0}}</tool_call>'
    vlm = ScriptedVLM([used, "STOP"], traits=ZOOMS)
    trace = run(partial(scale, verifier=always, actions=[grey]), SAMPLE, vlm)
    assert (trace.answer, len(trace.best.looks), trace.error) == ("STOP", 1, None)
    offered = [part.name for part in vlm.conversations[0][0].parts if isinstance(part, ToolSpec)]
    assert offered == ["grey"]


@pytest.mark.parametrize(
    ("strategy", "replies", "spent"),
    [
        pytest.param(partial(zoom, max_looks=1), [LEFT + RIGHT, "STOP"], True, id="zoom"),
        pytest.param(partial(act, max_steps=1), [LEFT + RIGHT, "STOP"], True, id="act"),
        pytest.param(partial(zoom, max_looks=1), [LEFT, "STOP"], False, id="it answered then"),
        pytest.param(partial(zoom, max_looks=0), ["STOP"], False, id="it asked for none"),
        pytest.param(partial(zoom, max_looks=2), [LEFT, "STOP"], False, id="it answered in time"),
    ],
)
def test_a_budget_spent_without_a_verifier_is_marked_too(strategy, replies, spent) -> None:
    trace = run(strategy, SAMPLE, ScriptedVLM(replies))
    assert (trace.answer, SPENT in trace.best.steps[-1].scores) == ("STOP", spent)


def test_a_branch_that_ends_with_a_refusal_is_marked() -> None:
    trace = run(partial(zoom, max_looks=1), SAMPLE, ScriptedVLM([LEFT, RIGHT]))
    assert (trace.best.messages[-1], SPENT in trace.best.steps[-1].scores) == (REFUSED, True)


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(UserError, match="max_steps and eps must be 0 or more, got -1"):
        run(partial(scale, max_steps=-1), SAMPLE, ScriptedVLM([]))


def test_asked_is_the_default() -> None:
    assert inspect.signature(scale).parameters["verifier"].default is asked
