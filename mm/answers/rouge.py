"""How alike two texts are in words (ROUGE, Lin 2004), for free answers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence


def rouge(said: str, right: str) -> float:
    """The mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L, from 0 to 1, over words without stemming."""
    a, b = (re.findall(r"\w+", text.lower()) for text in (said, right))
    if not a or not b:
        return 0.0
    longest = _f1(_common(a, b), len(a), len(b))
    return (_overlap(a, b, 1) + _overlap(a, b, 2) + longest) / 3


def _overlap(said: Sequence[str], right: Sequence[str], n: int) -> float:
    a, b = (Counter(tuple(w[i : i + n]) for i in range(len(w) - n + 1)) for w in (said, right))
    return _f1(sum((a & b).values()), sum(a.values()), sum(b.values()))


def _f1(shared: int, said: int, right: int) -> float:
    return 2 * shared / (said + right) if said + right else 0.0


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = 0
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], before + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]
