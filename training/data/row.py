"""One row of a data set, its images open: what is asked, what to write, what is right."""

from __future__ import annotations

from dataclasses import dataclass

from mm.geometry import Region
from mm.types import Conversation

PROBLEM_TYPES = ("multiple choice", "numerical", "OCR", "free-form", "regression")
"""How an answer is weighed, as VideoRFT's rows say it."""


@dataclass(frozen=True)
class Row:
    """A conversation to learn from, to prefer by, or to try.

    Attributes:
        id: unique in its file; an error about the row begins with it.
        messages: the whole conversation where it is supervised (SFT); the prompt, up to what
            is asked, where there is a pair (DPO) or only an answer (GRPO, evaluation).
        untrained: indices of `messages` that do not train although the assistant wrote them.
        chosen: how `messages` goes on well; empty where there is no pair. Its turns may hold
            images and tools' observations of its own.
        rejected: how it goes on badly.
        answer: what is right, for rewards and evaluation; None where only a reply is known.
        choices: the answers to choose from.
        regions: where in the first image the answer is to be seen.
        source: names the set it came from, for a router of rewards.
        problem_type: one of `PROBLEM_TYPES`; "" where the row does not say.
        depth: the file with the depth map of the first image; "" for none.
    """

    id: str
    messages: Conversation
    untrained: frozenset[int] = frozenset()
    chosen: Conversation = ()
    rejected: Conversation = ()
    answer: str | None = None
    choices: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()
    source: str = ""
    depth: str = ""
    problem_type: str = ""

    @property
    def prompt(self) -> Conversation:
        """What is asked: up to the last user message; () where no user speaks.

        Where nothing trains and a tool spoke last, all messages are the prompt.
        """
        asked = [i for i, message in enumerate(self.messages) if message.role == "user"]
        if asked and self.messages[-1].role == "tool" and not self.trains:
            return self.messages
        return self.messages[: asked[-1] + 1] if asked else ()

    @property
    def trains(self) -> bool:
        """Whether the assistant wrote any of `messages` that trains."""
        spoken = {i for i, message in enumerate(self.messages) if message.role == "assistant"}
        return bool(spoken - self.untrained)
