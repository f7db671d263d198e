"""How good a model in training is: its accuracy on held-out questions, judged as by `mm eval`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

from mm.answers import unjudgeable
from mm.local.hf_vlm import HFVLM
from mm.samples import instructed
from mm.session import Strategy, name_of, run
from mm.trace import Sample
from mm.types import Sampling
from training.data import Row
from training.evaluation.controls import Condition
from training.evaluation.evaluate import evaluate
from training.evaluation.intervals import Interval
from training.evaluation.questions import Questions, target_of
from training.evaluation.results import share_right
from training.trainers.course import Rows
from training.trainers.model_parts import answering
from video.search import over_clips

from .plan import Plan
from .setup import change_of

SAMPLE_SAMPLING = Sampling(max_tokens=64)
"""A sample reply is printed on one line; an untrained model may not know how to end."""

THREADS = 16
"""Questions asked at a time: the engine answers them in one batch."""

MOST = 500
"""The most held-out questions that are asked."""


@dataclass(frozen=True)
class HeldOut:
    """The held-out rows that can be asked and judged, as questions.

    Attributes:
        unjudged: how many rows have no answer that could be judged.
        system, max_tokens, max_thought_tokens: as answers are sampled in grpo; None elsewhere.
    """

    questions: Questions
    unjudged: int = 0
    system: str | None = None
    max_tokens: int | None = None
    max_thought_tokens: int | None = None

    def __len__(self) -> int:
        return len(self.questions)


def held_out_questions(plan: Plan, rows: Rows, *, most: int = MOST) -> HeldOut:
    """At most so many of `rows` as questions, without those that cannot be judged."""
    data = replace(rows.data, change=change_of(plan.recipe, None))
    thinned = rows.thinned(most)
    judged = [at for at in thinned.chosen if _can_be_judged(data[at])]
    questions, unjudged = Questions(data, tuple(judged)), len(thinned) - len(judged)
    recipe = plan.recipe
    if recipe.method != "grpo":
        return HeldOut(questions, unjudged)
    limits = recipe.max_tokens, recipe.max_thought_tokens
    return HeldOut(questions, unjudged, recipe.system, *limits)


def accuracy(vlm: HFVLM, held_out: HeldOut, strategy: Strategy) -> Interval:
    """The share of the questions that `vlm` answers rightly by `strategy`; its interval knows which
    of them share an image."""
    condition = Condition(name_of(strategy), strategy)
    said = {"sampling": _sampling(held_out, Sampling()), "system": held_out.system}
    with answering(vlm):
        outcomes = list(evaluate(condition, held_out.questions, vlm, threads=THREADS, **said))
    return share_right(outcomes)


def sample_replies(
    vlm: HFVLM, held_out: HeldOut, strategy: Strategy, count: int = 3
) -> Sequence[str]:
    """A line for each of the first few questions: the question, what `vlm` replies, the answer."""
    with answering(vlm):
        return [
            _sample_reply(vlm, held_out, strategy, item.sample)
            for item in islice(held_out.questions, count)
        ]


def _sample_reply(vlm: HFVLM, held_out: HeldOut, strategy: Strategy, sample: Sample) -> str:
    told = instructed(sample, held_out.system)
    over = over_clips(strategy) if told.clips else strategy
    trace = run(over, told, vlm, sampling=_sampling(held_out, SAMPLE_SAMPLING))
    asked = " ".join(m.text.strip() for m in sample.prompt if m.role == "user")
    reply = trace.best.messages[-1].text.strip()
    return f"  {asked[:70]}  ->  {reply[:70]}  ({sample.target})"


def _sampling(held_out: HeldOut, usual: Sampling) -> Sampling:
    most = held_out.max_tokens or usual.max_tokens
    return replace(usual, max_tokens=most, max_thought_tokens=held_out.max_thought_tokens)


def _can_be_judged(row: Row) -> bool:
    try:
        return unjudgeable(target_of(row), choices=row.choices) is None
    except ValueError:
        return False
