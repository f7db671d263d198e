"""Looking again from memory: both protocols, every path a reply can take, and the controls."""

from __future__ import annotations

import json
import math
from functools import partial
from typing import Literal

import PIL.Image
import pytest

from mm.errors import UserError
from mm.geometry import WHOLE, Region
from mm.samples import question
from mm.scripted import ScriptedVLM
from mm.session import run
from mm.strategies.voting import vote
from mm.trace import Trace
from mm.trace_store import load_traces, save_traces
from mm.types import Features, Image, Sampling, assistant
from mm.vlm import Memory, Traits
from vision.look_loop import NO_MORE
from vision.look_stats import calls, looks, valid_calls
from vision.regions import regions_of
from vision.replay import ANSWER, ANSWER_AFTER_THOUGHT, read_signal, replay, within
from vision.zoom_tool import ZOOM

PICTURE = Image(PIL.Image.new("RGB", (640, 480), "teal"))
SAMPLE = question("What does the sign say?", PICTURE, id="a sample", target="STOP")
OWN = Traits(memory=Memory(tile=128, replay=1))
PAPER = Traits(memory=Memory(tile=336, snapshot=2, local=4, replay=2))
SIGN = "<sot>[0.10, 0.20, 0.30, 0.40]<eot>"
PLACE = Region(0.1, 0.2, 0.3, 0.4)


def call(box: object = (100, 200, 300, 400)) -> str:
    body = {"name": ZOOM, "arguments": {"bbox_2d": box}}
    return f"<tool_call>\n{json.dumps(body)}\n</tool_call>"


def indexed(index: int) -> str:
    return call().replace('"bbox_2d"', f'"img_idx": {index}, "bbox_2d"')


def roles(trace: Trace) -> list[str]:
    return [step.message.role for step in trace.best.steps]


def test_a_call_is_answered_from_memory() -> None:
    vlm = ScriptedVLM([call(), "<answer>STOP</answer>"], traits=OWN)
    trace = run(replay, SAMPLE, vlm)
    assert trace.answer == "STOP"
    assert roles(trace) == ["system", "assistant", "tool", "assistant"]
    assert trace.best.looks == (Features(PICTURE, PLACE),)
    assert trace.images == ()
    assert regions_of(trace.best) == [(0, PLACE)]
    assert (looks(trace.best), calls(trace.best), valid_calls(trace.best)) == (1, 1, 1)
    assert vlm.conversations[1][-1].visuals == trace.best.looks


def test_the_papers_signal_is_answered_within_the_turn() -> None:
    thought = "<think>The sign is here: " + SIGN
    vlm = ScriptedVLM([thought, " it says STOP.</think>\nFinal answer: STOP"], traits=PAPER)
    trace = run(partial(replay, protocol="sot"), SAMPLE, vlm)
    assert trace.answer == "STOP"
    assert roles(trace) == ["user", "assistant", "assistant", "assistant"]
    assert trace.best.steps[2].message == assistant(Features(PICTURE, PLACE, pool=2))
    assert not trace.best.steps[2].sampled
    assert vlm.samplings[0].stop == ("<eot>",)


def test_the_overview_comes_from_memory_as_the_model_has_it() -> None:
    shown = {
        "own": (PICTURE,),
        "paper": (Features(PICTURE, WHOLE, 2, snapshot=True), Features(PICTURE, WHOLE, 4)),
    }
    for name, traits in (("own", OWN), ("paper", PAPER)):
        trace = run(replay, SAMPLE, ScriptedVLM(["STOP"], traits=traits))
        assert trace.sample.prompt[0].visuals == shown[name]
        assert trace.sample.images == (PICTURE,)


@pytest.mark.parametrize(
    ("text", "region"),
    [
        pytest.param(SIGN, PLACE, id="normalised"),
        pytest.param(f"see {SIGN} then <sot>[0,0,.5,1]<eot>", Region(0, 0, 0.5, 1), id="last"),
        pytest.param('<sot>{"bbox_2d": [0.1,0.2,0.3,0.4]}<eot>', PLACE, id="as an object"),
        pytest.param("<sot>[0.5, 0.5, 1.7, 2]<eot>", Region(0.5, 0.5, 1, 1), id="clipped"),
        pytest.param("<sot>[0.3, 0.2, 0.1, 0.4]<eot>", None, id="turned round"),
        pytest.param("<sot>[0.1, 0.2, 0.3]<eot>", None, id="three numbers"),
        pytest.param("<sot>[1.2, 0, 2, 1]<eot>", None, id="outside"),
        pytest.param("<sot>there<eot>", None, id="words"),
        pytest.param("[0.1, 0.2, 0.3, 0.4]<eot>", None, id="never begun"),
    ],
)
def test_signals_are_read(text: str, region: Region | None) -> None:
    assert read_signal(text) == region


def test_a_signal_that_cannot_be_read_inserts_nothing() -> None:
    vlm = ScriptedVLM(["<sot>there<eot>", " Final answer: STOP"], traits=PAPER)
    trace = run(partial(replay, protocol="sot"), SAMPLE, vlm)
    assert trace.answer == "STOP"
    assert trace.best.looks == ()
    assert vlm.conversations[1][-1].text == "<sot>there<eot>"


@pytest.mark.parametrize(
    ("protocol", "said"),
    [pytest.param("tool", call(), id="tool"), pytest.param("sot", SIGN, id="sot")],
)
def test_the_same_region_is_not_shown_twice(protocol: Literal["tool", "sot"], said: str) -> None:
    vlm = ScriptedVLM([said, said, "Final answer: STOP"], traits=OWN)
    trace = run(partial(replay, protocol=protocol), SAMPLE, vlm)
    assert trace.answer == "STOP"
    assert len(trace.best.looks) == 1


def test_several_pictures_are_told_apart() -> None:
    other = Image(PIL.Image.new("RGB", (480, 640), "navy"))
    vlm = ScriptedVLM([indexed(1), indexed(0), indexed(1), indexed(2), "STOP"], traits=OWN)
    trace = run(replay, question("Which?", PICTURE, other), vlm)
    assert trace.best.looks == (Features(other, PLACE), Features(PICTURE, PLACE))
    assert [index for index, _ in regions_of(trace.best)] == [1, 0]
    told = [step.message.text for step in trace.best.steps if step.message.role == "tool"]
    assert "already shown" in told[2]
    assert "from 0 to 1, got 2" in told[3]


@pytest.mark.parametrize("said", [call(), call((1, 2, 1, 4))], ids=["repeated", "bad"])
def test_looks_that_showed_nothing_count_towards_the_most(said: str) -> None:
    vlm = ScriptedVLM([call(), said, "STOP"], traits=OWN)
    trace = run(partial(replay, max_looks=2), SAMPLE, vlm)
    assert trace.best.steps[-2].message.text.endswith(NO_MORE)
    assert (trace.answer, len(trace.best.looks)) == ("STOP", 1)


def test_after_the_last_look_it_must_answer() -> None:
    vlm = ScriptedVLM([SIGN, " STOP"], traits=OWN)
    trace = run(partial(replay, protocol="sot", max_looks=1), SAMPLE, vlm)
    assert vlm.conversations[1][-1].text == ANSWER
    assert trace.answer == "STOP"


@pytest.mark.parametrize(
    ("said", "opened"),
    [
        pytest.param("<think>It is here: " + SIGN, ANSWER_AFTER_THOUGHT, id="a thought is open"),
        pytest.param("<think>Hm.</think> Here: " + SIGN, ANSWER, id="a thought is closed"),
    ],
)
def test_the_last_look_closes_an_open_thought(said: str, opened: str) -> None:
    vlm = ScriptedVLM([said, " STOP"], traits=OWN)
    trace = run(partial(replay, protocol="sot", max_looks=1), SAMPLE, vlm)
    assert vlm.conversations[1][-1].text == opened
    assert (trace.answer, calls(trace.best)) == ("STOP", 1)


def test_an_opened_answer_is_no_look() -> None:
    vlm = ScriptedVLM(["<think>It says", " STOP"], traits=OWN)
    sampling = Sampling(max_tokens=14)
    trace = run(partial(replay, protocol="sot"), SAMPLE, vlm, sampling=sampling)
    assert trace.best.messages[-2].text == ANSWER_AFTER_THOUGHT
    assert (trace.answer, calls(trace.best)) == ("STOP", 0)


@pytest.mark.parametrize("options", [{}, {"observer": print}], ids=["alone", "watched"])
def test_draws_look_again_one_after_another(options) -> None:
    vlm = ScriptedVLM([call(), "STOP", call(), "STOP"], traits=OWN)
    drawn = partial(vote, strategy=replay, n=2, temperature=1.0)
    trace = run(drawn, SAMPLE, vlm, **options)
    assert (trace.answer, len(trace.branches)) == ("STOP", 2)
    assert all(branch.looks == (Features(PICTURE, PLACE),) for branch in trace.branches)


def test_a_model_that_calls_no_tools_is_asked_where() -> None:
    asks = Traits(calls_tools=False, memory=OWN.memory)
    vlm = ScriptedVLM(['{"bbox_2d": [100, 200, 300, 400]}', "STOP"], traits=asks)
    trace = run(replay, SAMPLE, vlm)
    assert trace.answer == "STOP"
    assert trace.best.looks == (Features(PICTURE, PLACE),)


def test_a_large_region_is_pooled_until_it_fits() -> None:
    vlm = ScriptedVLM([call((0, 0, 1000, 1000)), "STOP"], traits=OWN)
    trace = run(partial(replay, max_tokens=80), SAMPLE, vlm)
    assert trace.best.looks == (Features(PICTURE, WHOLE, pool=2),)  # 20 x 15, then 10 x 8


def test_what_pooling_cannot_make_cheaper_is_shown_as_it_is() -> None:
    whole = Features(PICTURE, WHOLE)
    found = within(whole, 3, lambda f: 5 + math.ceil(20 / f.pool))  # five that no pooling saves
    assert found.pool == 20


@pytest.mark.parametrize("options", [{"max_tokens": 0}, {"pool": 0}], ids=["tokens", "pool"])
def test_bad_numbers_are_refused(options) -> None:
    with pytest.raises(UserError, match="max_tokens and pool must be 1 or more"):
        run(partial(replay, **options), SAMPLE, ScriptedVLM([], traits=OWN))


def test_controls_change_what_is_shown_and_nothing_else() -> None:
    other = Region(0.6, 0.6, 0.9, 0.9)
    vlm = ScriptedVLM([call(), "STOP"], traits=OWN)
    trace = run(partial(replay, choose_region=lambda sample, asked: other), SAMPLE, vlm)
    assert trace.best.looks == (Features(PICTURE, other),)
    full = run(partial(replay, full=True), SAMPLE, ScriptedVLM(["STOP"], traits=PAPER))
    snapshot = Features(PICTURE, WHOLE, 2, snapshot=True)
    assert full.sample.prompt[0].visuals == (snapshot, Features(PICTURE))
    assert roles(full) == ["assistant"]


def test_a_model_without_memory_is_refused_in_words() -> None:
    trace = run(replay, SAMPLE, ScriptedVLM(["STOP"]))
    assert trace.error
    assert "scripted cannot replay" in trace.error
    assert "zoom or attend" in trace.error


def test_a_question_without_a_picture_is_only_asked() -> None:
    assert run(replay, question("2 + 2?"), ScriptedVLM(["4"], traits=OWN)).answer == "4"


def test_what_was_replayed_is_saved(tmp_path) -> None:
    trace = run(replay, SAMPLE, ScriptedVLM([call(), "STOP"], traits=PAPER))
    save_traces([trace], tmp_path)
    (read,) = load_traces(tmp_path)
    assert read == trace
