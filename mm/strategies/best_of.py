"""Best-of-n: the draw that a verifier scores highest."""

from __future__ import annotations

from mm.session import Session, Strategy, Verifier
from mm.trace import Branch

from .drawing import draws, likelihood
from .single import direct
from .verdict import verdict


def best_of(
    session: Session,
    *,
    strategy: Strategy = direct,
    verifier: Verifier = likelihood,
    n: int = 4,
    temperature: float | None = None,
) -> Branch:
    """Draw `n` branches and return the one that the verifier scores highest.

    None (the verifier cannot tell) and NaN lose to any number; ties go to the earliest. Every
    branch keeps its score in the trace, under the verifier's name.

    Args:
        strategy: gives each draw.
        temperature: of the draws; None for the session's.

    Raises:
        UserError: `n` is below 1, or the temperature 0.
        ModelError: the model failed.
    """
    branches = draws(session, strategy=strategy, n=n, temperature=temperature)
    ranks = []
    for branch in branches:
        score = verdict(session, verifier, branch)
        ranks.append((False, 0.0) if score is None else (True, score))
    return branches[ranks.index(max(ranks))]
