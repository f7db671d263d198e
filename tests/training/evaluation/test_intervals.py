"""Intervals against the examples their authors printed."""

import pytest

from training.evaluation.intervals import (
    Interval,
    design_effect,
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


def test_a_wider_interval_stays_inside():
    wide = widened(Interval(0.5, 0.4, 0.9), 4.0)
    assert (wide.low, wide.high) == pytest.approx((0.3, 1.0))


def test_paired_difference_refuses_unequal_lengths():
    with pytest.raises(ValueError, match="got 2 and 1"):
        paired_difference([True, False], [True])
