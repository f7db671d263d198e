"""How questions fall apart into parts."""

from __future__ import annotations

from collections import Counter

import pytest

from mm.scripted import ScriptedVLM
from mm.strategies.single import direct
from training.benchmarks.by_part import CLOSE, FAR, PARTS, THIRDS, items_of, outcomes_of
from training.evaluation.controls import Condition
from training.tabletop.motion import SECONDS


@pytest.mark.parametrize("task", list(PARTS))
def test_each_part_has_as_many_questions(task: str) -> None:
    found = list(items_of(task, seed=0, limit=3))
    assert Counter(part for part, _ in found) == dict.fromkeys(PARTS[task].names, 3)
    assert all(PARTS[task].of(item.sample) == part for part, item in found)


def test_thirds_are_where_one_must_look() -> None:
    for part, item in items_of("moment", seed=0, limit=3):
        number = THIRDS.index(part)
        assert item.span is not None
        assert item.span[1] > number * SECONDS / 3
        assert item.span[0] < (number + 1) * SECONDS / 3


def test_outcomes_come_by_part() -> None:
    items = list(items_of("nearer", seed=0, limit=2))
    right = [str(item.sample.target) for _, item in items]
    found = outcomes_of(Condition("direct", direct), items, ScriptedVLM(right), threads=1)
    assert {name: [each.correct for each in outcomes] for name, outcomes in found.items()} == {
        CLOSE: [True, True],
        FAR: [True, True],
    }
