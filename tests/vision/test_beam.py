"""Several ways at once: which are kept, which answer is returned, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

import pytest
from images import noise

from mm.errors import UserError
from mm.origins import Drawn
from mm.samples import question
from mm.scripted import ScriptedVLM
from mm.session import run
from mm.trace import Branch, Trace
from mm.types import Image, Sampling, ToolSpec
from mm.vlm import Traits
from vision.beam import beam
from vision.look_loop import SPENT
from vision.zoom_tool import ZOOM

SAMPLE = question("What does the sign say?", noise(1), id="sign", target="STOP")
WARM = Sampling(temperature=1.0)


def call(*box: int) -> str:
    body = {"name": ZOOM, "arguments": {"bbox_2d": box}}
    return f"<tool_call>\n{json.dumps(body)}\n</tool_call>"


LEFT, RIGHT, TOP = call(0, 0, 400, 900), call(500, 0, 900, 900), call(0, 0, 900, 300)
GOOD = {"LEFT": 0.2, "RIGHT": 0.8, "TOP": 0.5, "STOP": 0.9, "GO": 0.1}


def by_last_word(branch: Branch) -> float | None:
    """What `GOOD` says of the last reply, by the name it was given here."""
    names = {LEFT: "LEFT", RIGHT: "RIGHT", TOP: "TOP"}
    last = [step for step in branch.steps if step.sampled][-1].message
    if last.tool_calls:
        box = last.tool_calls[0].arguments["bbox_2d"]
        return GOOD[names[call(*box)]]
    return GOOD.get(last.text)


def ran(replies: Sequence[str], traits: Traits = Traits(), **options) -> Trace:
    strategy = partial(beam, **{"verifier": by_last_word, **options})
    return run(strategy, SAMPLE, ScriptedVLM(list(replies), traits=traits), sampling=WARM)


@pytest.mark.parametrize(
    ("replies", "options", "answer"),
    [
        pytest.param(["GO", "STOP"], {}, "STOP", id="the better of two answers"),
        pytest.param([LEFT, RIGHT, "STOP", "GO"], {"width": 1}, "STOP", id="one way is kept"),
        pytest.param(["GO", LEFT, "STOP", "GO"], {}, "STOP", id="an early answer waits"),
        pytest.param([LEFT, LEFT, "STOP", "STOP"], {}, "STOP", id="the same step twice is one"),
        pytest.param(["well", "GO"], {}, "GO", id="cannot tell loses"),
        pytest.param([RIGHT, "STOP"], {"draws": 1, "max_steps": 1}, "STOP", id="must answer"),
    ],
)
def test_the_best_way_is_returned(replies, options, answer) -> None:
    trace = ran(replies, **options)
    assert (trace.answer, trace.error) == (answer, None)


@pytest.mark.parametrize(
    ("replies", "spent"),
    [
        pytest.param([RIGHT, TOP, "STOP</answer>"], True, id="would look on"),
        pytest.param([RIGHT, "STOP"], False, id="answers when it must"),
        pytest.param(["STOP"], False, id="answers in time"),
    ],
)
def test_a_way_that_would_look_on_is_marked(replies, spent) -> None:
    trace = ran(replies, draws=1, max_steps=1)
    assert (trace.answer, SPENT in trace.best.steps[-1].scores) == ("STOP", spent)


def grey(image: Image) -> Image:
    """Show an image without its colours."""
    return Image(image.pixels.convert("L").convert("RGB"), Drawn(image.id, "grey"))


def test_actions_of_ones_own_are_steps_too() -> None:
    used = '<tool_call>{"name": "grey", "arguments": {"img_idx": 0}}</tool_call>'
    vlm = ScriptedVLM([used, "STOP"])
    strategy = partial(beam, verifier=lambda _: 1.0, draws=1, actions=[grey])
    trace = run(strategy, SAMPLE, vlm, sampling=WARM)
    assert (trace.answer, [image.origin.what for image in trace.images]) == ("STOP", ["grey"])  # type: ignore[union-attr]
    offered = [part.name for part in vlm.conversations[0][0].parts if isinstance(part, ToolSpec)]
    assert offered == ["grey"]


def test_the_kept_way_is_the_better_one() -> None:
    trace = ran([LEFT, RIGHT, "STOP", "GO"], width=1)
    box = trace.best.looks[0].origin.region  # type: ignore[union-attr]
    assert box.x0 > 0.4  # the right one


@pytest.mark.parametrize(
    ("options", "told"),
    [
        pytest.param({"width": 0}, "width must be 1 or more, got 0", id="width"),
        pytest.param({"max_steps": 0}, "max_steps must be 1 or more, got 0", id="steps"),
        pytest.param({"temperature": 0.0}, "2 draws of a step would be the same", id="greedy"),
    ],
)
def test_numbers_out_of_bounds_are_refused(options, told) -> None:
    with pytest.raises(UserError, match=told):
        ran(["STOP"], **options)


def test_a_model_that_calls_no_tools_is_told_of_another_strategy() -> None:
    assert "use best_of" in str(ran(["STOP"], Traits(calls_tools=False)).error)
