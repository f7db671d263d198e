"""Stage 1: the encoder learns from dense labels what stands where and which letter it carries.

From language supervision alone nothing takes off at this size; a linear head on every visual token
does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

from mm.local.precision import fast_autocast
from training.tabletop.scene import COLOURS, LETTERS, SHAPES

from .encoder import Encoded, encode_views
from .labels import IGNORED, NOTHING, SLOT_NUMBERS, SLOTS, letter_labels, overview_labels
from .shards import Shards
from .stage import Log, Optimizers, ahead, fast, resumed, saved

OVERVIEWS, CROPS, TILES = 48, 48, 48
CHECKPOINT_EVERY = 200
HELD_OUT = 500
"""The last scenes of the shards are never trained on here; accuracies in the log are measured on
them."""


class Batch(NamedTuple):
    views: Tensor
    slots: Tensor
    letters: Tensor


class DenseHeads(nn.Module):
    """Linear read-outs of each visual token, from the merged features and from each deepstack layer
    alike."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        numbers = SLOTS * (1 + len(COLOURS) + len(SHAPES) + 4)
        self.head_slots = nn.ModuleList([nn.Linear(width, numbers) for _ in range(layers)])
        self.head_letters = nn.ModuleList([nn.Linear(width, NOTHING + 1) for _ in range(layers)])


def make_batch(shards: Shards, rng: np.random.Generator, held_out: bool = False) -> Batch:
    last = len(shards) - HELD_OUT
    pick = (
        (lambda: int(rng.integers(last, len(shards))))
        if held_out
        else (lambda: int(rng.integers(last)))
    )
    views, slots, letters = [], [], []
    for _ in range(OVERVIEWS):
        one = shards[pick()]
        views.append(one.overview)
        slots.append(overview_labels(one.scene))
    for _ in range(CROPS):
        one = shards[pick()]
        k = int(rng.integers(len(one.crops)))
        views.append(one.crops[k])
        letters.append(letter_labels(one.scene, one.crop_windows[k]))
    for _ in range(TILES):
        one = shards[pick()]
        k = int(rng.integers(len(one.tiles)))
        views.append(one.tiles[k])
        letters.append(letter_labels(one.scene, one.tile_windows[k]))
    return Batch(
        torch.from_numpy(np.stack(views)),
        torch.from_numpy(np.stack(slots)),
        torch.from_numpy(np.stack(letters)),
    )


def batches(shards: Shards, first: int, steps: int) -> Iterator[Batch]:
    """Batch number n is a function of n alone, so that a resumed run sees what it would have
    seen."""
    for number in range(first, steps):
        yield make_batch(shards, np.random.default_rng([1, number]))


def losses(heads: DenseHeads, encoded: Encoded, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """The sum of all read-outs' losses, and how often the read-outs of the merged features are
    right."""
    total, report = torch.zeros(()), {}
    for layer, tokens in enumerate([encoded.tokens, *encoded.deepstack]):
        slot_loss, right = _slot_loss(
            heads.head_slots[layer](tokens[:OVERVIEWS]).float(), batch.slots
        )
        scores = heads.head_letters[layer](tokens[OVERVIEWS:]).float()
        letter_loss = F.cross_entropy(
            scores.flatten(0, 1), batch.letters.flatten(), ignore_index=IGNORED
        )
        total = total + (1.0 if layer == 0 else 0.3) * (slot_loss + 2 * letter_loss)
        if layer == 0:
            report = {**right, **_letters_right(scores, batch.letters)}
    return total, report


def _slot_loss(scores: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
    scores = scores.view(*labels.shape[:3], -1)
    there, colour, shape, box = scores.split([1, len(COLOURS), len(SHAPES), 4], dim=-1)
    present = labels[..., 0] > 0
    loss = F.binary_cross_entropy_with_logits(there[..., 0], labels[..., 0])
    loss = loss + F.cross_entropy(colour[present], labels[..., 1][present].long()) / 3
    loss = loss + F.cross_entropy(shape[present], labels[..., 2][present].long()) / 3
    error = (box[present] - labels[..., 3:SLOT_NUMBERS][present]).abs()
    loss = loss + error.mean()
    right = {
        "there": ((there[..., 0] > 0) == present).float().mean().item(),
        "colour": (colour[present].argmax(-1) == labels[..., 1][present]).float().mean().item(),
        "shape": (shape[present].argmax(-1) == labels[..., 2][present]).float().mean().item(),
        "box_px": error.mean().item() * 16,
    }
    return loss, right


def _letters_right(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """Share of tokens on a letter that name it (all 17 classes compete), in crops and in tiles."""
    lettered = (labels >= 0) & (labels < len(LETTERS))
    right = scores.argmax(-1) == labels
    return {
        "crop_letter": right[:CROPS][lettered[:CROPS]].float().mean().item(),
        "tile_letter": right[CROPS:][lettered[CROPS:]].float().mean().item(),
    }


def train_vision(
    visual: Qwen3VLVisionModel, shards: Shards, folder: Path, steps: int = 2000
) -> None:
    """Train `visual` in place; resumes from `folder`/vision.pt."""
    torch.manual_seed(0)
    heads = DenseHeads(visual.config.out_hidden_size, 1 + len(visual.deepstack_visual_indexes))
    both = nn.ModuleDict({"visual": visual, "dense": heads})
    optimizers = Optimizers(both, rate=2e-3, steps=steps)
    path = folder / "vision.pt"
    first, before_s = resumed(path, both, optimizers)
    log = Log(folder / "vision.log", before_s)
    encode = fast(encode_views, steps)
    for number, batch in enumerate(ahead(batches(shards, first, steps)), first):
        with fast_autocast(torch.device("cpu")):
            loss, right = losses(heads, encode(visual, batch.views), batch)
        loss.backward()
        optimizers.step(number)
        if number % 20 == 0:
            log.write(
                step=number,
                loss=round(loss.item(), 4),
                **{k: round(v, 3) for k, v in right.items()},
            )
        if (number + 1) % CHECKPOINT_EVERY == 0 or number + 1 == steps:
            _report_held_out(heads, visual, shards, log, number)
            saved(path, both, optimizers, step=number + 1, seconds=log.seconds)


@torch.no_grad()
def _report_held_out(
    heads: DenseHeads, visual: Qwen3VLVisionModel, shards: Shards, log: Log, number: int
) -> None:
    rows = []
    for k in range(4):
        batch = make_batch(shards, np.random.default_rng([2, k]), held_out=True)
        with fast_autocast(torch.device("cpu")):
            rows.append(losses(heads, encode_views(visual, batch.views), batch)[1])
    log.write(
        held_out=number + 1, **{k: round(sum(r[k] for r in rows) / len(rows), 3) for k in rows[0]}
    )
