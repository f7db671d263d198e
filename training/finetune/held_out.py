"""How good a model in training is: the share it answers rightly, by the judge of `mm eval`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice

from mm.local.hf_vlm import HFVLM
from mm.session import Strategy, name_of, run
from mm.strategies.single import direct
from mm.types import Sampling
from training.evaluation.controls import Condition
from training.evaluation.evaluate import evaluate
from training.evaluation.intervals import Interval, wilson
from training.evaluation.questions import Questions
from training.trainers.course import Rows
from vision import replay, zoom

from .recipe import Looks

ASKED: Mapping[Looks | None, Strategy] = {
    None: direct,
    "tool": partial(zoom, offer=False),
    "inline": partial(zoom, layout="inline", offer=False),
    "replay": partial(replay, protocol="sot"),
}
"""How questions are asked of a model whose replies look again in some way."""

SHOWN = Sampling(max_tokens=64)
"""A sample is printed on one line; a model that has learnt nothing yet may not know how to end."""

THREADS = 16
"""Questions asked at a time: the engine answers them in one batch."""


def questions_of(rows: Rows, *, most: int = 500) -> Questions | None:
    """At most so many of `rows` as questions; None where they do not say what is right."""
    thinned = rows.thinned(most)
    try:
        questions = Questions(thinned.data, tuple(thinned.chosen))
        next(iter(questions))
    except ValueError:
        return None
    return questions


def judge(vlm: HFVLM, questions: Questions, strategy: Strategy = direct) -> Interval:
    """The share of `questions` that `vlm` answers rightly by `strategy`."""
    vlm.engine.model.eval()
    vlm.engine.forget()
    outcomes = list(
        evaluate(Condition(name_of(strategy), strategy), questions, vlm, threads=THREADS)
    )
    return wilson(sum(o.correct for o in outcomes), len(outcomes))


def samples(
    vlm: HFVLM, questions: Questions, strategy: Strategy = direct, count: int = 3
) -> Sequence[str]:
    """What `vlm` says now to the first few of `questions`, and what is right."""
    vlm.engine.forget()
    lines = []
    for item in islice(questions, count):
        trace = run(strategy, item.sample, vlm, sampling=SHOWN)
        asked = " ".join(m.text.strip() for m in item.sample.prompt if m.role == "user")
        said = trace.best.messages[-1].text.strip()
        lines.append(f"  {asked[:70]}  ->  {said[:70]}  ({item.sample.target})")
    return lines
