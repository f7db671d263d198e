"""Areas, thresholds and splits of verifiers, on numbers whose answers are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.cli.bench_verifier import _threshold
from training.benchmarks.choosing import Judged
from training.benchmarks.verifier_report import (
    accuracy,
    auc,
    calibration_split,
    lines,
    matched,
    reliability_plot,
    threshold,
    write_threshold,
)
from vision.verifier import Trained, read_verifier, write_verifier


def made(right: str, *, tokens: int = 10, task: str = "read") -> list[Judged]:
    """Scores rising from 0 in tenths; "+" is right and "-" wrong."""
    return [Judged(task, mark == "+", tokens, {"s": n / 10}) for n, mark in enumerate(right)]


@pytest.mark.parametrize(
    ("good", "bad", "area"),
    [([2, 3], [0, 1], 1.0), ([0], [1], 0.0), ([1], [1], 0.5), ([1, 3], [2], 0.5)],
    ids=["apart", "turned round", "tied", "mixed"],
)
def test_the_area(good, bad, area: float) -> None:
    assert auc(good, bad) == area


def test_areas_are_taken_within_a_task_and_at_a_length() -> None:
    easy = [Judged("easy", True, 10, {"s": 0.9}), Judged("easy", False, 40, {"s": 0.8})]
    hard = [Judged("hard", True, 10, {"s": 0.2}), Judged("hard", False, 10, {"s": 0.1})]
    (line,) = lines([*easy, *hard])
    assert (line.auc, line.at_length, line.n, line.wrong) == (1.0, 1.0, 4, 2)
    (line,) = lines(made("++"))
    assert (line.auc, line.at_length) == (None, None)


def test_a_verifier_that_cannot_tell_of_the_first_branch_has_a_line() -> None:
    first, *others = made("+-+")
    found = [replace(first, scores={}), *(replace(o, scores={"s": 1.0, "t": 0.5}) for o in others)]
    assert [(line.verifier, line.n) for line in lines(found)] == [("s", 2), ("t", 2)]


@pytest.mark.parametrize(
    ("marks", "at", "share"),
    [("--++", 0.15, 1.0), ("-+-++", 0.05, 0.8), ("++++", 0.0, 1.0)],
    ids=["apart", "one astray", "all right"],
)
def test_the_threshold_sorts_most(marks: str, at: float, share: float) -> None:
    found = made(marks)
    assert threshold("s", found) == pytest.approx(at)
    assert accuracy("s", found, threshold("s", found)) == pytest.approx(share)


def test_a_threshold_is_kept_with_the_verifier(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    controls = {"random-stop": 0.5, "length": -12.0}
    write_verifier(tmp_path, Trained(tools="zoom"))
    write_threshold(tmp_path, 0.25, controls)
    facts = {"kind": "score", "threshold": 0.25, "matched": controls, "tools": "zoom"}
    assert json.loads((tmp_path / "verifier.json").read_text()) == facts
    trained = read_verifier(tmp_path)
    assert (trained.threshold, trained.matched) == (0.25, controls)


@pytest.mark.parametrize(
    ("at", "controls"),
    [
        pytest.param(2.0, {"random-stop": 0.5, "length": -2.0}, id="half"),
        pytest.param(9.0, {"random-stop": 0.0, "length": -1.0}, id="never: the nearest there is"),
        pytest.param(0.0, {"random-stop": 1.0, "length": -4.0}, id="always"),
    ],
)
def test_controls_say_enough_as_often(at: float, controls: dict[str, float]) -> None:
    found = [
        Judged("read", True, n, {"s": float(n - 1), "length": -float(n)}) for n in (4, 2, 1, 3)
    ]
    assert matched("s", found, at) == controls


def test_steps_are_counted_apart_from_answers() -> None:
    steps = [
        Judged("read", enough, 5, {"s": at}, step=True) for enough, at in ((True, 1), (False, 0))
    ]
    (line,) = lines([*made("-+"), *steps, *made("+-")])
    assert (line.n, line.wrong, line.steps) == (4, 2, 1.0)


@pytest.mark.parametrize("kind", ["score", "logratio"])
def test_a_threshold_leaves_the_kind_as_it_was(tmp_path: Path, kind: Any) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    write_verifier(tmp_path, Trained(kind))
    write_threshold(tmp_path, 0.25, {})
    assert read_verifier(tmp_path) == Trained(kind, 0.25)


def test_the_draws_of_a_question_stay_together() -> None:
    found = [
        Judged("read", True, 1, {"s": 0.5}, question=f"q{n}") for n in range(9) for _ in range(4)
    ]
    halves = calibration_split(found)
    one, other = ({each.question for each in half} for half in halves)
    assert not one & other
    assert [len(half) for half in halves] == [20, 16]


def test_a_threshold_that_no_other_answer_tests_says_so(capsys) -> None:
    found = [replace(each, question="q") for each in made("-+")]
    assert _threshold("s", found)[0] == pytest.approx(0.05)
    assert "on is tried on no other answers: collect traces of two or" in capsys.readouterr().out
    assert accuracy("s", [], 0.5) is None


def test_halves_share_nothing_and_a_plot_is_drawn(tmp_path: Path) -> None:
    found = [replace(each, question=f"q{n}") for n, each in enumerate(made("-+" * 4))]
    one, other = calibration_split(found)
    assert len(one) == len(other) == 4
    assert not {id(each) for each in one} & {id(each) for each in other}
    reliability_plot("s", found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
