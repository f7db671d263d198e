"""How a branch looked, read off its steps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from mm.answers.extraction import before_answer
from mm.geometry import Region, iou
from mm.strategies.forced_answer import opens_answer
from mm.trace import Branch, Step
from mm.types import Message, Text, Thinking

from .ask_region import NOT_SHOWN
from .regions import regions_of
from .replay import ANSWER, ANSWER_AFTER_THOUGHT

MIN_SHOWN_IOU = 0.3
"""From this intersection over union on, a place counts as shown.

Perfect boxes reach 0.59 at most under the square rule, whose crops have a margin. Where `tiny` is
shown a letter's object displaced and widened step by step, it reads 99 % of the letters from 0.3
on, 68 % between 0.2 and 0.3, and 24 % between 0.1 and 0.2.
"""

_BOX = re.compile(r"\{[^{}]*\}|<sot>.*?<eot>")


def looks(branch: Branch) -> int:
    """How many images were shown again, whoever asked."""
    return len(branch.looks)


def calls(branch: Branch) -> int:
    """How often the policy asked to look, in whatever layout, wrong calls included."""
    return len(_observations(branch))


def valid_calls(branch: Branch) -> int:
    """How many of the policy's `calls` got an image."""
    return sum(bool(step.message.visuals) for step in _observations(branch))


def found(branch: Branch, regions: Sequence[Region]) -> int:
    """How many of `regions`, the parts of the first image that must be looked at, were shown."""
    shown = [region for index, region in regions_of(branch) if index == 0]
    return sum(any(iou(region, each) >= MIN_SHOWN_IOU for each in shown) for region in regions)


def replies_to_looks(branch: Branch) -> tuple[Message, ...]:
    """What the policy wrote next after being shown something again, whoever asked."""
    replies: list[Message] = []
    seen = False
    for step in branch.steps:
        if step.sampled and seen:
            replies.append(step.message)
        seen = not step.sampled and (seen or bool(step.message.visuals))
    return tuple(replies)


def is_empty_thought(reply: Message) -> bool:
    """Whether `reply` has no words besides its answer or what asks for the next look."""
    said = "".join(p.text for p in reply.parts if isinstance(p, Text))
    thought = "".join(p.text for p in reply.parts if isinstance(p, Thinking))
    words = _BOX.sub("", said)
    asks = bool(reply.tool_calls) or words != said
    return not (_BOX.sub("", thought) + (words if asks else before_answer(said))).strip()


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
        return bool(message.visuals) or message == NOT_SHOWN
    opened = [(Text(words),) for words in (ANSWER, ANSWER_AFTER_THOUGHT)]
    opening = opens_answer(message) or message.parts in opened
    return message.role == "tool" or (message.role == "assistant" and not opening)
