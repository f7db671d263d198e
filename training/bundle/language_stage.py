"""Stage 2: the decoder learns to talk about what the encoder sees, and to look again when it
must."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen3VLForConditionalGeneration

from mm.local.precision import fast_autocast, fast_dtype
from mm.tokens.builder import TokenBuilder

from .encoder import encode_views
from .packing import KINDS, Batch
from .rows import RowMaker, make_batch
from .shards import Shards
from .stage import Log, Optimizers, ahead, fast, resumed, saved

ROWS, VIEWS = 48, 132
CHECKPOINT_EVERY = 100
ENCODER_RATE = 0.2
"""The encoder's share of the decoder's learning rate."""


Batches = Callable[[int, int], Iterator[Batch]]
"""The batches from one number up to another."""

Keep = Callable[[Batch, Tensor, Tensor], Tensor]
"""(batch, logits (N, V), kinds (N,)) → (N,), a loss for each trained token."""


def batches(shards: Shards, builder: TokenBuilder, first: int, steps: int) -> Iterator[Batch]:
    """Batch number n is a function of n alone."""
    maker = RowMaker(builder)
    for number in range(first, steps):
        rng = random.Random(f"language {number}")
        yield make_batch(
            maker, lambda rng=rng: shards[rng.randrange(len(shards))], rng, ROWS, VIEWS
        )


def decode(model: Qwen3VLForConditionalGeneration, batch: Batch) -> Tensor:
    """Hidden states (B, T, D) of the packed rows; the library's layers with the rows' own mask."""
    encoded = encode_views(model.model.visual, batch.views)
    text = model.model.language_model
    words = text.embed_tokens(batch.ids)
    hidden = _put(words, encoded.tokens, batch.slots, replace=True)
    deep = [_put(torch.zeros_like(words), d, batch.slots, replace=False) for d in encoded.deepstack]
    if len(batch.blocks):
        hidden = _put(hidden, batch.blocks[:, 0], batch.block_slots, replace=True)
        deep = [
            _put(d, batch.blocks[:, 1 + layer], batch.block_slots, replace=False)
            for layer, d in enumerate(deep)
        ]
    mask = _mask(batch.segments, batch.sees, hidden.dtype)
    rope = text.rotary_emb(hidden, batch.positions)
    for index, layer in enumerate(text.layers):
        hidden = layer(hidden, attention_mask=mask, position_embeddings=rope)
        if index < len(deep):
            hidden = hidden + deep[index]
    return text.norm(hidden)


def _put(rows: Tensor, features: Tensor, slots: Tensor, *, replace: bool) -> Tensor:
    """`rows` (B, T, D) with the features written at their slots; those without a place fall off the
    end."""
    batch, length, width = rows.shape
    flat = torch.cat([rows.reshape(-1, width), rows.new_zeros(1, width)])
    features = features.reshape(-1, width).to(flat.dtype)
    flat = flat.index_copy(0, slots, features) if replace else flat.index_add(0, slots, features)
    return flat[:-1].view(batch, length, width)


def _mask(segments: Tensor, sees: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive (B, 1, T, T): a token sees its own segment and those it goes on from, up to
    itself."""
    rows, length = segments.shape
    number = segments.remainder(sees.shape[1])  # padding, -1, is the last
    row = torch.arange(rows)[:, None, None]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    seen = causal & sees[row, number[:, :, None], number[:, None, :]]
    return torch.zeros(seen.shape, dtype=dtype).masked_fill(
        ~seen, torch.finfo(torch.float32).min / 2
    )[:, None]


def trained_logits(
    model: Qwen3VLForConditionalGeneration, hidden: Tensor, batch: Batch
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (N, V), id (N,) and kind (N,) of each trained token."""
    target = batch.trained.clone()
    target[:, 0] = False
    before = target.roll(-1, dims=1)
    return model.lm_head(hidden[before]).float(), batch.ids[target], batch.kinds[target]


def train_language(
    model: Qwen3VLForConditionalGeneration,
    made: Batches,
    folder: Path,
    *,
    steps: int,
    rate: float = 1.5e-3,
    name: str = "language",
    save_every: int | None = None,
    log_every: int = 20,
    compiled: bool = True,
    keep: Keep | None = None,
) -> None:
    """Train what of `model` wants gradients, in place; resumes from `folder`/`name`.pt.

    Args:
        keep: (batch, logits, kinds) → (N,), what is added to the loss of each trained token.
    """
    torch.manual_seed(0)
    slow = fast_dtype(torch.device("cpu")) == torch.bfloat16  # sdpa's backward is, in bf16
    model.model.language_model.set_attn_implementation("eager" if slow else "sdpa")
    save_every = CHECKPOINT_EVERY if save_every is None else save_every
    optimizers = Optimizers(
        nn.ModuleDict({"model": model}),
        rate=rate,
        steps=steps,
        slow=("visual.blocks", "visual.patch", "visual.pos"),
        slow_share=ENCODER_RATE,
    )
    path = folder / f"{name}.pt"
    first, before_s = resumed(path, model, optimizers)
    log = Log(folder / f"{name}.log", before_s)
    learn = partial(_learnt, model, fast(decode, steps) if compiled else decode, keep)
    for number, batch in enumerate(ahead(made(first, steps)), first):
        told = learn(batch)
        optimizers.step(number)
        if number % log_every == 0:
            log.write(step=number, **told())
        if (number + 1) % save_every == 0 or number + 1 == steps:
            saved(path, model, optimizers, step=number + 1, seconds=log.seconds)


def _learnt(
    model: Qwen3VLForConditionalGeneration,
    forward: Callable[..., Tensor],
    keep: Keep | None,
    batch: Batch,
) -> Callable[[], dict[str, Any]]:
    """Add the gradients of a batch; returns what makes its line in the log."""
    with fast_autocast(torch.device("cpu")):
        logits, wanted, kinds = trained_logits(model, forward(model, batch), batch)
        losses = F.cross_entropy(logits, wanted, reduction="none")
        kept = keep(batch, logits, kinds) if keep else torch.zeros_like(losses)
    (losses + kept).mean().backward()
    losses, kept, logits = losses.detach(), kept.detach(), logits.detach()
    return lambda: {
        "loss": round(losses.mean().item(), 4),
        "kept": round(kept.mean().item(), 4),
        **_by_kind(losses, logits.argmax(-1) == wanted, kinds),
    }


def _by_kind(losses: Tensor, right: Tensor, kinds: Tensor) -> dict[str, str]:
    """Loss and share of right tokens for each kind of question in the batch."""
    table = {}
    for index, name in enumerate(KINDS):
        of = kinds == index
        if of.any():
            table[name] = f"{losses[of].mean().item():.3f}/{right[of].float().mean().item():.3f}"
    return table
