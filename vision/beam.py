"""Several ways of looking at once, kept by a verifier's scores (VTS-V, arXiv 2506.07235)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from mm.errors import ModelError, UserError
from mm.session import Session, Verifier
from mm.strategies.drawing import at_once
from mm.strategies.forced_answer import force_answer
from mm.strategies.verdict import verdict
from mm.trace import Branch
from mm.types import ToolCall

from .act import carry_out, offer_actions, requests
from .action_schema import Action
from .look_loop import Observe, Parse, mark_spent, must_answer
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
    actions: Sequence[Action] | None = None,
) -> Branch:
    """Draw several next steps of each way, keep the best by the verifier, until they have answered.

    A step is one reply and what it asks for: regions, as `zoom` shows them, or `actions`. The
    answer of the branch with the highest score is returned; None and NaN lose to any number, ties
    go to the earliest. A step that a sibling has taken already is not scored again. What would look
    on after `max_steps` is refused, and marked `look_loop.SPENT`.

    Args:
        verifier: scores each branch after each step; one with a keyword `vlm` is given the model.
        width: ways that are kept after a step.
        draws: next steps drawn for each.
        max_steps: then what is left must answer.
        temperature: of the draws; None for the session's.
        actions: what is on offer in the place of the zoom tool, as `act` has it.

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
    tools = _offered(session, actions)
    alive, answered, grown = [session], list[Scored](), list[Scored]()
    for number in range(max_steps):
        grown = []
        for fork, ends in _steps(session, alive, draws, heat, tools):
            if number == max_steps - 1 and not ends:
                must_answer(fork, tools.read)
                mark_spent(fork)
                ends = True
            (answered if ends else grown).append((_scored(fork, verifier), fork))
        alive = [fork for _, fork in sorted(grown, key=_score, reverse=True)[:width]]
        if not alive or session.stopped:
            break
    return max(answered or grown, key=_score)[1].branch


class _Tools(NamedTuple):
    """What is on offer: how a reply's calls are read, and what each of them gives."""

    read: Parse[ToolCall | None]
    carry_out: Observe[ToolCall | None]


def _offered(session: Session, actions: Sequence[Action] | None) -> _Tools:
    """Offer the actions, or the zoom tool."""
    if actions is None:
        offer_zoom(session)
        return _Tools(tool_calls, partial(answer_call, shoot=Camera().shoot))
    offer_actions(session, actions)
    return _Tools(partial(requests, actions=actions), partial(carry_out, actions=actions))


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
    session: Session, ways: Sequence[Session], draws: int, heat: float, tools: _Tools
) -> Iterator[tuple[Session, bool]]:
    """Different next steps of each way, and whether each is its answer."""
    taken: list[Session] = []
    with closing(at_once(session, Session.generate, _apart(ways, draws, heat))) as replies:
        for fork, reply in replies:
            step = session.take(fork, fork.branch.leaf)
            if not any(_same(step, other) for other in taken):
                taken.append(step)
                calls = tools.read(step, reply)
                _go_on(step, calls, tools.carry_out)
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


def _go_on(
    fork: Session, calls: Sequence[ToolCall | None], observe: Observe[ToolCall | None]
) -> None:
    """Show what was asked for; open an answer that says nothing."""
    for call in calls:
        if observation := observe(fork, call):
            fork.say(observation)
    if not calls:
        force_answer(fork)


def _scored(fork: Session, verifier: Verifier) -> float:
    score = verdict(fork, verifier)
    return float("-inf") if score is None else score


def _score(scored: Scored) -> float:
    return scored[0]
