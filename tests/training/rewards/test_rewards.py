"""Each reward at its edges; the papers' vectors."""

import json
import math
import sys
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest

from mm.errors import UserError
from mm.geometry import Region
from mm.markup import parse_parts
from mm.origins import Cropped
from mm.trace import Branch, Sample, Step
from mm.types import Image, Message, user
from training.data import Row
from training.rewards.presets import read_mix
from training.rewards.terms import (
    R_GRPO,
    R_GRPO_CODE,
    Attempt,
    WeightedTerm,
    accuracy,
    box_iou,
    contributions,
    length,
    looked,
    readable_boxes,
    results_of,
    route,
    tail_loop,
    text_around_looks,
    thought_and_answer,
    tolerance,
)

CORNER = Region(0.0, 0.0, 0.5, 0.5)
BOX = '{"bbox_2d": [1, 2, 30, 40]}'


def attempt(*written: str, answer="STOP", crops: int = 0, cut_off=False, **row) -> Attempt:
    """What a policy wrote, turn by turn, a crop after each of the first `crops`."""
    picture = Image(PIL.Image.new("RGB", (60, 60)))
    steps = []
    for number, text in enumerate(written):
        steps.append(Step(Message("assistant", parse_parts(text)), sampled=True))
        if number < crops:
            origin = Cropped(picture.id, CORNER, (28, 28))
            seen = Image(PIL.Image.new("RGB", (28, 28)), origin)
            steps.append(Step(user(seen)))
    prompt = (user(picture, "?"),)
    branch = Branch(Sample("x", prompt), tuple(steps), len(steps) - 1)
    return Attempt(branch, Row("x", prompt, answer=answer, **row), cut_off)


@pytest.mark.parametrize(
    ("said", "right", "reward"),
    [
        pytest.param("100", "100", 1.0, id="exact"),
        pytest.param("105", "100", 1.0, id="just within"),
        pytest.param("112.5", "100", 0.5, id="half way"),
        pytest.param("120", "100", 0.0, id="too far"),
        pytest.param("-88", "-100", 0.55, id="below zero"),
        pytest.param("0", "0", 1.0, id="nothing, rightly"),
        pytest.param("0.1", "0", 0.0, id="nothing, nearly"),
        pytest.param("many", "100", 0.0, id="no number"),
    ],
)
def test_tolerance(said, right, reward):
    got = tolerance(attempt(f"<answer>{said}</answer>", answer=right))
    assert got == pytest.approx(reward, abs=0.01)


@pytest.mark.parametrize(
    ("said", "right", "choices", "reward"),
    [
        pytest.param("5 degrees", "-5 degrees", (), 0.0, id="a sign"),
        pytest.param("B", "<answer>B</answer>", (), 1.0, id="a truth in tags"),
        pytest.param("[0, 0, 10, 5]", "[0, 0, 10, 10]", (), 1.0, id="half of a box"),
        pytest.param("A, B, C or D", "cat", ("red", "blue", "green", "cat"), 0.0, id="all choices"),
        pytest.param("<answer>D</answer>", "cat", ("red", "blue", "green", "cat"), 1.0, id="one"),
        pytest.param("", "cat", (), 0.0, id="nothing"),
    ],
)
def test_accuracy_is_what_the_judge_says(said, right, choices, reward):
    assert accuracy(attempt(said, answer=right, choices=choices)) == reward


@pytest.mark.parametrize(
    ("said", "reward"),
    [
        pytest.param("<think>a</think> <answer>b</answer>", 1.0, id="both"),
        pytest.param("<answer>b</answer>", 0.0, id="no thought"),
        pytest.param("<think>a</think><answer>b</answer> c", 0.0, id="more after it"),
        pytest.param(f"<think>a {BOX} b</think><answer>c</answer>", 1.0, id="a look in it"),
        pytest.param(f"<think>a</think>{BOX}<think>b</think><answer>c</answer>", 1.0, id="two"),
        pytest.param("<think>an <answer>?</think><answer>b</answer>", 1.0, id="a tag in it"),
        pytest.param("<think>a</think><answer>b</answer><answer>c</answer>", 0.0, id="two answers"),
    ],
)
def test_thought_and_answer(said, reward):
    assert thought_and_answer(attempt(said)) == reward


def test_both_twice_is_a_format_to_the_released_code_alone():
    twice = attempt(2 * "<think>a</think><answer>b</answer>")
    assert (thought_and_answer(twice), thought_and_answer(twice, released=True)) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("written", "reward"),
    [
        pytest.param((f"Look at this one: {BOX}", "<answer>a</answer>"), 0.0, id="answers at once"),
        pytest.param(
            (f"Look at this one: {BOX}", "thirteen char<answer>a</answer>"), 0.1, id="says why"
        ),
        pytest.param(("<answer>a</answer>",), 0.0, id="answer only"),
        pytest.param((f"Look now: {BOX}", "four<answer>a</answer>"), 0.04, id="short"),
        pytest.param(
            (f"Look at this: {BOX}", f"{BOX}", "and then so<answer>a</answer>"), 0.1, id="two boxes"
        ),
    ],
)
def test_length_as_the_released_code_has_it(written, reward):
    assert text_around_looks(attempt(*written)) == pytest.approx(reward)


def test_length_as_the_paper_has_it():
    assert length(attempt("x" * 100)) == pytest.approx(0.1)
    assert length(attempt("x" * 9000)) == 0.25


@pytest.mark.parametrize(
    ("words", "cut_off", "reward"),
    [
        pytest.param("so a b c a b c", True, -1.0, id="a loop at the limit"),
        pytest.param("so a b c a b c", False, 0.0, id="a loop that ended"),
        pytest.param("a b c a b c d", True, 0.0, id="a loop left behind"),
        pytest.param("no no", True, -1.0, id="a word"),
        pytest.param("", True, 0.0, id="nothing"),
    ],
)
def test_tail_loop(words, cut_off, reward):
    assert tail_loop(attempt(words, cut_off=cut_off)) == reward


@pytest.mark.parametrize(
    ("crops", "regions", "reward"),
    [
        pytest.param(1, (Region(0.0, 0.0, 0.5, 0.5),), 1.0, id="the place"),
        pytest.param(
            1, (Region(0.0, 0.0, 0.5, 0.25), Region(0.6, 0.6, 1, 1)), 0.25, id="half of one"
        ),
        pytest.param(0, (Region(0.0, 0.0, 0.5, 0.5),), 0.0, id="no look"),
        pytest.param(1, (), 0.0, id="nobody knows"),
    ],
)
def test_box_iou(crops, regions, reward):
    assert box_iou(attempt("look", "STOP", crops=crops, regions=regions)) == pytest.approx(reward)


@pytest.mark.parametrize(
    ("written", "reward"),
    [
        pytest.param((BOX, "<answer>a</answer>"), 1.0, id="a box"),
        pytest.param((BOX, '{"bbox_2d": [9, 9, 20, 20]}', "a"), 1.0, id="two are worth as much"),
        pytest.param(("<answer>a</answer>",), 0.0, id="no box"),
        pytest.param((BOX, '{"bbox": [1, 2, 3, 4]}'), 0.0, id="one by another name"),
        pytest.param((BOX, '{"bbox_2d": [1, 2, oops]}'), 0.0, id="one that does not parse"),
        pytest.param((BOX, '{"bbox_2d": [1, 2'), 0.0, id="one cut off"),
    ],
)
def test_the_region_term_as_the_released_code_has_it(written, reward):
    assert readable_boxes(attempt(*written)) == reward


@pytest.mark.parametrize(
    ("mix", "said", "crops", "total"),
    [
        pytest.param(R_GRPO, "<answer>STOP</answer>", 1, 1 + 1 + 0.5 + 0.021, id="right, looked"),
        pytest.param(R_GRPO, "<answer>STOP</answer>", 2, 1 + 1 + 0.5 + 0.021, id="looked twice"),
        pytest.param(R_GRPO, "<answer>GO</answer>", 1, 1 + 0.019, id="wrong: no pay for the look"),
        pytest.param(R_GRPO_CODE, "<answer>STOP</answer>", 0, 1.5, id="code: right, no look"),
        pytest.param(R_GRPO_CODE, f"{BOX}<answer>STOP</answer>", 1, 1 + 0.5 + 0.5, id="code: box"),
        pytest.param(R_GRPO_CODE, f"{BOX}<answer>GO</answer>", 1, 0.5, id="code: wrong"),
        pytest.param(R_GRPO_CODE, "STOP", 1, 1 + 0.04, id="code: no tags, no box"),
    ],
)
def test_r_grpo_pays_for_looks_only_where_right(mix, said, crops, total):
    tried = attempt(*[""] * crops, said, crops=crops)
    assert sum(contributions(results_of(mix, tried)).values()) == pytest.approx(total)


def test_rewards_go_by_source():
    twice, others = WeightedTerm("accuracy", accuracy, weight=2.0), WeightedTerm("n", length)
    mixes = {"signs": [twice], "": [others]}
    signs, other = (attempt("STOP", source=source) for source in ("signs", "maps"))
    assert contributions(route(mixes, signs)) == {"accuracy": 2.0}
    assert set(contributions(route(mixes, other))) == {"n"}
    with pytest.raises(ValueError, match="no rewards for rows from 'maps'"):
        route({"signs": ()}, other)
    with pytest.raises(ValueError, match="names no earlier term"):
        results_of([WeightedTerm("region", length, gate="accuracy")], signs)


@pytest.mark.parametrize(
    ("said", "rewards"),
    [
        pytest.param(np.float32(0.5), {"own": 1.0, "gated": 0.0}, id="numpy"),
        pytest.param(np.array(2), {"own": 4.0, "gated": 0.5}, id="an array"),
        pytest.param(True, {"own": 2.0, "gated": 0.5}, id="a truth"),
        pytest.param(None, {"gated": 0.0}, id="does not apply"),
    ],
)
def test_a_reward_of_ones_own_is_a_number_or_left_out(said, rewards):
    found = contributions(results_of(own(said), attempt("K")))
    assert found == rewards
    assert json.loads(json.dumps(found)) == rewards


@pytest.mark.parametrize(
    "said", [math.nan, math.inf, "0.5", np.array([1, 2]), [0.5]], ids=lambda said: repr(said)
)
def test_what_is_no_number_is_refused_by_the_name_of_its_reward(said):
    with pytest.raises(UserError, match="reward 'own' must be a finite number"):
        results_of(own(said), attempt("K"))


def own(said):
    """A reward that says `said`, and one behind it."""
    gated = WeightedTerm("gated", lambda _: 0.5, gate="own")
    return (WeightedTerm("own", lambda _: said, weight=2.0), gated)


def test_a_reward_of_ones_own_may_lie_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "reward_beside_rows.py").write_text("def brief(attempt):\n    return 0.5\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    own = read_mix("accuracy + 0.2*reward_beside_rows:brief")[1]
    assert own.weight == 0.2
    assert own.term(attempt("K")) == 0.5


@pytest.mark.parametrize(
    ("first", "reward"), [pytest.param(True, 1.0, id="it"), pytest.param(False, 0.0, id="another")]
)
def test_box_iou_pays_for_looks_at_the_first_image(first, reward):
    tried = attempt("look", "STOP", crops=1, regions=(CORNER,))
    (seen,), other = tried.branch.sample.images, Image(PIL.Image.new("RGB", (60, 60), "red"))
    prompt = (user(*((seen, other) if first else (other, seen)), "?"),)
    branch = replace(tried.branch, sample=Sample("x", prompt))
    assert box_iou(replace(tried, branch=branch)) == reward
    assert looked(replace(tried, branch=branch)) == 1.0
