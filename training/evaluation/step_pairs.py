"""Pairs of steps that really happened, at the same place: the one that was right more often wins.

The process side of VTS-V (arXiv 2506.07235, section 3), whose multi-step DPO counts what the model
wrote and nothing that its tools gave. Each side is one message of the model's; the messages before
it, with all their images, are the prompt of both; the tool's reply to it is in neither. How good a
step is, is how many of the answers that followed from it were right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from mm.trace import Branch, Step
from mm.types import Conversation

from .graded_groups import Counts, Pair, is_right


@dataclass(frozen=True)
class Way:
    """A branch as one step a message, the prompt's too, and whether its answer was right."""

    steps: tuple[Step, ...]
    right: bool


@dataclass(frozen=True)
class Sibling:
    """A step that the model wrote, and how often the answers that followed from it were right.

    Attributes:
        before: the messages that it follows, those of its siblings too.
        rate: from 0 to 1.
    """

    before: Conversation
    step: Step
    rate: float

    @property
    def length(self) -> int:
        """In tokens, which servers count too."""
        return self.step.cost.generated_tokens


def step_pairs(group: Sequence[Branch], counts: Counts, per_group: int) -> Iterator[Pair]:
    """Better steps over worse siblings, of one question.

    Those that are furthest apart come first, of these the most alike in length; each step is used
    once, and `per_group` pairs are made at most. A group in which some answers are right but no
    step is better than its sibling is counted.
    """
    pairs = [pair for siblings in _forks(list(map(_way, group))) for pair in _ordered(siblings)]
    pairs.sort(key=lambda pair: (pair[1].rate - pair[0].rate, _apart(*pair)))
    found = _each_once(pairs)[:per_group]
    for number, (better, worse) in enumerate(found):
        counts.chosen.append(better.length)
        counts.rejected.append(worse.length)
        sides = [better.step.message], [worse.step.message]
        yield f"{group[0].sample.id}-{number}", better.before, *sides
    counts.level += not found and 0 < sum(map(is_right, group)) < len(group)


def _way(branch: Branch) -> Way:
    said = [step for step in branch.steps if step.message.role != "system"]
    opening = branch.messages[: len(branch.messages) - len(said)]
    return Way((*map(Step, opening), *said), is_right(branch))


def _forks(ways: Sequence[Way], at: int = 0) -> Iterator[list[Sibling]]:
    """The siblings at each place where ways that are alike up to there go on by different steps.

    `ways` are alike in their first `at` messages. Those that end there have no step to compare.
    """
    going = [way for way in ways if len(way.steps) > at]
    parts = _alike(going, at)
    yield [sibling for part in parts for sibling in _siblings(part, at)]
    for part in parts:
        if len(part) > 1:
            yield from _forks(part, at + 1)


def _alike(ways: Sequence[Way], at: int) -> list[list[Way]]:
    """The ways by what they say at `at`: equal texts, calls and images."""
    parts: list[list[Way]] = []
    for way in ways:
        said = way.steps[at].message
        same = next((part for part in parts if part[0].steps[at].message == said), None)
        if same is None:
            parts.append([way])
        else:
            same.append(way)
    return parts


def _siblings(part: Sequence[Way], at: int) -> list[Sibling]:
    """The step at `at` of ways that all have it; none where the model did not write it whole."""
    step = next((way.steps[at] for way in part if way.steps[at].sampled), None)
    if step is None or step.finish == "length":
        return []
    before = tuple(each.message for each in part[0].steps[:at])
    return [Sibling(before, step, sum(way.right for way in part) / len(part))]


def _ordered(siblings: Sequence[Sibling]) -> Iterator[tuple[Sibling, Sibling]]:
    """Two and two of them, the better one first, but where they are level."""
    for one, other in combinations(siblings, 2):
        if one.rate != other.rate:
            yield (one, other) if one.rate > other.rate else (other, one)


def _apart(one: Sibling, other: Sibling) -> int:
    return abs(one.length - other.length)


def _each_once(pairs: Sequence[tuple[Sibling, Sibling]]) -> list[tuple[Sibling, Sibling]]:
    """The first pairs of which no step is in an earlier one."""
    found: list[tuple[Sibling, Sibling]] = []
    used: set[int] = set()
    for better, worse in pairs:
        if not {id(better), id(worse)} & used:
            used |= {id(better), id(worse)}
            found.append((better, worse))
    return found
