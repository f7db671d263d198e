"""Stage 3: the decoder learns to read what it replays from memory, and keeps what it knew.

The encoder is left as it is, so memories are made once. A quarter of the batches hold whole
memories: the control that replay is measured against has to know how to use them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import Qwen3VLForConditionalGeneration

from mm.tokens.builder import TokenBuilder

from .language_stage import train_language
from .memories import Memories
from .packing import Batch
from .rows import FULL_TOKENS, Modes, RowMaker, make_batch
from .shards import Shards, Views

ROWS, VIEWS = 48, 100
FULL_ROWS = 12
BLOCKS = 7168
"""Replayed visual tokens in a batch, at most."""

MODES: Modes = (("direct", 0.22), ("zoom", 0.24), ("think", 0.04), ("replay", 0.5))
RATE = 8e-4
SHARE = 0.7
"""How far the exported weights go from those before the stage to those after it.

All the way, counts fall by eight points; here nothing falls, and replay reads as well.
"""


def batches(
    shards: Shards, memories: Memories, builder: TokenBuilder, first: int, steps: int
) -> Iterator[Batch]:
    """Batch number n is a function of n alone; every fourth is of whole memories."""
    maker = RowMaker(builder)
    for number in range(first, steps):
        rng = random.Random(f"replay {number}")
        pick = partial(with_memory, shards, memories, rng)
        yield full_batch(maker, pick, rng) if number % 4 == 3 else mixed_batch(maker, pick, rng)


def mixed_batch(maker: RowMaker, pick: Callable[[], Views], rng: random.Random) -> Batch:
    """Rows of everything but whole memories, so that what was known is kept."""
    return make_batch(maker, pick, rng, ROWS, VIEWS, modes=MODES, blocks=BLOCKS)


def full_batch(maker: RowMaker, pick: Callable[[], Views], rng: random.Random) -> Batch:
    """Rows whose prefix holds a whole memory."""
    return make_batch(
        maker,
        pick,
        rng,
        FULL_ROWS,
        FULL_ROWS,
        modes=(("full", 1.0),),
        tokens=FULL_TOKENS,
        blocks=BLOCKS,
    )


def with_memory(shards: Shards, memories: Memories, rng: random.Random) -> Views:
    """A random scene of those that are remembered."""
    index = rng.randrange(min(len(memories), len(shards)))
    return replace(shards[index], memory=memories[index])


def train_replay(
    model: Qwen3VLForConditionalGeneration,
    builder: TokenBuilder,
    shards: Shards,
    memories: Memories,
    folder: Path,
    *,
    steps: int,
) -> None:
    """Train the decoder of `model` in place; resumes from `folder`/replay.pt."""
    model.model.visual.requires_grad_(False)
    made = partial(batches, shards, memories, builder)
    train_language(model, made, folder, steps=steps, rate=RATE, name="replay")


def blend(
    model: Qwen3VLForConditionalGeneration, after: dict[str, Tensor], share: float = SHARE
) -> None:
    """Move the weights of `model`, as they were before the stage, towards those `after` it."""
    before = model.state_dict()
    model.load_state_dict({k: torch.lerp(before[k], after[k], share) for k in before})
