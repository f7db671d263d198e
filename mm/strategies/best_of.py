"""Best-of-n: the draw that a verifier scores highest, or the answer whose draws score most."""

from __future__ import annotations

from collections.abc import Sequence

from mm.errors import UserError
from mm.session import Session, Strategy, Verifier
from mm.trace import Branch

from .drawing import draws, likelihood
from .single import direct
from .verdict import verdict
from .voting import agreeing


def best_of(
    session: Session,
    *,
    strategy: Strategy = direct,
    verifier: Verifier = likelihood,
    n: int = 4,
    vote: bool = False,
    temperature: float | None = None,
) -> Branch:
    """Draw `n` branches and return the one that the verifier scores highest.

    None (the verifier cannot tell) and NaN lose to any number; ties go to the earliest. Every
    branch keeps its score in the trace, under the verifier's name.

    Args:
        strategy: gives each draw.
        vote: equal answers add up their scores, and the best branch of the answer with the highest
            sum is returned (the voting verifier of DiVeRSe, arXiv 2206.02336). For verifiers whose
            scores are shares, such as `asked`.
        temperature: of the draws; None for the session's.

    Raises:
        UserError: `n` is below 1, or the temperature 0; with `vote`, a score is below 0.
        ModelError: the model failed.
    """
    branches = draws(session, strategy=strategy, n=n, temperature=temperature)
    scores = [verdict(session, verifier, branch) for branch in branches]
    voting = agreeing([b.answer for b in branches], session.sample.choices) if vote else []
    ranks = [(False, 0.0) if score is None else (True, score) for score in scores]
    places = _elected(voting, scores) if voting else range(len(branches))
    return branches[max(places, key=ranks.__getitem__)]


def _elected(groups: Sequence[Sequence[int]], scores: Sequence[float | None]) -> Sequence[int]:
    """The group with the highest sum of scores; the earliest of equals."""
    if low := [score for score in scores if score is not None and score < 0]:
        raise UserError(
            f"best_of(vote=true) adds scores up, which must be 0 or more, got {low[0]:g}: give a "
            "verifier whose scores are shares, such as --verifier asked"
        )
    return max(groups, key=lambda group: sum(scores[at] or 0.0 for at in group))
