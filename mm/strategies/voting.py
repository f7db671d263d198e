"""Self-consistency: the answer that most draws agree on (arXiv 2203.11171)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from mm.answers.matching import same_answer
from mm.session import Session, Strategy
from mm.trace import Branch

from .drawing import draws, likelihood
from .single import direct

Weight = Literal["count", "likelihood"]


def vote(
    session: Session,
    *,
    strategy: Strategy = direct,
    n: int = 8,
    weight: Weight = "count",
    temperature: float | None = None,
) -> Branch:
    """Draw `n` answers and return a branch whose answer weighs most among them.

    Answers that the judge finds the same vote together. A draw without an answer does not vote;
    where none has one, the first draw is returned. Ties go to the earliest. Each voting branch is
    scored "vote", the share of all weight that its answer has, from 0 to 1.

    Args:
        strategy: gives each draw.
        weight: "count": each draw weighs 1. "likelihood": the probability of its tokens, their
            geometric mean (the paper's normalized weighted sum, section 3.1); 0 where not known.
        temperature: of the draws; None for the session's.

    Raises:
        UserError: `n` is below 1, or the temperature 0.
        ModelError: the model failed.
    """
    branches = draws(session, strategy=strategy, n=n, temperature=temperature)
    groups = _groups([b for b in branches if b.answer is not None])
    if not groups:
        return branches[0]
    weigh = _one if weight == "count" else _probability
    weights = [sum(map(weigh, group)) for group in groups]
    total = sum(weights)
    for group, share in zip(groups, weights, strict=True):
        for branch in group:
            session.score("vote", share / total if total else 0.0, leaf=branch.leaf)
    return max(groups[weights.index(max(weights))], key=weigh)


def _groups(branches: Sequence[Branch]) -> list[list[Branch]]:
    """Branches whose answers equal their group's first; groups in the order of their first."""
    groups: list[list[Branch]] = []
    for branch in branches:
        choices = branch.sample.choices
        same = (g for g in groups if same_answer(branch.answer, g[0].answer, choices=choices))
        group = next(same, None)
        if group is None:
            groups.append([branch])
        else:
            group.append(branch)
    return groups


def _one(branch: Branch) -> float:
    return 1.0


def _probability(branch: Branch) -> float:
    mean = likelihood(branch)
    return 0.0 if mean is None else math.exp(mean)
