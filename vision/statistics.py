"""How a branch looked, read off its steps."""

from __future__ import annotations

from itertools import pairwise

from mm.trace import Branch, Step

from .where import NOT_SHOWN
from .zoom import ANSWER


def looks(branch: Branch) -> int:
    """How many pictures were shown again, whoever asked."""
    return len(branch.looks)


def calls(branch: Branch) -> int:
    """How often the policy asked to look, in whatever layout, wrong calls included."""
    return len(_observations(branch))


def valid_calls(branch: Branch) -> int:
    """How many of the policy's `calls` got a picture."""
    return sum(bool(step.message.seen) for step in _observations(branch))


def _observations(branch: Branch) -> list[Step]:
    """The steps that answer a request the policy itself made."""
    found: list[Step] = []
    for before, step in pairwise(branch.steps):
        follows = before.sampled or (before in found and step.message.role == "tool")
        if follows and not step.sampled and _observes(step):
            found.append(step)
    return found


def _observes(step: Step) -> bool:
    message = step.message
    if message.role == "user":
        return bool(message.seen) or message == NOT_SHOWN
    return message.role == "tool" or (message.role == "assistant" and message != ANSWER)
