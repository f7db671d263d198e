"""Which rows a trainer is given."""

import pytest
from training_rows import TEXT, Given

from training.batching.built_rows import BuiltRows
from training.trainers.course import Rows


@pytest.mark.parametrize(
    ("count", "kinds", "most"),
    [
        pytest.param(1000, 2, 500, id="two kinds in turn"),
        pytest.param(1000, 4, 256, id="four"),
        pytest.param(501, 1, 500, id="one too many"),
        pytest.param(3, 1, 500, id="a few"),
    ],
)
def test_of_many_rows_some_are_drawn_of_every_kind(count: int, kinds: int, most: int) -> None:
    numbers = range(count)
    rows = Rows(BuiltRows(Given(TEXT), lambda row: ()), numbers, numbers, [("a",)] * count, numbers)
    drawn = rows.thinned(most)
    assert len(drawn) == min(count, most)
    assert list(drawn.chosen) == sorted(set(drawn.chosen)) == list(drawn.lengths)
    assert {at % kinds for at in drawn.chosen} == {*range(kinds)}
    assert list(rows.thinned(most).chosen) == list(drawn.chosen)
