"""Stage 4: the decoder learns what depth maps tell, what happens in clips, whether it has seen
enough and to read larger images, and keeps what it knew.

The encoder is left as it is: what it sees already tells how a lamp glows and where things stand.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import partial
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
from .language_stage import train_language
from .memories import Memories
from .packing import Batch, collate
from .replay_stage import mixed_batch, with_memory
from .rows import RowMaker
from .shards import Shards
from .verdict_rows import VERDICT_TOKENS, verdict_row

DEPTH_ROWS, CLIP_ROWS, VERDICT_ROWS = 36, 18, 28
RATE = 8e-4
TURN = (
    *("verdicts", "clips", "known", "verdicts", "clips", "known"),
    *("verdicts", "depth", "budgets"),
)
"""What batches hold, in turn."""


def batches(
    shards: Shards,
    memories: Memories,
    enlarged: Enlarged,
    builder: TokenBuilder,
    first: int,
    steps: int,
) -> Iterator[Batch]:
    """Batch number n is a function of n alone."""
    maker = RowMaker(builder)
    for number in range(first, steps):
        rng = random.Random(f"extend {number}")
        what = TURN[number % len(TURN)]
        if what == "known":
            yield mixed_batch(maker, partial(with_memory, shards, memories, rng), rng)
        elif what == "depth":
            rows = [depth_row(builder, rng) for _ in range(DEPTH_ROWS)]
            yield collate(rows, _views(rows), DEPTH_TOKENS)
        elif what == "budgets":
            side = any_side(rng)
            made = partial(budget_row, maker, builder, shards, enlarged, side, rng)
            rows = [made() for _ in range(BUDGET_ROWS[side])]
            yield collate(rows, 1, length(side), BUDGET_ROWS[side] * side * side)
        elif what == "verdicts":
            drawn = [shards[rng.randrange(len(shards))] for _ in range(VERDICT_ROWS)]
            rows = [verdict_row(builder, views, rng) for views in drawn]
            yield collate(rows, _views(rows), VERDICT_TOKENS)
        else:
            rows = [clip_row(builder, rng) for _ in range(CLIP_ROWS)]
            yield collate(rows, _views(rows), CLIP_TOKENS)


def _views(rows: Sequence[Row]) -> int:
    return sum(len(segment.views) for segments, _ in rows for segment in segments)


def train_extend(
    model: Qwen3VLForConditionalGeneration,
    builder: TokenBuilder,
    shards: Shards,
    memories: Memories,
    enlarged: Enlarged,
    folder: Path,
    *,
    steps: int,
) -> None:
    """Train the decoder of `model` in place; resumes from `folder`/extend.pt."""
    model.model.visual.requires_grad_(False)
    made = partial(batches, shards, memories, enlarged, builder)
    train_language(
        model,
        made,
        folder,
        steps=steps,
        rate=RATE,
        name="extend",
        save_every=len(TURN) * 4,
        log_every=5,
        compiled=False,  # no two batches have the same shapes
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
