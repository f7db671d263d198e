"""Rollouts: answers that the policy samples by a strategy, through the engine, and their rewards.

The engine samples with the very weights that train. A rollout keeps the ids that were sampled;
exactly these train, and neither images nor what was said to the policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import repeat

from mm.errors import ModelError, first_line
from mm.geometry import Region, iou
from mm.local.hf_vlm import HFVLM
from mm.samples import instructed
from mm.session import Strategy, path_seed, run
from mm.tokens.builder import TokenBuilder
from mm.tokens.sequence import Tokens
from mm.trace import Branch, Trace
from mm.types import Clip, Conversation, Message, Sampling
from training.batching.built_rows import Sides
from training.data import Row
from training.data.clips import shown_frames
from training.evaluation.grade import MIN_IOU
from training.evaluation.questions import sample_of
from training.rewards.terms import Attempt, Mix, accuracy, contributions, route, why_zero
from video.search import over_clips, shown_first
from vision.grounding import parse_boxes
from vision.look_stats import looks

from .model_parts import answering
from .row_builders import build_question

THREADS = 32
"""Rollouts in progress: as many as the engine decodes in one batch."""

_OF_ANOTHER_IMAGE = re.compile(r"\{[^{}]*\"img_idx\"\s*:\s*[1-9][^{}]*\}")


@dataclass(frozen=True)
class Rollout:
    """One attempt at a row, as it trains.

    Attributes:
        tokens: the whole conversation; `trained` marks what was sampled.
        rewards: what each term adds; {} where the model failed, which counts for nothing.
        asked: the boxes that the policy wrote in the row's first image, not those of calls that
            name a crop or another image.
        error: why the model failed; None where it did not.
        why_zero: of rewards behind a gate, whether that was shut, or they were 0 themselves.
    """

    attempt: Attempt
    tokens: Tokens
    rewards: Mapping[str, float]
    asked: tuple[Region, ...] = ()
    error: str | None = None
    why_zero: Mapping[str, float] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The id of the row it answers."""
        return self.attempt.row.id

    @property
    def failed(self) -> bool:
        """Whether it ended in an error and has no reward."""
        return self.error is not None

    @property
    def reward(self) -> float:
        """The sum of what its terms add."""
        return sum(self.rewards.values())

    @cached_property
    def measures(self) -> dict[str, float]:
        """What a table shows of it; those of boxes only where the row says where to look.

        A failed one has no reward, which would lower the mean of the others.
        """
        found = {
            **({} if self.failed else {"reward": self.reward}),
            "accuracy": accuracy(self.attempt),
            "looks": float(looks(self.attempt.branch)),
            "cut_off": float(self.attempt.cut_off),
            "failed": float(self.failed),
            "sampled_tokens": float(sum(self.tokens.trained)),
        }
        return {**found, **self.why_zero, **(self._boxes() if self.attempt.row.regions else {})}

    def _boxes(self) -> dict[str, float]:
        best = [
            max((iou(region, box) for box in self.asked), default=0.0)
            for region in self.attempt.row.regions
        ]
        recall = sum(each >= MIN_IOU for each in best) / len(best)
        return {"box_iou": sum(best) / len(best), "box_recall": recall}


@dataclass(frozen=True)
class Explorer:
    """Answers rows by sampling.

    Attributes:
        mixes: rewards by a row's source.
        sampling: of every reply; its seed is that of the training.
        system: a message before every question.
    """

    vlm: HFVLM
    strategy: Strategy
    mixes: Mapping[str, Mix]
    sampling: Sampling
    system: str | None = None

    @property
    def terms(self) -> list[str]:
        """The names of all rewards, each once."""
        return list(dict.fromkeys(each.name for mix in self.mixes.values() for each in mix))

    def build(self, row: Row) -> Sides:
        """The prompt of `row`, whose answers are sampled, as the strategy shows it at first.

        Raises:
            ValueError: it asks nothing, or does not say what is right; or no rewards are for it; or
                its clip cannot be read.
        """
        builder = self.vlm.builder
        showing = shown_first(self.strategy)
        showing = replace(showing, pack=showing.pack and builder.traits.packs_frames)
        shown = shown_frames(builder, row.messages, showing=showing)
        sides = build_question(builder)(replace(row, messages=shown))
        if not any(key in self.mixes for key in (row.source, "")):
            raise ValueError(f"expected rewards for source {row.source!r}, found none")
        return sides

    def explore(
        self, rows: Sequence[Row], *, step: int, first: int = 0, greedy: bool = False
    ) -> list[Rollout]:
        """A rollout of each of `rows`, of which one may occur several times.

        What is sampled follows from the training's seed, from `step` and from the place in `rows`,
        counted from `first`.
        """
        places = range(first, first + len(rows))
        seeds = [path_seed(self.sampling.seed, f"{step} {at}") for at in places]
        temperature = 0.0 if greedy else self.sampling.temperature
        drawn = [replace(self.sampling, seed=seed, temperature=temperature) for seed in seeds]
        with answering(self.vlm), ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(self._explore, rows, drawn))

    def _explore(self, row: Row, sampling: Sampling) -> Rollout:
        asked = sample_of(row)
        row, sample = replace(row, answer=asked.target), instructed(asked, self.system)
        strategy = over_clips(self.strategy) if sample.clips else self.strategy
        trace = run(strategy, sample, self.vlm, sampling=sampling)
        branch = _chosen(trace)
        attempt = Attempt(branch, row, _cut_off(branch, self.vlm.builder, sampling))
        said = [] if trace.error is not None else route(self.mixes, attempt)
        tokens, boxes = tokens_of(branch, self.vlm.builder), self._asked(attempt)
        rewards, zero = contributions(said), why_zero(said)
        return Rollout(attempt, tokens, rewards, boxes, trace.error, zero)

    def _asked(self, attempt: Attempt) -> tuple[Region, ...]:
        images = attempt.branch.sample.images
        if not images:
            return ()
        seen = self.vlm.seen_size(images[0].size, images[0].kind)
        written = _OF_ANOTHER_IMAGE.sub("", attempt.written.partition("<answer>")[0])
        return tuple(parse_boxes(written, self.vlm.traits.box_format, seen))


def tokens_of(branch: Branch, builder: TokenBuilder) -> Tokens:
    """The ids of `branch`; those that were sampled train."""
    sampled = _sampled(branch)
    exclude = frozenset(at for at, own in enumerate(sampled) if not own)
    return builder.build(branch.messages, open_turn=False, exclude=exclude)


def means(measures: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each measure, over the rollouts that have it."""
    found: dict[str, list[float]] = {}
    for each in measures:
        for name, value in each.items():
            found.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def failures(errors: Sequence[str | None]) -> str | None:
    """A line that counts the rollouts that failed and says why the first did; None for none.

    Raises:
        ModelError: all failed, and nothing could be learnt.
    """
    reasons = [first_line(Exception(error)) for error in errors if error is not None]
    if not reasons:
        return None
    if len(reasons) == len(errors):
        raise ModelError(
            f"all {len(errors)} rollouts of a step failed ({reasons[0]}): put that right, then go "
            "on with --resume"
        )
    return f"{len(reasons)} of {len(errors)} rollouts failed, the first with: {reasons[0]}"


def _chosen(trace: Trace) -> Branch:
    """The chosen branch; for a failed trace the bare prompt, which has no trainable token, without
    clips that were never opened."""
    if trace.error is None:
        return trace.best
    bare = trace.branch(None)
    prompt = tuple(_without_clips(said) for said in bare.sample.prompt)
    return replace(bare, sample=replace(bare.sample, prompt=prompt))


def _without_clips(said: Message) -> Message:
    return replace(said, parts=tuple(part for part in said.parts if not isinstance(part, Clip)))


def _sampled(branch: Branch) -> list[bool]:
    """For each of the branch's messages, whether the policy wrote it."""
    steps = branch.steps
    before: Conversation = branch.sample.prompt
    return [
        *(step.sampled for step in steps if step.message.role == "system"),
        *repeat(False, len(before)),
        *(step.sampled for step in steps if step.message.role != "system"),
    ]


def _cut_off(branch: Branch, builder: TokenBuilder, sampling: Sampling) -> bool:
    """Whether the limit of tokens ended the last reply."""
    written = [step.message.tokens or () for step in branch.steps if step.sampled]
    last = list(written[-1]) if written else []
    return len(last) >= sampling.max_tokens and last[-1] not in builder.end_ids
