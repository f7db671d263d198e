"""Answers kept while a table is measured: what goes on, and what spoilt files say."""

from __future__ import annotations

import json
import random
import re
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from evaluation_items import item, look_at
from fuzzing import mutated, rounds

import mm
from mm.errors import UserError
from mm.types import Cost
from mm.vlm import Traits
from training.evaluation.collect import FACTS, open_folder
from training.evaluation.controls import Condition
from training.evaluation.evaluate import Outcome
from training.evaluation.resume import ResultLog
from training.evaluation.run import Measured, measure
from training.evaluation.tasks import BadTarget, Suite
from vision import scale
from vision.verifier import asked

OUTCOME = Outcome("q", True, False, Cost(seconds=0.5), verdicts=3, enough=1)


def kept(path: Path) -> bytes:
    """What a run that was stopped leaves at `path`."""
    log = ResultLog(path, {"target": "t"})
    log.add("read", "zoom", OUTCOME)
    log.add("read", "zoom (random)", OUTCOME)
    log.close(done=False)
    return path.read_bytes()


def test_answers_come_back_as_they_were(tmp_path: Path) -> None:
    kept(tmp_path / "a.part")
    log = ResultLog(tmp_path / "a.part", {"target": "t"})
    assert log.outcomes[("read", "zoom")] == [OUTCOME]
    log.close(done=True)


SPOILT, OTHER = "a.part' is spoilt: .*: remove it to", "a.part' holds answers that differ in"
NO_OUTCOME = '{"task": "a", "condition": "b", "outcome": {"cost": {}}}'
LIST_AS_TASK = '{"task": [], "condition": "b", "outcome": {"cost": {}}}'


@pytest.mark.parametrize(
    ("line", "at", "complaint"),
    [
        pytest.param("{", 0, SPOILT, id="facts: no JSON"),
        pytest.param("[]", 0, SPOILT, id="facts: a list"),
        pytest.param("{}", 0, OTHER, id="facts: none"),
        pytest.param(NO_OUTCOME, 0, OTHER, id="facts: another run's"),
        pytest.param("{", 1, SPOILT, id="an outcome: no JSON"),
        pytest.param("[]", 1, SPOILT, id="an outcome: a list"),
        pytest.param("{}", 1, SPOILT, id="an outcome: nothing in it"),
        pytest.param(NO_OUTCOME, 1, SPOILT, id="an outcome: none"),
        pytest.param(LIST_AS_TASK, 1, SPOILT, id="an outcome: a list as task"),
    ],
)
def test_a_spoilt_line_is_named_with_its_file(tmp_path: Path, line, at, complaint) -> None:
    file = tmp_path / "a.part"
    lines = kept(file).decode().splitlines()
    file.write_text("\n".join([*lines[:at], line, *lines[at + 1 :]]) + "\n")
    with pytest.raises(BadTarget, match=complaint) as told:
        ResultLog(file, {"target": "t"})
    assert "\n" not in str(told.value)


def test_any_other_bytes_are_read_or_refused(tmp_path: Path) -> None:
    whole, file = kept(tmp_path / "a.part"), tmp_path / "b.part"
    for seed in range(rounds(60)):
        file.write_bytes(mutated(whole, random.Random(seed)))
        with suppress(UserError):
            ResultLog(file, {"target": "t"}).close(done=False)


@pytest.mark.parametrize(
    ("name", "spoilt", "told"),
    [
        pytest.param(FACTS, "[]", "collected.json' is spoilt: .*: remove it to go on", id="facts"),
        pytest.param(
            "traces.jsonl",
            '{\n{"settings": {}}\n',
            "line 1, is spoilt: .*: remove that",
            id="a line",
        ),
        pytest.param("traces.jsonl", "[]\n", "line 1, is spoilt", id="a list"),
        pytest.param("traces.jsonl", '{"settings": 3}\n', "line 1, is spoilt", id="no settings"),
    ],
)
def test_a_spoilt_folder_of_traces_is_named(tmp_path: Path, name, spoilt, told) -> None:
    open_folder(tmp_path, {"model": "a"})
    (tmp_path / name).write_text(spoilt)
    with pytest.raises(BadTarget, match=told):
        open_folder(tmp_path, {"model": "a"})


def test_a_folder_is_named_in_full(tmp_path: Path) -> None:
    folder = tmp_path / ("long " * 20)
    open_folder(folder, {"model": "a"})
    with pytest.raises(BadTarget, match=re.escape(f"{str(folder)!r} holds traces that differ in")):
        open_folder(folder, {"model": "b"})


def test_any_other_bytes_in_a_folder_of_traces_are_read_or_refused(tmp_path: Path) -> None:
    open_folder(tmp_path, {"model": "a"})
    line = json.dumps({"settings": {"draw": "q 0", "asked": "ab"}}).encode() + b"\n"
    wholes = {FACTS: (tmp_path / FACTS).read_bytes(), "traces.jsonl": 3 * line}
    for seed in range(rounds(60)):
        for name, whole in wholes.items():
            (tmp_path / name).write_bytes(mutated(whole, random.Random(seed)))
            with suppress(UserError):
                open_folder(tmp_path, {"model": "a"})
            (tmp_path / name).write_bytes(whole)


def test_chance_stops_as_often_as_the_strategy_did() -> None:
    """One of three verdicts was enough; a trained verifier's own rate is another."""
    suite = Suite("read", lambda: [item()], 1)
    strategy: Any = partial(scale, tools="zoom", verifier=asked)
    own = Condition("scale", strategy)
    chance = Condition("scale", strategy, "random-stop", {"random-stop": 0.9})
    measured = Measured(results={"read": {own: [OUTCOME]}})
    assert measure([(suite, own), (suite, chance)], mm.ScriptedVLM(["K"] * 20), measured)
    (row,) = [row for row in measured.rows if row["control"] == "random-stop"]
    assert row["rate"] == pytest.approx(0.333333)
    assert all("rate" not in row for row in measured.rows if row["control"] != "random-stop")


LOOKS = [look_at(0, 0, 100, 100), look_at(500, 0, 900, 100)]
THOUGHT = "<think>hm</think>"


@pytest.mark.parametrize(
    ("replies", "scores", "options", "counted"),
    [
        pytest.param([*LOOKS, "K"], [0.1, 0.9], {}, (2, 1), id="the second was enough"),
        pytest.param([*LOOKS, "K"], [0.1, None, None], {}, (1, 0), id="the model ended it"),
        pytest.param(
            [LOOKS[0], THOUGHT, LOOKS[1]], [0.1], {}, (1, 0), id="its answer, opened, was a look"
        ),
        pytest.param([*LOOKS, "K"], [0.1], {"max_steps": 2}, (1, 0), id="the budget ended it"),
        pytest.param(
            [*LOOKS, "K"], [0.0, 0.5, 0.5], {"eps": 0.1}, (2, 1), id="but for that on the question"
        ),
    ],
)
def test_verdicts_are_counted(replies, scores, options, counted) -> None:
    assert verdicts_of(mm.ScriptedVLM(replies), scores, **options) == counted


@pytest.mark.parametrize(
    ("places", "scores", "counted"),
    [
        pytest.param(['{"bbox_2d": [0, 0, 400, 900]}', "?"], [0.1], (1, 0), id="it named none"),
        pytest.param(['{"bbox_2d": [0, 0, 400, 900]}'], [0.9], (1, 1), id="one was enough"),
    ],
)
def test_verdicts_on_a_model_that_is_asked_where_are_counted(places, scores, counted) -> None:
    vlm = mm.ScriptedVLM([*places, "K"], traits=Traits(calls_tools=False))
    assert verdicts_of(vlm, scores) == counted


def verdicts_of(vlm: mm.ScriptedVLM, scores, **options) -> tuple[int, int]:
    """How many verdicts were given and how many ended the looking, by a verifier that says these
    `scores`."""
    said = iter(scores)

    def verifier(branch: mm.Branch) -> float | None:
        return next(said)

    strategy: Any = partial(scale, tools="zoom", verifier=verifier, **options)
    suite, measured = Suite("read", lambda: [item()], 1), Measured()
    condition = Condition("scale", strategy)
    measure([(suite, condition)], vlm, measured)
    (outcome,) = measured.outcomes("read", condition)
    return outcome.verdicts, outcome.enough
