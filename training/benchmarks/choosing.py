"""What choosing among K draws of one question is worth: by verifiers, by votes, by chance.

The same draws are chosen among in every way, so all cost as many tokens but for the verdicts.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import stdev

from mm.strategies.voting import agreeing
from training.evaluation.intervals import Z95

SIZES = (1, 2, 4, 8, 16)
"""How many draws are chosen among, where there are so many."""

VOTE = "vote"


@dataclass(frozen=True)
class Judged:
    """A branch's score by each verifier that could tell.

    Attributes:
        right: whether its answer is; of a step, whether what was seen by then was enough.
        step: whether this is the branch as it was before its answer, where it is asked too.
        question, answer, choices: what was asked, and what it answers.
    """

    task: str
    right: bool
    tokens: int
    scores: Mapping[str, float]
    step: bool = False
    question: str = ""
    answer: str | None = None
    choices: tuple[str, ...] = ()


Draws = Sequence[Judged]
Way = Callable[[Draws], float]
"""How much of a right answer it chooses among some draws of one question, from 0 to 1."""


@dataclass(frozen=True)
class Choice:
    """One way to choose among `k` draws.

    Attributes:
        right: the share of right answers over `questions`, from 0 to 1.
        over_vote: that minus the vote's on the same draws, in [-1, 1], with its 95 % interval by
            question.
    """

    by: str
    k: int
    questions: int
    right: float
    over_vote: float
    low: float
    high: float


def curve(found: Draws) -> list[Choice]:
    """For each number of draws, over the questions that have so many: each verifier's choice, the
    votes (each draw counts one, or its score where no score is below 0), the first draw, and `any`,
    which a perfect verifier would reach.

    A question with more draws than `k` counts as the mean over its groups of `k`.
    """
    by_question: dict[str, list[Judged]] = defaultdict(list)
    for each in found:
        if not each.step:
            by_question[each.question].append(each)
    questions = list(by_question.values())
    most = max(map(len, questions), default=0)
    sizes = [k for k in SIZES if k <= most]
    names = sorted({name for draws in questions for draw in draws for name in draw.scores})
    ways: dict[str, Way] = {name: partial(highest, name) for name in names}
    shares = [name for name in names if all(d.scores.get(name, 0.0) >= 0 for d in found)]
    ways |= {f"{VOTE} by {name}": partial(voted, weigh=partial(_share, name)) for name in shares}
    return [each for k in sizes for each in _choices({**ways, **WAYS}, questions, k)]


def highest(name: str, draws: Draws) -> float:
    """Whether the draw with the highest score is right; the earliest of equals, as `best_of`."""
    return float(max(draws, key=lambda draw: draw.scores.get(name, -math.inf)).right)


def voted(draws: Draws, weigh: Callable[[Judged], float]) -> float:
    """Whether the heaviest of the equal answers that weigh most is right, as `vote`."""
    groups = agreeing([draw.answer for draw in draws], draws[0].choices)
    if not groups:
        return 0.0
    best = max(groups, key=lambda group: sum(weigh(draws[at]) for at in group))
    return float(draws[max(best, key=lambda at: weigh(draws[at]))].right)


def _one(draw: Judged) -> float:
    return 1.0


def _share(name: str, draw: Judged) -> float:
    return draw.scores.get(name, 0.0)


def _probability(draw: Judged) -> float:
    return math.exp(draw.scores.get("likelihood", -math.inf))


def _first(draws: Draws) -> float:
    return float(draws[0].right)


def _any(draws: Draws) -> float:
    return float(any(draw.right for draw in draws))


WAYS: Mapping[str, Way] = {
    VOTE: partial(voted, weigh=_one),
    "vote by likelihood": partial(voted, weigh=_probability),
    "first": _first,
    "any": _any,
}


def _choices(ways: Mapping[str, Way], questions: Sequence[Draws], k: int) -> list[Choice]:
    enough = [draws for draws in questions if len(draws) >= k]
    groups = [[d[at : at + k] for at in range(0, len(d) - k + 1, k)] for d in enough]
    found = {by: [sum(map(way, each)) / len(each) for each in groups] for by, way in ways.items()}
    return [_choice(by, k, values, found[VOTE]) for by, values in found.items()]


def _choice(by: str, k: int, values: Sequence[float], votes: Sequence[float]) -> Choice:
    n = len(values)
    over = [value - vote for value, vote in zip(values, votes, strict=True)]
    mean = sum(over) / n
    half = Z95 * stdev(over) / math.sqrt(n) if n > 1 else 1.0
    return Choice(by, k, n, sum(values) / n, mean, mean - half, mean + half)
