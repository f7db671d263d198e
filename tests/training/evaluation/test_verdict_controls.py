"""Controls in a verifier's place: what they see, and how often they stop."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import pytest
from evaluation_items import GRADIENT, LEFT, RIGHT, item, look_at
from PIL import Image as Pil

import mm
from mm.geometry import Region
from mm.session import run
from mm.strategies.verdict import verdict
from mm.trace import Branch
from mm.types import Image
from training.evaluation.tasks import tabletop_suites
from training.evaluation.verdict_controls import (
    choice_controls,
    oracle,
    own_verifier,
    shuffled,
    verdict_controls,
    verdict_of,
)
from vision import beam, scale, zoom
from vision.crop import crop
from vision.verifier import asked, never

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


@pytest.mark.parametrize("control", ["never", "asked", "random-stop", "length", "oracle"])
def test_a_threshold_takes_the_place_of_the_papers_rule(control: str) -> None:
    strategy = partial(scale, eps=0.1)
    bound: Any = verdict_of(control, strategy, matched=MATCHED)
    assert inspect.signature(partial(strategy, **bound)).parameters["eps"].default is None


def test_shuffled_keeps_the_papers_rule() -> None:
    image = Image(Pil.new("RGB", (64, 64)))
    assert "eps" not in verdict_of("shuffled", partial(scale, eps=0.1), other=lambda: image)


def test_never_looks_to_the_end_under_the_papers_rule_too() -> None:
    looks = [look_at(0, 0, 100, 100), look_at(500, 0, 900, 100)]
    strategy: Any = partial(scale, tools="zoom", eps=0.1, max_steps=2)
    bound: Any = verdict_of("never", strategy)
    trace = run(partial(strategy, **bound), item().sample, mm.ScriptedVLM([*looks, "K"]))
    assert len(trace.best.looks) == 2


CHOOSING = ["asked", "length", "likelihood"]


@pytest.mark.parametrize(
    ("strategy", "names"),
    [
        pytest.param(mm.best_of, ["asked", "length", "majority"], id="by likelihood"),
        pytest.param(
            partial(mm.best_of, verifier=never), [*CHOOSING, "majority", "shuffled"], id="own"
        ),
        pytest.param(beam, ["length", "likelihood", "shuffled"], id="beam"),
    ],
)
def test_which_controls_a_choice_among_branches_has(strategy: Any, names: list[str]) -> None:
    assert choice_controls(strategy, shown=True) == names
    image = Image(Pil.new("RGB", (64, 64)))
    for name in names:
        partial(strategy, **verdict_of(name, strategy, other=lambda: image))


@pytest.mark.parametrize(
    ("control", "options", "answer"),
    [
        pytest.param("majority", {}, "It is the letter K", id="most"),
        pytest.param("length", {}, "R", id="the shortest"),
        pytest.param("length", {"vote": True}, "R", id="no sum of lengths"),
    ],
)
def test_a_choice_under_a_control(control: str, options: dict[str, Any], answer: str) -> None:
    strategy: Any = partial(mm.best_of, n=3, temperature=1.0, verifier=never, **options)
    bound: Any = verdict_of(control, strategy)
    vlm = mm.ScriptedVLM(["It is the letter K", "It is the letter K", "R"])
    assert run(partial(strategy, **bound), item().sample, vlm).answer == answer


@pytest.mark.parametrize(
    ("boxes", "enough"),
    [
        pytest.param([RIGHT], 0.0, id="the last alone"),
        pytest.param([LEFT, RIGHT], 1.0, id="both"),
    ],
)
def test_the_oracle_wants_all_that_is_needed(boxes: list[Region], enough: float) -> None:
    steps = tuple(mm.Step(mm.message("tool", crop(GRADIENT, box, rule="square"))) for box in boxes)
    assert oracle((LEFT, RIGHT), Branch(item().sample, steps, None)) == enough


def test_only_the_object_asked_about_is_needed_to_search() -> None:
    (suite,) = tabletop_suites(["search"], seed=0, limit=8, level=None)
    items = list(suite.items())
    assert all(each.needed == each.regions[-1:] for each in items)
    (suite,) = tabletop_suites(["same"], seed=0, limit=2, level=None)
    assert all(each.needed == each.regions for each in suite.items())


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
