"""Several ways of looking at once, kept by a verifier's scores (VTS-V, arXiv 2506.07235)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

from mm.errors import ModelError, UserError
from mm.session import Session, Verifier
from mm.strategies.drawing import at_once
from mm.strategies.forced_answer import force_answer
from mm.strategies.verdict import verdict
from mm.trace import Branch
from mm.types import ToolCall

from .look_loop import must_answer
from .verifier import asked
from .zoom import Camera, answer_call, offer_zoom
from .zoom_tool import tool_calls

Scored = tuple[float, Session]


def beam(
    session: Session,
    *,
    verifier: Verifier = asked,
    width: int = 2,
    draws: int = 2,
    max_steps: int = 6,
    temperature: float | None = None,
) -> Branch:
    """Draw several next steps of each way, keep the best by the verifier, until they have answered.

    A step is one reply and the regions that it asks to see, as `zoom` shows them. The answer of the
    branch with the highest score is returned; None and NaN lose to any number, ties go to the
    earliest. A step that a sibling has taken already is not scored again.

    Args:
        verifier: scores each branch after each step; one with a keyword `vlm` is given the model.
        width: ways that are kept after a step.
        draws: next steps drawn for each.
        max_steps: then what is left must answer.
        temperature: of the draws; None for the session's.

    Raises:
        UserError: a number is below 1, or the temperature 0, where all draws would be the same.
        ModelError: the model failed, or writes no tool calls.
    """
    sampling = session.sampling
    heat = sampling.temperature if temperature is None else temperature
    _check(width, draws, max_steps, heat)
    if not session.vlm.traits.calls_tools:
        raise ModelError(
            f"{session.vlm.name} writes no tool calls, which beam needs: use best_of(strategy=zoom)"
        )
    offer_zoom(session)
    alive, answered, grown = [session], list[Scored](), list[Scored]()
    for number in range(max_steps):
        grown = []
        for fork, ends in _steps(session, alive, draws, heat):
            if number == max_steps - 1 and not ends:
                must_answer(fork, tool_calls)
                ends = True
            (answered if ends else grown).append((_scored(fork, verifier), fork))
        alive = [fork for _, fork in sorted(grown, key=_score, reverse=True)[:width]]
        if not alive or session.stopped:
            break
    return max(answered or grown, key=_score)[1].branch


def _check(width: int, draws: int, max_steps: int, heat: float) -> None:
    for name, value in (("width", width), ("draws", draws), ("max_steps", max_steps)):
        if value < 1:
            raise UserError(f"{name} must be 1 or more, got {value}")
    if draws > 1 and not heat > 0:
        raise UserError(
            f"temperature must be over 0, got {heat:g}: {draws} draws of a step would be the same; "
            "set --temperature, or temperature=0.7 in the strategy's brackets"
        )


def _steps(
    session: Session, ways: Sequence[Session], draws: int, heat: float
) -> Iterator[tuple[Session, bool]]:
    """Different next steps of each way, and whether each is its answer."""
    taken: list[Session] = []
    with closing(at_once(session, Session.generate, _apart(ways, draws, heat))) as replies:
        for fork, reply in replies:
            step = session.take(fork, fork.branch.leaf)
            if not any(_same(step, other) for other in taken):
                taken.append(step)
                calls = tool_calls(step, reply)
                _go_on(step, calls)
                yield step, not calls
            if session.stopped:
                break


def _apart(ways: Sequence[Session], draws: int, heat: float) -> Iterator[Session]:
    for way in ways:
        for _ in range(draws):
            fork = way.apart()
            fork.sampling = replace(fork.sampling, temperature=heat)
            yield fork


def _same(fork: Session, other: Session) -> bool:
    """Whether one went on from where the other did, and wrote the same."""
    mine, theirs = fork.branch.steps, other.branch.steps
    last = len(mine) - 1
    if len(theirs) <= last or mine[:last] != theirs[:last]:
        return False
    return mine[last].message.parts == theirs[last].message.parts


def _go_on(fork: Session, calls: Sequence[ToolCall | None]) -> None:
    """Show what was asked for; open an answer that says nothing."""
    observe = partial(answer_call, shoot=Camera().shoot)
    for call in calls:
        fork.say(observe(fork, call))
    if not calls:
        force_answer(fork)


def _scored(fork: Session, verifier: Verifier) -> float:
    score = verdict(fork, verifier)
    return float("-inf") if score is None else score


def _score(scored: Scored) -> float:
    return scored[0]
