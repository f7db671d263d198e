"""Controls show another region, none, or no image; they must answer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from evaluation_items import LEFT, RIGHT, item, look_at
from PIL import Image

import mm
from mm.geometry import Region
from mm.origins import Cropped
from mm.session import name_of
from mm.strategies import vote
from training.evaluation.controls import GREY, Condition, TrueInTurn, blind, conditions_of
from training.evaluation.evaluate import evaluate
from training.evaluation.results import row_of
from training.evaluation.tasks import Item, Suite
from vision import depth_text, scale
from vision.depth_source import DepthSource
from vision.zoom import zoom


def answer(condition, replies, *, asked=None, **kwargs):
    vlm = mm.ScriptedVLM(replies, **kwargs)
    (outcome,) = evaluate(condition, [asked or item()], vlm, threads=1)
    return outcome, vlm


def shown_first(vlm):
    (crop,) = vlm.conversations[1][-1].images
    assert isinstance(crop.origin, Cropped)
    return crop.origin.region


SUITE = Suite("read", lambda: [item()], 1, looking=True, located=True)


def test_conditions_are_a_strategy_and_the_controls_it_has():
    both = [("direct", mm.direct), ("zoom", zoom)]
    controls = [(a.name, a.control) for a in conditions_of(SUITE, both, controls=True)]
    assert controls == [
        ("direct", ""),
        ("direct", "blind"),
        ("zoom", ""),
        ("zoom", "random"),
        ("zoom", "true"),
        ("zoom", "no-look"),
        ("zoom", "blind"),
    ]
    plain = Suite("colour", lambda: [item(regions=())], 1)
    assert [a.control for a in conditions_of(plain, both, controls=True)] == ["", ""]
    assert [a.control for a in conditions_of(SUITE, both, controls=False)] == ["", ""]
    unknown = Suite("mine", lambda: [item(regions=())], 1, looking=True)
    controls = [a.control for a in conditions_of(unknown, [("zoom", zoom)], controls=True)]
    assert controls == ["", "random", "no-look", "blind"]


def test_the_real_thing_shows_what_was_asked_for():
    outcome, vlm = answer(Condition("zoom", zoom), [look_at(500, 500, 600, 600), "K"])
    assert (outcome.correct, outcome.failed) == (True, False)
    assert (outcome.looks, outcome.calls, outcome.valid_calls) == (1, 1, 1)
    shown = shown_first(vlm)
    assert shown.x0 <= 0.5 < 0.6 <= shown.x1


@pytest.mark.parametrize(
    ("control", "near"),
    [
        pytest.param("true", True, id="true region"),
        pytest.param("random", False, id="random region"),
    ],
)
def test_a_control_shows_another_region(control, near):
    _, vlm = answer(Condition("zoom", zoom, control), [look_at(110, 300, 210, 400), "K"])
    shown = shown_first(vlm)
    holds_truth = shown.x0 <= 0.1 and shown.y0 <= 0.1 and shown.x1 >= 0.2 and shown.y1 >= 0.2
    assert holds_truth is near
    assert not (shown.x0 <= 0.11 and shown.y0 <= 0.3 and shown.x1 >= 0.21 and shown.y1 >= 0.4)


def test_true_regions_are_shown_once_each_by_nearness():
    choose = TrueInTurn([LEFT, RIGHT])
    sample = item().sample
    assert choose(sample, Region(0.7, 0.5, 0.75, 0.6)) == RIGHT
    assert choose(sample, RIGHT) == LEFT
    assert choose(sample, RIGHT) == LEFT


def test_no_look_offers_the_tool_refuses_the_look_and_takes_the_likeliest_choice():
    outcome, vlm = answer(
        Condition("zoom", zoom, "no-look"),
        [look_at(100, 100, 200, 200)],
        scores={"K": -1.0, "R": -2.0},
    )
    assert [m.role for m in vlm.conversations[0]] == ["system", "user"]
    assert (outcome.correct, outcome.failed, outcome.looks) == (True, False, 0)
    assert row_of("read", Condition("zoom", zoom, "no-look"), [outcome])["valid_boxes"] is None


def test_blind_sees_grey_of_the_same_size():
    _, vlm = answer(Condition("direct", mm.direct, "blind"), ["K"])
    (seen,) = vlm.conversations[0][0].images
    assert (seen.size, seen.pixels.getcolors()) == ((640, 640), [(640 * 640, GREY)])


@pytest.mark.parametrize(
    "condition",
    [
        pytest.param(Condition("direct", mm.direct), id="direct"),
        pytest.param(Condition("zoom", zoom, "blind"), id="a control"),
        pytest.param(Condition("zoom", zoom), id="the real thing"),
    ],
)
def test_all_conditions_must_choose_alike(condition):
    """Or the difference of two would measure who was made to answer, too."""
    outcome, _ = answer(condition, ["I cannot tell."], scores={"K": -1.0})
    assert (outcome.correct, outcome.failed, outcome.calls) == (True, False, 0)


def test_without_choices_nobody_is_made_to_answer():
    open_question = Item(mm.question("Which?", Image.new("RGB", (80, 40)), target="left"))
    for condition in (Condition("zoom", zoom), Condition("zoom", zoom, "no-look")):
        strategy, _ = condition.meet(open_question)
        assert name_of(strategy) != "insist"


def test_depth_has_controls_of_its_own(tmp_path):
    values = np.full((40, 80), 3.0)
    values[:, :40] = 1.0
    np.save(tmp_path / "map.npy", values)
    depth = partial(depth_text, depth=DepthSource(str(tmp_path / "map.npy")), things=_things)
    conditions = conditions_of(SUITE, [("depth", depth)], controls=True)
    assert [c.control for c in conditions] == ["", "flipped", "constant", "noise", "blind"]
    sample = mm.question("Which?", Image.new("RGB", (80, 40)), id="a", target="left")
    asked = Item(sample)
    told = []
    for condition in conditions[:4]:
        _, vlm = answer(condition, ["left"], asked=asked)
        told.append(vlm.conversations[0][0].text)
    assert "left 1.00 m, right 3.00 m" in told[0]
    assert "right 1.00 m, left 3.00 m" in told[1]
    assert "left 2.00 m, right 2.00 m.\nThe left is about as far as the right" in told[2]
    assert len(set(told)) == 4


def test_a_known_scene_has_the_controls_of_other_maps_too():
    deep = replace(SUITE, looking=False, deep=True)
    controls = [c.control for c in conditions_of(deep, [("depth", depth_text)], controls=True)]
    assert controls == ["", "flipped", "constant", "noise", "shuffled", "true"]


@pytest.mark.parametrize(
    "inside",
    [
        pytest.param(lambda depth: depth, id="alone"),
        pytest.param(lambda depth: partial(vote, strategy=depth, n=1, temperature=1.0), id="vote"),
    ],
)
def test_blind_is_told_no_depth(tmp_path, inside):
    """Neither a row's own map, nor what a model finds in grey."""
    np.save(tmp_path / "map.npy", np.linspace(1, 3, 3200).reshape(40, 80))
    sample = mm.question("Which?", Image.new("RGB", (80, 40)), id="a", target="left")
    asked = Item(replace(sample, tags={"depth": str(tmp_path / "map.npy"), "task": "x"}))
    strategy = inside(partial(depth_text, things=_things, depth=DepthSource(model="/nosuch")))
    _, vlm = answer(Condition("depth", strategy, "blind"), ["left"], asked=asked)
    assert [said.text for said in vlm.conversations[0]] == ["Which?"]
    assert blind(asked.sample).tags == {"task": "x"}


def _things(session, image):
    return [("left", Region(0, 0, 0.4, 1)), ("right", Region(0.6, 0, 1, 1))]


def test_verdicts_have_controls_of_their_own():
    conditions = conditions_of(SUITE, [("scale", scale)], controls=True)
    names = ["", "self", "asked", "always", "never", "random-stop", "oracle", "blind"]
    assert [c.control for c in conditions] == names


@pytest.mark.parametrize(
    ("control", "replies", "looks"),
    [
        pytest.param("always", [look_at(0, 0, 100, 100), "K"], 1, id="always: one look"),
        pytest.param(
            "oracle",
            [look_at(700, 0, 900, 100), look_at(80, 80, 220, 220), "K"],
            2,
            id="oracle: until it is shown",
        ),
    ],
)
def test_a_verdict_in_the_verifiers_place(control, replies, looks):
    strategy = partial(scale, tools="zoom")
    outcome, _ = answer(Condition("scale", strategy, control), replies)
    assert (outcome.correct, outcome.looks) == (True, looks)
