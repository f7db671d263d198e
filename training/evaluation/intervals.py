"""How sure a measured share is, and the difference of two on the same items: 95 % intervals."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

Z95 = 1.959963984540054
"""The 97.5 % point of the normal distribution."""


@dataclass(frozen=True)
class Interval:
    """A measured value and where the true one lies in 95 of 100 such measurements."""

    value: float
    low: float
    high: float


def wilson(successes: float, n: float) -> Interval:
    """The share `successes / n` with Wilson's score interval, inside [0, 1].

    Nothing measured (n = 0) is 0 with the interval [0, 1]. Both may be divided by a
    `design_effect`.

    Raises:
        ValueError: not 0 <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be in 0..n, got {successes} of {n}")
    if not n:
        return Interval(0.0, 0.0, 1.0)
    share = successes / n
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Interval(share, low, high)


def design_effect(values: Sequence[float], groups: Sequence[str]) -> float:
    """How many times the variance of the mean of `values` is that of independent ones, at least 1.

    Those of one of `groups` count as one draw (the linearised variance of a mean over clusters).
    Where all values are alike, and nothing tells how much those of a group are, each group is one.
    """
    n, mean = len(values), sum(values) / max(len(values), 1)
    sums, sizes = dict.fromkeys(groups, 0.0), Counter(groups)
    for value, group in zip(values, groups, strict=True):
        sums[group] += value - mean
    if len(sizes) == n:
        return 1.0
    alone = sum((value - mean) ** 2 for value in values) / (n - 1)
    if not alone or len(sizes) == 1:
        return sum(size**2 for size in sizes.values()) / n
    together = sum(each**2 for each in sums.values()) * len(sizes) / (len(sizes) - 1) / n
    return max(together / alone, 1.0)


def design_effect_of_counts(counts: Sequence[tuple[int, int]]) -> float:
    """The `design_effect` of a share whose groups are counted: (right, all) of each, 0 <= right <=
    all. Groups of nothing say nothing.
    """
    known = [(right, n) for right, n in counts if n]
    total = sum(n for _, n in known)
    if len(known) == total:
        return 1.0
    share = sum(right for right, _ in known) / total
    alone = total * share * (1 - share) / (total - 1)
    if not alone or len(known) == 1:
        return sum(n**2 for _, n in known) / total
    squares = sum((right - n * share) ** 2 for right, n in known)
    together = squares * len(known) / (len(known) - 1) / total
    return max(together / alone, 1.0)


def median_interval(values: Sequence[float]) -> Interval:
    """The median of independent `values` between two of them, by the sign test: whatever their
    distribution. Of fewer than 6 the interval goes from the least to the greatest, and holds less
    often.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("the median of no values is not known: give at least one")
    ordered, n = sorted(values), len(values)
    left_out, tail = 0, math.comb(n, 0) + math.comb(n, 1)
    while 40 * tail <= 2**n:  # twice the tail is 5 % at most, in whole numbers of any size
        left_out += 1
        tail += math.comb(n, left_out + 1)
    return Interval(statistics.median(ordered), ordered[left_out], ordered[-1 - left_out])


def widened(interval: Interval, effect: float) -> Interval:
    """`interval` of a difference for a variance that is `effect` times as large, in [-1, 1]."""
    value, times = interval.value, math.sqrt(effect)
    below, above = (interval.low - value) * times, (interval.high - value) * times
    return Interval(value, max(value + below, -1.0), min(value + above, 1.0))


def paired_difference(a: Sequence[bool], b: Sequence[bool]) -> Interval:
    """The share of `a` minus the share of `b`, in [-1, 1]; both name the same items in one order.

    Newcombe's square-and-add interval ("method 10", Statistics in Medicine 17, 1998): Wilson's
    limits of the two shares, joined by how much the items agree. Unlike the normal interval it has
    a width where no pair differs, and unlike a bootstrap it needs no seed. Nothing measured is 0
    with [-1, 1].

    Raises:
        ValueError: the two are not of one length.
    """
    if len(a) != len(b):
        raise ValueError(f"paired results must be of one length, got {len(a)} and {len(b)}")
    if not a:
        return Interval(0.0, -1.0, 1.0)
    first, second = wilson(sum(a), len(a)), wilson(sum(b), len(b))
    difference = first.value - second.value
    phi = _correlation(a, b)
    below = _joined(first.value - first.low, second.high - second.value, phi)
    above = _joined(first.high - first.value, second.value - second.low, phi)
    return Interval(difference, difference - below, difference + above)


def _joined(x: float, y: float, phi: float) -> float:
    return math.sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0))


def _correlation(a: Sequence[bool], b: Sequence[bool]) -> float:
    """Phi of the two; a positive numerator is moved towards 0 by n / 2, as Newcombe does."""
    n, both = len(a), sum(x and y for x, y in zip(a, b, strict=True))
    only_a, only_b = sum(a) - both, sum(b) - both
    neither = n - both - only_a - only_b
    product = both * neither - only_a * only_b
    scale = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    if not scale:
        return 0.0
    return (max(product - n / 2, 0.0) if product > 0 else product) / math.sqrt(scale)
