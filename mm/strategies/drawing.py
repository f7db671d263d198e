"""Several answers to one question, drawn as siblings of one trace, and simple scores of them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TypeVar

from mm.errors import UserError
from mm.parallel import in_order
from mm.session import Session, Strategy, name_of
from mm.trace import Branch
from mm.types import Sampling
from mm.vlm import Cancelled

Result = TypeVar("Result")


def draws(
    session: Session, *, strategy: Strategy, n: int, temperature: float | None
) -> list[Branch]:
    """`n` branches of `strategy` from here, each with a seed of its own.

    They are made at a time where the model batches them; where somebody watches, one after another.
    The trace has them in order in both cases.

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
    with closing(at_once(session, strategy, _apart(session, sampling, n))) as drawn:
        for fork, branch in drawn:
            branches.append(session.take(fork, branch.leaf).branch)
            if session.stopped:
                break
    return branches


def _apart(session: Session, sampling: Sampling, n: int) -> Iterator[Session]:
    for _ in range(n):
        fork = session.apart()
        fork.sampling = replace(sampling, seed=fork.sampling.seed)
        yield fork


def at_once(
    session: Session, work: Callable[[Session], Result], forks: Iterable[Session]
) -> Generator[tuple[Session, Result]]:
    """`work` of each of `forks`, paths gone apart from `session`, in order, and its result.

    Several at a time where the model batches them, one after another where somebody watches. All go
    apart before the first works, so that none begins with what another has done; but where clips
    are to be opened, which all share, each goes apart when the one before has come back.
    """
    if session.sample.clips:
        yield from _one_by_one(work, forks)
        return
    waiting = list(forks)
    threads = 1 if session.watched else session.vlm.traits.at_once
    if threads == 1:
        yield from _one_by_one(work, waiting)
        return
    done = in_order(partial(_until_stopped, work), waiting, min(threads, len(waiting)))
    with closing(done):
        yield from zip(waiting, done, strict=True)


def _one_by_one(
    work: Callable[[Session], Result], forks: Iterable[Session]
) -> Iterator[tuple[Session, Result]]:
    return ((fork, work(fork)) for fork in forks)


def _until_stopped(
    work: Callable[[Session], Result], fork: Session, cancelled: Cancelled
) -> Result:
    asked = fork.cancel
    fork.cancel = lambda: cancelled() or bool(asked and asked())
    return work(fork)


def likelihood(branch: Branch) -> float | None:
    """Mean log-probability of the tokens that the policy wrote; None where none is known."""
    values = [value for step in branch.steps if step.sampled for value in step.logprobs]
    return sum(values) / len(values) if values else None


def length(branch: Branch) -> float:
    """Minus the number of tokens that were generated: shorter branches score higher."""
    return -float(branch.cost.generated_tokens)
