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
    answers = [branch.answer for branch in branches]
    weigh = _one if weight == "count" else _probability
    weights = [weigh(branch) for branch in branches]
    groups = agreeing(answers, session.sample.choices)
    if not groups:
        return branches[0]
    of_groups = [sum(weights[at] for at in group) for group in groups]
    total = sum(weights[at] for group in groups for at in group)
    for group, of_group in zip(groups, of_groups, strict=True):
        for at in group:
            session.score("vote", of_group / total if total else 0.0, leaf=branches[at].leaf)
    return branches[max(groups[of_groups.index(max(of_groups))], key=weights.__getitem__)]


def agreeing(answers: Sequence[str | None], choices: Sequence[str] = ()) -> list[list[int]]:
    """The places of answers that equal their group's first, for the judge; groups in the order of
    their first. No answer is in no group."""
    groups: list[list[int]] = []
    for at, answer in enumerate(answers):
        if answer is None:
            continue
        same = (g for g in groups if same_answer(answer, answers[g[0]], choices=choices))
        group = next(same, None)
        if group is None:
            groups.append([at])
        else:
            group.append(at)
    return groups


def _one(branch: Branch) -> float:
    return 1.0


def _probability(branch: Branch) -> float:
    mean = likelihood(branch)
    return 0.0 if mean is None else math.exp(mean)
