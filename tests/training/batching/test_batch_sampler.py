"""Batches by tokens: every row once an epoch, none too large, none of one kind only."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as some

from training.batching.batch_sampler import TokenBatches

LENGTHS = some.lists(some.integers(1, 300), min_size=1, max_size=80)


@given(lengths=LENGTHS, budget=some.integers(1, 600), seed=some.integers(0, 3))
def test_every_row_comes_once_and_batches_fit(lengths, budget, seed):
    batches = list(TokenBatches(lengths, budget, seed=seed, rows=7))
    assert sorted(chain(*batches)) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(lengths[i] for i in batch)
        assert padded <= budget or len(batch) == 1
        assert len(batch) <= 7


@given(lengths=LENGTHS, together=some.integers(1, 4))
def test_the_batches_of_a_step_have_as_many_rows(lengths, together):
    batches = TokenBatches(lengths, 300, together=together)
    for epoch in range(3):
        batches.set_epoch(epoch)
        found = list(batches)
        assert len(found) == len(batches)
        assert len(found) % together == 0
        for at in range(0, len(found), together):
            assert len({len(batch) for batch in found[at : at + together]}) == 1
        for batch in found:
            assert max(lengths[i] for i in batch) * len(batch) <= 300 or len(batch) == 1
        assert set(chain(*found)) == set(range(len(lengths))) or epoch


def test_an_epoch_is_a_function_of_its_number():
    lengths = [10, 20, 30] * 40
    one, two = (TokenBatches(lengths, 200, seed=1) for _ in range(2))
    assert list(one) == list(two)
    two.set_epoch(1)
    assert list(one) != list(two)


def test_lengths_are_grouped_without_telling_kinds_apart():
    """Rows four times as long are apart; rows a fifth longer stand in the same batches."""
    lengths = [40, 48, 160, 192] * 200
    batches = list(TokenBatches(lengths, 2000))
    padded = sum(len(b) * max(lengths[i] for i in b) for b in batches)
    assert padded < 1.25 * sum(lengths)
    short = [b for b in batches if max(lengths[i] for i in b) < 100]
    mixed = [b for b in short if 0.2 < sum(lengths[i] == 40 for i in b) / len(b) < 0.8]
    assert len(mixed) > len(short) / 2


def test_an_order_without_shuffling_is_the_same_each_epoch():
    batches = TokenBatches([3, 1, 2], 3, shuffle=False)
    assert list(batches) == [[1], [2], [0]]
    batches.set_epoch(4)
    assert list(batches) == [[1], [2], [0]]


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1 token, got 0"):
        TokenBatches([1], 0)
