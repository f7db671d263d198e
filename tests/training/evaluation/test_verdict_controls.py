"""Controls in a verifier's place: what they see, and how often they stop."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import pytest
from evaluation_items import item
from PIL import Image as Pil

import mm
from mm.session import run
from mm.strategies.verdict import verdict
from mm.trace import Branch
from mm.types import Image
from training.evaluation.verdict_controls import (
    own_verifier,
    shuffled,
    verdict_controls,
    verdict_of,
)
from vision import scale, zoom
from vision.verifier import asked

BLUE = (0, 0, 255)
MATCHED = {"length": -12.0, "likelihood": -0.5, "random-stop": 0.25}


@pytest.mark.parametrize(
    ("located", "shown", "matched", "names"),
    [
        pytest.param(False, False, {}, (), id="a file's questions"),
        pytest.param(True, True, {}, ("oracle", "shuffled"), id="a known world"),
        pytest.param(
            True, True, MATCHED, ("length", "likelihood", "oracle", "shuffled"), id="calibrated"
        ),
    ],
)
def test_which_controls_there_are(located, shown, matched, names) -> None:
    found = verdict_controls(located=located, shown=shown, matched=matched)
    assert found == ["self", "asked", "always", "never", "random-stop", *names]


@pytest.mark.parametrize(
    ("control", "threshold"),
    [("self", 0.5), ("never", 0.5), ("random-stop", 0.5), ("length", -12.0), ("likelihood", -0.5)],
)
def test_thresholds(control: str, threshold: float) -> None:
    assert verdict_of(control, scale, matched=MATCHED)["threshold"] == threshold


def test_chance_stops_as_often_as_the_trained_verifier() -> None:
    bound = verdict_of("random-stop", scale, matched=MATCHED)["verifier"]
    assert isinstance(bound, partial)
    assert bound.keywords == {"rate": 0.25}


@pytest.mark.parametrize("control", ["length", "shuffled", "nothing"])
def test_a_control_without_what_it_needs_is_refused(control: str) -> None:
    with pytest.raises(ValueError, match="no control"):
        verdict_of(control, scale)


def test_the_model_decides_alone_under_self() -> None:
    replies = ["<tool_call>" + '{"name": "image_zoom_in_tool", "arguments": ', "K"]
    replies[0] += '{"bbox_2d": [0, 0, 400, 400]}}</tool_call>'
    strategy = partial(scale, tools="zoom", **verdict_of("self", scale))
    by_verifier = run(strategy, item().sample, mm.ScriptedVLM(replies))
    alone = run(zoom, item().sample, mm.ScriptedVLM(replies))
    assert by_verifier.best.messages == alone.best.messages


def test_a_shuffled_verdict_sees_the_same_regions_of_another_image() -> None:
    seen: list[Branch] = []

    def watching(branch: Branch) -> float:
        seen.append(branch)
        return 1.0

    other = Image(Pil.new("RGB", (320, 320), BLUE))
    strategy = partial(scale, tools="zoom", verifier=watching)
    replies = ["<tool_call>" + '{"name": "image_zoom_in_tool", "arguments": ', "K"]
    replies[0] += '{"bbox_2d": [0, 0, 400, 400]}}</tool_call>'
    trace = run(strategy, item().sample, mm.ScriptedVLM(replies))
    shuffled(trace.best, verifier=own_verifier(strategy), other=lambda: other)
    true, swapped = seen[0], seen[-1]
    assert [m.text for m in swapped.messages] == [m.text for m in trace.best.messages]
    images = [image for m in swapped.messages for image in m.images]
    assert [i.size for i in images[:2]] == [i.size for m in true.messages for i in m.images][:2]
    assert all(i.pixels.getcolors(1) == [(i.size[0] * i.size[1], BLUE)] for i in images)


def test_a_verifier_that_asks_a_model_still_does_when_shuffled() -> None:
    bound = verdict_of("shuffled", scale, other=lambda: Image(Pil.new("RGB", (64, 64))))
    verifier: Any = bound["verifier"]
    assert own_verifier(scale) is asked
    assert inspect.signature(verifier).parameters["vlm"].default is None
    trace = run(mm.direct, item().sample, mm.ScriptedVLM(["K"]))
    session = mm.Session(
        trace, mm.ScriptedVLM([], scores={"yes": -0.1, "no": -3.0}), leaf=trace.best.leaf
    )
    assert verdict(session, verifier) == pytest.approx(0.9478, abs=1e-3)
