"""Intervals against the examples their authors printed."""

import pytest

from training.evaluation.intervals import (
    Interval,
    design_effect,
    design_effect_of_counts,
    median_interval,
    paired_difference,
    widened,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        pytest.param(81, 263, 0.2553, 0.3662, id="Newcombe 1998 a"),
        pytest.param(15, 148, 0.0624, 0.1605, id="Newcombe 1998 b"),
        pytest.param(0, 20, 0.0, 0.1611, id="none"),
        pytest.param(1, 29, 0.0061, 0.1718, id="one"),
        pytest.param(20, 20, 0.8389, 1.0, id="all"),
        pytest.param(0, 0, 0.0, 1.0, id="nothing measured"),
    ],
)
def test_wilson(successes, n, low, high):
    interval = wilson(successes, n)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


def test_wilson_refuses_more_successes_than_trials():
    with pytest.raises(ValueError, match="got 3 of 2"):
        wilson(3, 2)


def pairs(both, only_a, only_b, neither):
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


@pytest.mark.parametrize(
    ("table", "value", "low", "high"),
    [
        pytest.param((36, 12, 2, 0), 0.2, 0.0569, 0.3404, id="Newcombe 1998 a"),
        pytest.param((36, 14, 0, 0), 0.28, 0.1528, 0.4167, id="Newcombe 1998 b"),
        pytest.param((1, 1, 7, 12), -0.2857, -0.5069, -0.0256, id="Bentur 2009"),
        pytest.param((1, 7, 1, 12), 0.2857, 0.0256, 0.5069, id="turned around"),
        pytest.param((54, 0, 0, 0), 0.0, -0.0664, 0.0664, id="all right, none differs"),
        pytest.param((0, 0, 0, 54), 0.0, -0.0664, 0.0664, id="all wrong, none differs"),
        pytest.param((0, 10, 0, 0), 1.0, 0.6075, 1.0, id="always"),
        pytest.param((0, 0, 0, 0), 0.0, -1.0, 1.0, id="nothing measured"),
    ],
)
def test_paired_difference(table, value, low, high):
    interval = paired_difference(*pairs(*table))
    got = (interval.value, interval.low, interval.high)
    assert got == pytest.approx((value, low, high), abs=5e-5)


def test_pairing_narrows_the_interval_of_items_that_agree():
    together = paired_difference([True] * 50 + [False] * 50, [True] * 45 + [False] * 55)
    apart = paired_difference([True] * 50 + [False] * 50, [False] * 55 + [True] * 45)
    assert together.high - together.low < (apart.high - apart.low) / 2


@pytest.mark.parametrize(
    ("values", "groups", "effect"),
    [
        pytest.param([1, 0, 1, 0], "abcd", 1.0, id="each alone"),
        pytest.param([1, 1, 0, 0] * 50, [n // 2 for n in range(200)], 2.0, id="two alike"),
        pytest.param([1, 0] * 100, [n // 2 for n in range(200)], 1.0, id="two that differ"),
        pytest.param([1, 1, 1, 1], "aabb", 2.0, id="all alike"),
        pytest.param([1, 0, 1, 0], "aaaa", 4.0, id="one group"),
        pytest.param([], "", 1.0, id="nothing measured"),
    ],
)
def test_questions_of_one_clip_count_for_less(values, groups, effect):
    assert design_effect(values, list(map(str, groups))) == pytest.approx(effect, rel=0.02)


@pytest.mark.parametrize(
    "counts",
    [
        pytest.param([(3, 9), (4, 4), (0, 2), (5, 7)], id="of many sizes"),
        pytest.param([(2, 4), (1, 2), (3, 6)], id="all alike: no less than 1"),
        pytest.param([(3, 3), (1, 1)], id="all right"),
        pytest.param([(0, 3), (0, 1)], id="all wrong"),
        pytest.param([(2, 5)], id="one group"),
        pytest.param([(1, 1), (0, 1)], id="each alone"),
        pytest.param([(1, 1)], id="one of one"),
        pytest.param([(2, 3), (0, 0), (1, 3)], id="a group of nothing"),
        pytest.param([(0, 0)], id="nothing measured"),
    ],
)
def test_counted_groups_have_the_effect_of_their_values(counts):
    values = [int(at < right) for right, n in counts for at in range(n)]
    groups = [str(group) for group, (_, n) in enumerate(counts) for _ in range(n)]
    assert design_effect_of_counts(counts) == pytest.approx(design_effect(values, groups))


@pytest.mark.parametrize(
    ("n", "low", "high"),
    [
        pytest.param(1, 1, 1, id="one"),
        pytest.param(5, 1, 5, id="too few"),
        pytest.param(6, 1, 6, id="six: all of them"),
        pytest.param(8, 1, 8, id="eight: all of them"),
        pytest.param(9, 2, 8, id="nine: but for one on each side"),
        pytest.param(20, 6, 15, id="twenty, as in tables"),
        pytest.param(100, 40, 61, id="a hundred, as in tables"),
        pytest.param(1030, 484, 547, id="more than a float counts"),
    ],
)
def test_the_median_lies_between_two_values(n, low, high):
    interval = median_interval([float(value) for value in reversed(range(1, n + 1))])
    assert interval == Interval((n + 1) / 2, low, high)


def test_the_median_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no values"):
        median_interval([])


def test_a_wider_interval_stays_inside():
    wide = widened(Interval(0.5, 0.4, 0.9), 4.0)
    assert (wide.low, wide.high) == pytest.approx((0.3, 1.0))


def test_paired_difference_refuses_unequal_lengths():
    with pytest.raises(ValueError, match="got 2 and 1"):
        paired_difference([True, False], [True])
