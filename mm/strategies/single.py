"""Strategies that need no tool."""

from __future__ import annotations

from functools import partial

from mm.answers.matching import match_choice
from mm.session import Session, Strategy
from mm.trace import Branch
from mm.types import message

from .forced_answer import force_answer

THINK = (
    "Think first between <think> and </think>, then give the answer between <answer> and </answer>."
)


def direct(session: Session) -> Branch:
    """Ask once; a reply that says nothing is opened for its answer."""
    written = session.generate()
    return session.branch if written.speaks else force_answer(session)


def think(session: Session, *, instruction: str = THINK) -> Branch:
    """Ask once, reasoning before the answer."""
    session.say(message("system", instruction))
    session.generate()
    return force_answer(session)


def _insist(session: Session, *, strategy: Strategy) -> Branch:
    branch = strategy(session)
    choices = session.sample.choices
    if not choices or session.stopped or match_choice(branch.answer, choices) is not None:
        return branch
    unclear = branch.steps[-1:]
    replied = unclear and unclear[0].message.role == "assistant"
    again = session.at(unclear[0].parent if replied else branch.leaf)
    again.choose(choices)
    return again.branch


def insist(strategy: Strategy) -> Strategy:
    """`strategy`, but the likeliest choice in place of a last reply that gives none of them.

    The unclear reply stays in the trace as a branch of its own.
    """
    return partial(_insist, strategy=strategy)


def was_chosen(branch: Branch) -> bool:
    """Whether the branch ends with a choice that was made for the model, as `insist` makes it."""
    last = branch.steps[-1:]
    return bool(last) and not last[0].sampled and last[0].message.text in branch.sample.choices
