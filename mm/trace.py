"""The record of an answer: a tree of steps.

n samples of one prompt are siblings; a GRPO group is a set of siblings; a DPO pair is two branches
that a verifier separates; a plain chat is the tree with one branch. What is derived is not stored.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import reduce

from mm.answers.extraction import extract_answer

from .types import Conversation, Cost, Features, Image, Message

_writing = threading.Lock()  # paths of one trace may grow in several threads


@dataclass(frozen=True)
class Sample:
    """One problem: its messages, what is right (None when nobody knows), and what may be answered.

    `choices` closes the question; () leaves it open. `tags` are facts about the sample.
    """

    id: str
    prompt: Conversation
    target: str | None = None
    choices: tuple[str, ...] = ()
    tags: Mapping[str, object] = field(default_factory=dict)

    @property
    def images(self) -> tuple[Image, ...]:
        """The pictures asked about, whether shown as pixels or from memory."""
        found: list[Image] = []
        for seen in (seen for m in self.prompt for seen in m.visuals):
            if isinstance(seen, Image):
                found.append(seen)
            elif seen.image not in found:
                found.append(seen.image)
        return tuple(found)


@dataclass(frozen=True)
class Step:
    """One message of the tree. `parent` is the index of the step before it, None at the root.

    `sampled` marks what the policy wrote: exactly the tokens of these messages train.
    """

    message: Message
    parent: int | None = None
    sampled: bool = False
    logprobs: tuple[float, ...] = field(default=(), repr=False)
    scores: Mapping[str, float | None] = field(default_factory=dict)
    cost: Cost = Cost()


@dataclass(frozen=True)
class Branch:
    """Root to leaf: one thing to score, one row to train on."""

    sample: Sample
    steps: tuple[Step, ...]
    leaf: int | None

    @property
    def messages(self) -> Conversation:
        """System steps, the prompt, then everything else, as the model sees it."""
        said = [s.message for s in self.steps]
        system = tuple(m for m in said if m.role == "system")
        return (*system, *self.sample.prompt, *(m for m in said if m.role != "system"))

    @property
    def text(self) -> str:
        """What the assistant said since anybody else spoke last, thinking and calls left out."""
        spoken: list[str] = []
        for step in reversed(self.steps):
            if step.message.role != "assistant":
                break
            spoken.append(step.message.text)
        return "".join(reversed(spoken)).strip()

    @property
    def answer(self) -> str | None:
        """The answer in the branch's last reply; None where it gives none."""
        return extract_answer(self.text)

    @property
    def images(self) -> tuple[Image, ...]:
        """The pictures shown after the prompt's, in order: crops, drawings."""
        return tuple(image for s in self.steps for image in s.message.images)

    @property
    def looks(self) -> tuple[Image | Features, ...]:
        """What was looked at again, in order, as pictures or from memory."""
        return tuple(seen for s in self.steps for seen in s.message.visuals)

    @property
    def cost(self) -> Cost:
        """What all steps of the branch cost together."""
        return reduce(Cost.__add__, (s.cost for s in self.steps), Cost())


@dataclass
class Trace:
    """All that happened while one sample was answered; the only mutable record."""

    sample: Sample
    strategy: str = ""
    steps: list[Step] = field(default_factory=list)
    chosen: int | None = None
    error: str | None = None

    def add(self, step: Step) -> int:
        """Append `step` and return its index.

        Raises:
            ValueError: its parent is not in the trace.
        """
        if step.parent is not None and not 0 <= step.parent < len(self.steps):
            raise ValueError(f"parent {step.parent} is not one of {len(self.steps)} steps")
        with _writing:
            self.steps.append(step)
            return len(self.steps) - 1

    def score(self, index: int, name: str, value: float | None) -> None:
        """Write a verifier's `value` on the step at `index`."""
        with _writing:
            step = self.steps[index]
            self.steps[index] = replace(step, scores={**step.scores, name: value})

    def branch(self, leaf: int | None) -> Branch:
        """The path from the root to the step at `leaf`; None is the prompt alone."""
        return Branch(self.sample, tuple(self.steps[i] for i in self._path(leaf)), leaf)

    @property
    def branches(self) -> tuple[Branch, ...]:
        """One for each leaf, in the order they were begun."""
        parents = {s.parent for s in self.steps}
        leaves = [i for i in range(len(self.steps)) if i not in parents]
        return tuple(self.branch(leaf) for leaf in sorted(leaves, key=self._path))

    @property
    def best(self) -> Branch:
        """The branch the strategy stands by; the empty one before it chose."""
        return self.branch(self.chosen)

    @property
    def answer(self) -> str | None:
        """The best branch's answer."""
        return self.best.answer

    @property
    def images(self) -> tuple[Image, ...]:
        """The images of the best branch, the question's first."""
        return self.best.images

    @property
    def cost(self) -> Cost:
        """Of all branches together."""
        return reduce(Cost.__add__, (s.cost for s in self.steps), Cost())

    def _path(self, leaf: int | None) -> list[int]:
        path: list[int] = []
        while leaf is not None:
            path.append(leaf)
            leaf = self.steps[leaf].parent
        return path[::-1]
