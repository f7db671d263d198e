"""Graded traces by their questions, and what became of them: what pairs are made from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from mm.session import name_of
from mm.strategies.single import was_chosen
from mm.trace import Branch, Step, Trace
from mm.types import Clip, Image, Message, Visual
from vision.actions import terminate
from vision.look_loop import SPENT

from .collect import RIGHT

Pair = tuple[str, Sequence[Message], Sequence[Message], Sequence[Message]]
"""A name, what both sides share, the chosen side, the rejected one."""


@dataclass
class Counts:
    """What became of the groups, one a question, and how long both sides are, in tokens."""

    pairs: int = 0
    mixed: int = 0
    all_right: int = 0
    all_wrong: int = 0
    tied: int = 0
    level: int = 0
    left_out: int = 0
    forced: int = 0
    unnamed: int = 0
    chosen: list[int] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For people."""
        groups = f"{self.mixed} mixed, {self.all_right} all right, {self.all_wrong} all wrong"
        reasons = {
            "budget spent, reply cut or empty, no grade, or images inside a reply": self.left_out,
            "not all of it the model's own words, such as a choice made for it": self.forced,
            "clips, images from memory: no row can name them": self.unnamed,
        }
        out = [f"{count} traces left out ({why})" for why, count in reasons.items() if count]
        tied = f"{self.tied} pairs tied (one side is how the other begins)"
        level = f"{self.level} mixed questions tied (no step was right more often than its sibling)"
        return [
            f"{self.pairs:,} pairs from questions: {groups}",
            *(out or ["0 traces left out"]),
            *([tied] if self.tied else []),
            *([level] if self.level else []),
            f"tokens written, mean: chosen {_mean(self.chosen)}, rejected {_mean(self.rejected)}",
        ]


def graded_groups(
    traces: Iterable[Trace], counts: Counts, own: Callable[[Branch], bool]
) -> list[list[Branch]]:
    """The chosen branches of `traces` that teach something, by question; the others are counted.

    Args:
        own: whether enough of a branch is the model's own words.
    """
    groups: dict[str, list[Branch]] = defaultdict(list)
    for trace in traces:
        branch = trace.best
        known = branch.steps and RIGHT in branch.steps[-1].scores
        spent = branch.finish == "length" or any(SPENT in step.scores for step in branch.steps)
        said = [m for m in branch.messages if m.role == "assistant"]
        unfit = any(m.visuals or not m.parts for m in said)
        if not known or spent or unfit:
            counts.left_out += 1
        elif not own(branch):
            counts.forced += 1
        elif not all(map(_can_be_named, branch.messages)):
            counts.unnamed += 1
        else:
            groups[trace.sample.id].append(branch)
    for group in groups.values():
        _count_group(group, counts)
    return list(groups.values())


def wrote_answer(branch: Branch) -> bool:
    """Whether the model wrote the answer, and no choice was made for it (`insist`)."""
    return not was_chosen(branch)


def wrote_all(branch: Branch) -> bool:
    """Whether the model wrote all that the assistant says."""
    return all(step.sampled for step in branch.steps if step.message.role == "assistant")


def wrote_steps(branch: Branch) -> bool:
    """Whether the model wrote all that the assistant says, but for an answer that a call of
    `terminate` gave and that is said once more as text."""
    *earlier, last = branch.steps
    if not wrote_answer(branch) or (not last.sampled and not _ends(earlier[-1:])):
        return False
    return all(step.sampled for step in earlier if step.message.role == "assistant")


def _ends(steps: Sequence[Step]) -> bool:
    """Whether there is one that calls `terminate`."""
    return any(call.name == name_of(terminate) for s in steps for call in s.message.tool_calls)


def is_right(branch: Branch) -> bool:
    """Whether the branch's answer was graded as right."""
    return branch.steps[-1].scores.get(RIGHT) == 1.0


def _can_be_named(message: Message) -> bool:
    """Whether a row has a way to write all that the message shows."""
    shown = [part for part in message.parts if isinstance(part, Visual | Clip)]
    return all(isinstance(part, Image) for part in shown)


def _count_group(group: Sequence[Branch], counts: Counts) -> None:
    right = sum(map(is_right, group))
    counts.mixed += 0 < right < len(group)
    counts.all_right += right == len(group)
    counts.all_wrong += right == 0


def _mean(lengths: Sequence[int]) -> str:
    return f"{sum(lengths) / len(lengths):.1f}" if lengths else "none"
