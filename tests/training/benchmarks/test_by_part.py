"""How questions fall apart into parts."""

from __future__ import annotations

import pytest

from training.benchmarks.by_part import CLOSE, PARTS, THIRDS, items_of
from training.tabletop.motion import SECONDS


@pytest.mark.parametrize("task", list(PARTS))
def test_each_part_has_as_many_questions(task: str) -> None:
    found = items_of(task, seed=0, limit=3)
    assert {name: len(items) for name, items in found.items()} == dict.fromkeys(
        PARTS[task].names, 3
    )
    for name, items in found.items():
        assert all(PARTS[task].of(item.sample) == name for item in items)


def test_thirds_are_where_one_must_look() -> None:
    for number, name in enumerate(THIRDS):
        for item in items_of("moment", seed=0, limit=3)[name]:
            assert item.span is not None
            assert item.span[1] > number * SECONDS / 3
            assert item.span[0] < (number + 1) * SECONDS / 3


def test_close_things_have_close_depths() -> None:
    for item in items_of("nearer", seed=0, limit=3)[CLOSE]:
        assert item.depths is not None
        assert item.depths(0).kind == "metric"
