"""Items are answered in order, and failures counted; suites and levels by name."""

from __future__ import annotations

import pytest
from evaluation_items import item

import mm
from training.evaluation.controls import Condition
from training.evaluation.evaluate import evaluate
from training.evaluation.tasks import BadTarget, level_named, tabletop_suites
from training.tabletop import Level


def test_a_failing_model_is_counted_and_does_not_stop_the_rest():
    vlm = mm.ScriptedVLM(["K"])
    items = [item("a"), item("b")]
    outcomes = list(evaluate(Condition("direct", mm.direct), items, vlm, threads=1))
    assert [(o.id, o.correct, o.failed) for o in outcomes] == [
        ("a", True, False),
        ("b", False, True),
    ]


def test_items_are_drawn_as_needed_and_outcomes_keep_their_order():
    drawn = []

    def items():
        for i in range(100):
            drawn.append(i)
            yield item(str(i))

    vlm = mm.ScriptedVLM(["K"] * 100)
    outcomes = evaluate(Condition("direct", mm.direct), items(), vlm, threads=2)
    assert [next(outcomes).id for _ in range(3)] == ["0", "1", "2"]
    outcomes.close()
    assert len(drawn) < 10


def test_suites_of_tabletop():
    read, colour = tabletop_suites(["read", "colour"], seed=3, limit=2, level=0)
    assert (read.looking, read.located, colour.looking) == (True, True, False)
    first, again = list(read.items()), list(read.items())
    assert [i.sample.id for i in first] == [i.sample.id for i in again]
    assert [i.sample.images for i in first] == [i.sample.images for i in again]
    assert len(first) == 2


@pytest.mark.parametrize(
    ("level", "expected"),
    [("1", 1), (1, 1), ("Shaded", 1), ("grain", 5)],
)
def test_level_named(level, expected):
    assert level_named(level) == expected


def test_each_task_has_a_level_of_its_own_where_none_is_named():
    suites = tabletop_suites(["read", "nearer"], seed=0, limit=1, level=None)
    tags = [next(iter(suite.items())).sample.tags["level"] for suite in suites]
    assert tags == [int(Level.PERSPECTIVE), int(Level.GRAIN)]


def test_an_unknown_level_is_refused():
    with pytest.raises(BadTarget, match="no level 'hard'"):
        level_named("hard")
