"""Asks the questions of one condition, several at a time, and yields one outcome for each."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

from mm.parallel import in_order
from mm.samples import instructed
from mm.session import run
from mm.strategies.single import was_chosen
from mm.trace import Branch, Sample, Trace
from mm.types import Cost, Sampling
from mm.vlm import VLM, Cancelled
from vision import look_stats
from vision.look_loop import SPENT
from vision.scaling import ENDED_BY_VERDICT

from .controls import Condition
from .grade import grade
from .tasks import Item


@dataclass(frozen=True)
class Outcome:
    """One graded answer: the cost of all that was tried, the looks of the branch that was chosen.

    Attributes:
        failed: the model failed, or gave nothing that could be right; it is never `correct`.
        error: why the model failed.
        about: the images and clips that were asked about: questions that share them are no
            independent ones; "" for none.
        wanted, found: regions that one must look at, and those of them that were shown.
        verdicts, enough: verdicts on the way, and those that ended the looking.
        replies, empty: what the policy wrote after being shown something, and how much of it was no
            more than an answer or the next call.
    """

    id: str
    correct: bool
    failed: bool
    cost: Cost
    looks: int = 0
    calls: int = 0
    valid_calls: int = 0
    wanted: int = 0
    found: int = 0
    replies: int = 0
    empty: int = 0
    error: str | None = None
    verdicts: int = 0
    enough: int = 0
    about: str = ""


Watch = Callable[[Item, Trace, Outcome], None]
"""Is given every answer with its images, before they are freed."""


def evaluate(
    condition: Condition,
    items: Iterable[Item],
    vlm: VLM,
    *,
    seed: int = 0,
    threads: int = 4,
    watch: Watch | None = None,
    sampling: Sampling = Sampling(),
    system: str | None = None,
) -> Generator[Outcome, None, None]:
    """Outcomes of `condition` on `items` in their order, up to `threads` at a time, greedily
    unless `sampling` says otherwise; `system` is a message before every question.

    Items are drawn as they are needed. Closing the iterator, or Ctrl-C, stops the model within a
    token.
    """
    answer = partial(_answer, condition, vlm, replace(sampling, seed=seed), system)
    with closing(in_order(answer, items, threads)) as answers:
        for item, trace, outcome in answers:
            if watch:
                watch(item, trace, outcome)
            yield outcome


def weigh(trace: Trace, item: Item, vlm: VLM) -> Outcome:
    """The outcome of `trace` as an answer to `item`."""
    graded = None if trace.error else grade(trace.best, item, vlm)
    branch = _written(trace.best)
    replies = look_stats.replies_to_looks(branch)
    return Outcome(
        id=item.sample.id,
        correct=graded is True,
        failed=graded is None,
        cost=trace.cost,
        looks=look_stats.looks(branch),
        calls=look_stats.calls(branch),
        valid_calls=look_stats.valid_calls(branch),
        wanted=len(item.regions),
        found=look_stats.found(branch, item.regions),
        replies=len(replies),
        empty=sum(map(look_stats.is_empty_thought, replies)),
        error=trace.error,
        about=_about(item.sample),
        **_verdicts(trace),
    )


def _about(sample: Sample) -> str:
    return " ".join([*(c.source for c in sample.clips), *(image.id for image in sample.images)])


def _verdicts(trace: Trace) -> dict[str, int]:
    """How many verdicts were given once the policy had written, and whether one ended the looking
    (model or budget may have)."""
    steps = trace.steps
    first = next((at for at, step in enumerate(steps) if step.sampled), 0)
    said = [x for step in steps[first:] for name, x in step.scores.items() if name != SPENT]
    told = [value for value in said if value is not None]
    return {"verdicts": len(told), "enough": int(ENDED_BY_VERDICT in trace.settings)}


def _written(branch: Branch) -> Branch:
    """`branch` without the choice made for it at the end, which would count as an observation."""
    return replace(branch, steps=branch.steps[:-1]) if was_chosen(branch) else branch


def _answer(
    condition: Condition,
    vlm: VLM,
    sampling: Sampling,
    system: str | None,
    item: Item,
    cancelled: Cancelled,
) -> tuple[Item, Trace, Outcome]:
    strategy, sample = condition.meet(item, seed=sampling.seed)
    sample = instructed(sample, system)
    trace = run(strategy, sample, vlm, sampling=sampling, cancel=cancelled)
    return item, trace, weigh(trace, item, vlm)
