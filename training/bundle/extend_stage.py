"""Stage 4: the decoder learns what depth maps tell, what happens in clips, whether it has seen
enough and to read larger images, and keeps what it knew.

The encoder is left as it is: what it sees already tells how a lamp glows and where things stand.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AddedToken,
    PreTrainedTokenizerFast,
    Qwen3VLForConditionalGeneration,
)

from mm.tokens.builder import TokenBuilder

from .branches import Row
from .budget_rows import ROWS as BUDGET_ROWS
from .budget_rows import any_side, budget_row, length
from .enlarged import Enlarged
from .extend_rows import CLIP_TOKENS, DEPTH_TOKENS, clip_row, depth_row
from .keeping import KNOWN, SETTLED, distance
from .language_stage import ROWS, VIEWS, train_language
from .memories import Memories
from .packing import Batch, collate
from .replay_stage import mixed_batch, with_memory
from .rows import RowMaker, make_batch
from .shards import Shards, Views
from .verdict_rows import VERDICT_TOKENS, verdict_row

DEPTH_ROWS, CLIP_ROWS, VERDICT_ROWS = 36, 18, 28


@dataclass(frozen=True)
class Material:
    """What rows are made from."""

    shards: Shards
    memories: Memories
    enlarged: Enlarged
    builder: TokenBuilder

    @cached_property
    def maker(self) -> RowMaker:
        return RowMaker(self.builder)


def known(given: Material, rng: random.Random) -> Batch:
    """What the language stage taught, of any scene: memories are kept of few."""
    return make_batch(given.maker, partial(_any, given.shards, rng), rng, ROWS, VIEWS)


def replayed(given: Material, rng: random.Random) -> Batch:
    """What the replay stage taught, of scenes that have memories."""
    return mixed_batch(given.maker, partial(with_memory, given.shards, given.memories, rng), rng)


def depth(given: Material, rng: random.Random) -> Batch:
    """What depth maps tell."""
    rows = [depth_row(given.builder, rng) for _ in range(DEPTH_ROWS)]
    return collate(rows, _views(rows), DEPTH_TOKENS)


def clips(given: Material, rng: random.Random) -> Batch:
    """What happens in clips."""
    rows = [clip_row(given.builder, rng) for _ in range(CLIP_ROWS)]
    return collate(rows, _views(rows), CLIP_TOKENS)


def verdicts(given: Material, rng: random.Random) -> Batch:
    """Whether what was seen and said is enough."""
    drawn = (_any(given.shards, rng) for _ in range(VERDICT_ROWS))
    rows = [verdict_row(given.builder, views, rng) for views in drawn]
    return collate(rows, _views(rows), VERDICT_TOKENS)


def budgets(given: Material, rng: random.Random) -> Batch:
    """One look at images of more visual tokens, as many in each."""
    side = any_side(rng)
    count = BUDGET_ROWS[side]
    made = partial(budget_row, given.maker, given.builder, given.shards, given.enlarged, side, rng)
    return collate([made() for _ in range(count)], 1, length(side), count * side * side)


@dataclass(frozen=True)
class Course:
    """What a stage teaches.

    Attributes:
        name: of its checkpoint and log.
        turn: what batches hold, in turn.
        rate: the learning rate at its highest.
        held: the kinds of question whose answers are held to what they were.
    """

    name: str
    turn: Sequence[Callable[[Material, random.Random], Batch]]
    rate: float
    held: Sequence[str]


EXTEND = Course(
    "extend",
    (known, verdicts, clips, known, replayed, verdicts, known, clips, depth, budgets),
    8e-4,
    KNOWN,
)
POLISH = Course(
    "polish",
    (
        *(known, verdicts, known, replayed, verdicts, known, clips, verdicts, known, depth),
        *(known, verdicts, known, replayed, verdicts, known, clips, verdicts, known, budgets),
    ),
    5e-4,
    SETTLED,
)
"""Verdicts above all, with everything else as it is."""


def batches(course: Course, given: Material, first: int, steps: int) -> Iterator[Batch]:
    """Batch number n is a function of n alone."""
    for number in range(first, steps):
        make = course.turn[number % len(course.turn)]
        yield make(given, random.Random(f"{course.name} {number}"))


def _any(shards: Shards, rng: random.Random) -> Views:
    return shards[rng.randrange(len(shards))]


def _views(rows: Sequence[Row]) -> int:
    return sum(len(segment.views) for segments, _ in rows for segment in segments)


def train_extend(
    model: Qwen3VLForConditionalGeneration,
    given: Material,
    folder: Path,
    *,
    steps: int,
    course: Course = EXTEND,
) -> None:
    """Train the decoder of `model` in place; resumes from `folder`/`course.name`.pt."""
    model.model.visual.requires_grad_(False)
    before = deepcopy(model).requires_grad_(False).eval()
    train_language(
        model,
        partial(batches, course, given),
        folder,
        steps=steps,
        rate=course.rate,
        name=course.name,
        save_every=40,
        log_every=5,
        compiled=False,  # no two batches have the same shapes
        keep=partial(distance, before, held=course.held),
    )


@torch.no_grad()
def grow_vocabulary(
    model: Qwen3VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    phrases: Sequence[str],
) -> None:
    """Make each phrase one token, which begins as the mean of what it was written in.

    Those that are one already stay.
    """
    table: Any = model.get_input_embeddings().weight
    for phrase in phrases:
        before = tokenizer.encode(phrase, add_special_tokens=False)
        if len(before) > 1:
            tokenizer.add_tokens([AddedToken(phrase, normalized=False, special=False)])
            (number,) = tokenizer.encode(phrase, add_special_tokens=False)
            table[number] = table[before].mean(0)
