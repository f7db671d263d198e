"""The record of an answer: a tree of steps.

n samples of one prompt are siblings; a GRPO group is a set of siblings; a DPO pair is two branches
that a verifier separates; a plain chat is the tree with one branch. What is derived is not stored.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import groupby, takewhile
from typing import Literal

from mm.answers.extraction import extract_answer, shown_reply

from .types import (
    Clip,
    Conversation,
    Cost,
    Features,
    Finish,
    Image,
    Latents,
    Message,
    Text,
    Thinking,
    ToolCall,
)

_END_OF_THOUGHT = re.compile(r"</think>|(?=<answer>)")
_writing = threading.Lock()  # paths of one trace may grow in several threads


@dataclass(frozen=True)
class Sample:
    """One problem: its messages, the target (None when it is not known), and what may be answered.

    `choices` closes the question; () leaves it open. `tags` are facts about the sample.
    """

    id: str
    prompt: Conversation
    target: str | None = None
    choices: tuple[str, ...] = ()
    tags: Mapping[str, object] = field(default_factory=dict)

    @property
    def images(self) -> tuple[Image, ...]:
        """The images asked about, whether shown as pixels or from memory."""
        found: list[Image] = []
        features: list[
            Features | Latents
        ] = []  # those of the last image; the same again is another copy
        for seen in (seen for m in self.prompt for seen in m.visuals):
            if isinstance(seen, Image):
                found, features = [*found, seen], []
            elif found and seen.image == found[-1] and seen not in features:
                features.append(seen)
            else:
                found, features = [*found, seen.image], [seen]
        return tuple(found)

    @property
    def clips(self) -> tuple[Clip, ...]:
        """The clips asked about whose frames were not chosen yet."""
        return tuple(clip for m in self.prompt for clip in m.clips)


@dataclass(frozen=True)
class Step:
    """One message of the tree. `parent` is the index of the step before it, None at the root.

    `sampled` marks what the policy wrote: exactly the tokens of these messages train. `finish` says
    how that ended; None where it is not known, or nobody sampled.
    """

    message: Message
    parent: int | None = None
    sampled: bool = False
    logprobs: tuple[float, ...] = field(default=(), repr=False)
    scores: Mapping[str, float | None] = field(default_factory=dict)
    cost: Cost = Cost()
    finish: Finish | None = None


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
    def turn(self) -> Conversation:
        """The assistant's messages since anybody else spoke last."""
        return tuple(step.message for step in self._turn)

    @property
    def text(self) -> str:
        """What the assistant said since anybody else spoke last, thinking and calls left out."""
        said = (text for _, thought, text in _utterances(self._turn) if not thought)
        return "".join(said).strip()

    @property
    def reply(self) -> str:
        """What a person is shown: `text`, without the tags around its answer."""
        return shown_reply(self.text)

    @property
    def answer(self) -> str | None:
        """What is graded: the answer that `text` marks, or all of a short one."""
        return extract_answer(self.text)

    @property
    def finish(self) -> Finish | None:
        """How the last text that the model wrote ended; "length" if any of the reply was cut."""
        said = (s for s, thought, text in _utterances(self._turn) if text.strip() and not thought)
        if any(step.finish == "length" for step in said):
            return "length"
        last = self._last_sampled
        return last.finish if last else None

    @property
    def silence(self) -> str | None:
        """Why there is no reply; None where there is one."""
        last = self._last_sampled
        if self.reply:
            return None
        if last is None:
            return "the model was not asked"
        if last.finish == "cancelled":
            return "stopped before the model replied"
        if last.finish == "length":
            inside = last.message.parts and isinstance(last.message.parts[-1], Thinking)
            where = " in its thought" if inside else ""
            return f"cut at {last.cost.generated_tokens} tokens{where}: allow more (max_tokens)"
        if last.message.tool_calls or self.steps[-1].message.role == "tool":
            return "the model asked to look once more instead of replying"
        return "the model stopped after its thought" if self.thoughts else "the model wrote nothing"

    @property
    def thoughts(self) -> tuple[str, ...]:
        """What the model wrote on the way to its reply, in order: thoughts, words before looks."""
        last = self._turn
        turns = groupby(
            self.steps[: len(self.steps) - len(last)], key=lambda s: s.message.role == "assistant"
        )
        before = [each for own, turn in turns if own for each in _utterances(turn)]
        found = [(step, text) for step, _, text in before]
        found += [(step, text) for step, thought, text in _utterances(last) if thought]
        return tuple(text.strip() for step, text in found if step.sampled and text.strip())

    @property
    def _turn(self) -> tuple[Step, ...]:
        last = takewhile(lambda s: s.message.role == "assistant", reversed(self.steps))
        return tuple(last)[::-1]

    @property
    def _last_sampled(self) -> Step | None:
        return next((s for s in reversed(self.steps) if s.sampled), None)

    @property
    def images(self) -> tuple[Image, ...]:
        """The images shown after the prompt's, in order: crops, drawings."""
        return tuple(image for s in self.steps for image in s.message.images)

    @property
    def looks(self) -> tuple[Image | Features, ...]:
        """What was looked at again, in order, as images or from memory."""
        seen = (seen for s in self.steps for seen in s.message.visuals)
        return tuple(each for each in seen if not isinstance(each, Latents))

    @property
    def cost(self) -> Cost:
        """What all steps of the branch cost together."""
        return reduce(Cost.__add__, (s.cost for s in self.steps), Cost())


@dataclass
class Trace:
    """All that happened while one sample was answered; the only mutable record.

    `settings` is what was chosen for it besides the strategy: the model, the sampling, and budgets
    of images.
    """

    sample: Sample
    strategy: str = ""
    steps: list[Step] = field(default_factory=list)
    chosen: int | None = None
    error: str | None = None
    settings: Mapping[str, object] = field(default_factory=dict)

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

    def graft(self, other: Trace, begun: int) -> int:
        """Append what `other`, a copy of this trace, has from its step `begun` on.

        Returns how much higher the indices of those steps are here.
        """
        with _writing:
            higher = len(self.steps) - begun
            for step in other.steps[begun:]:
                moved = step.parent is not None and step.parent >= begun
                parent = (step.parent or 0) + higher if moved else step.parent
                self.steps.append(replace(step, parent=parent))
            self.sample = other.sample
            self.settings = {**self.settings, **_together(self.settings, other.settings)}
        return higher

    def score(self, index: int, name: str, value: float | None, cost: Cost = Cost()) -> None:
        """Write a verifier's `value` on the step at `index`, and add what it cost to the step's."""
        with _writing:
            step = self.steps[index]
            scores = {**step.scores, name: value}
            self.steps[index] = replace(step, scores=scores, cost=step.cost + cost)

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
        """The branch the strategy chose; the empty one before it chose."""
        return self.branch(self.chosen)

    @property
    def reply(self) -> str:
        return self.best.reply

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


def _divided(text: str) -> tuple[str, str]:
    """What goes on with a thought, and what is said after its end."""
    end = _END_OF_THOUGHT.search(text)
    return (text[: end.start()], text[end.end() :]) if end else (text, "")


def _utterances(steps: Iterable[Step]) -> Iterator[tuple[Step, bool, str]]:
    """The texts of one turn in order, each with its step and whether it is thought.

    A thought that one message left open goes on in those that follow, up to its end or an answer.
    """
    thinking = False
    for step, part in ((s, p) for s in steps for p in s.message.parts):
        if isinstance(part, Thinking):
            thinking = not part.closed
            yield step, True, part.text
        elif isinstance(part, ToolCall):
            thinking = False
        elif isinstance(part, Text):
            thought, said = _divided(part.text) if thinking else ("", part.text)
            thinking = thinking and not _END_OF_THOUGHT.search(part.text)
            yield step, True, thought
            yield step, False, said


def _together(ours: Mapping[str, object], theirs: Mapping[str, object]) -> dict[str, object]:
    """The settings of a copy, with what lists of ours, such as the spans looked at, had before."""
    found = dict(theirs)
    for name, told in theirs.items():
        had = ours.get(name)
        if isinstance(told, list) and isinstance(had, list):
            found[name] = [*had, *(each for each in told if each not in had)]
    return found


def unread(conversation: Conversation, wrote: Callable[[Message], bool]) -> Conversation:
    """The messages after the last one that the model itself `wrote`."""
    written = [i for i, message in enumerate(conversation) if wrote(message)]
    return tuple(conversation[written[-1] + 1 :] if written else conversation)


@dataclass(frozen=True)
class Event:
    """Something an observer may show.

    `kind` is "token" (`text` is the new piece), "step" (`index` is the new step, `message` its
    message), "verdict" (`index` was scored; `text` says what), or "done" (`trace` is complete).
    """

    kind: Literal["token", "step", "verdict", "done"]
    text: str = ""
    index: int | None = None
    message: Message | None = None
    trace: Trace | None = None
