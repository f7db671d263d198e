"""Strategies that need no tool."""

from __future__ import annotations

from functools import partial

from .answers import match_choice
from .session import Session, Strategy
from .trace import Branch
from .types import message

THINK = "Think first between <think> and </think>, then give the answer between <answer> and </answer>."


def direct(session: Session) -> Branch:
    """Ask once."""
    session.generate()
    return session.branch


def think(session: Session, *, instruction: str = THINK) -> Branch:
    """Ask once, reasoning before the answer."""
    session.say(message("system", instruction))
    session.generate()
    return session.branch


def _insist(session: Session, *, strategy: Strategy) -> Branch:
    branch = strategy(session)
    choices = session.sample.choices
    if choices and match_choice(branch.answer, choices) is None:
        session.choose(choices)
        return session.branch
    return branch


def insist(strategy: Strategy) -> Strategy:
    """`strategy`, but where it gives none of the sample's choices, the likeliest choice by `score`."""
    return partial(_insist, strategy=strategy)
