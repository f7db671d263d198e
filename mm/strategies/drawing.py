"""Several answers to one question, drawn as siblings of one trace, and simple scores of them."""

from __future__ import annotations

from dataclasses import replace

from mm.errors import UserError
from mm.session import Session, Strategy, name_of
from mm.trace import Branch


def draws(
    session: Session, *, strategy: Strategy, n: int, temperature: float | None
) -> list[Branch]:
    """`n` branches of `strategy` from here, one after another, each with a seed of its own.

    Fewer once the session is asked to stop, but one at least.

    Args:
        temperature: of the draws; None for the session's.

    Raises:
        UserError: `n` is below 1, or the temperature 0, where all draws would be the same.
        ModelError: the model failed.
    """
    sampling = session.sampling
    if temperature is not None:
        sampling = replace(sampling, temperature=temperature)
    if n < 1:
        raise UserError(f"n must be 1 or more draws, got {n}")
    if not sampling.temperature > 0:
        raise UserError(
            f"temperature must be over 0, got {sampling.temperature:g}: {n} draws of "
            f"{name_of(strategy)} would be the same; set --temperature, or temperature=0.7 in the "
            "strategy's brackets"
        )
    branches: list[Branch] = []
    while len(branches) < n and not (branches and session.stopped):
        fork = session.fork()
        fork.sampling = replace(sampling, seed=fork.sampling.seed)
        branches.append(strategy(fork))
    return branches


def likelihood(branch: Branch) -> float | None:
    """Mean log-probability of the tokens that the policy wrote; None where none is known."""
    values = [value for step in branch.steps if step.sampled for value in step.logprobs]
    return sum(values) / len(values) if values else None


def length(branch: Branch) -> float:
    """Minus the number of tokens that were generated: shorter branches score higher."""
    return -float(branch.cost.generated_tokens)
