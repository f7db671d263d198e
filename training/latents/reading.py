"""What a module reads of rows while it trains: features, or the states of the model that reads with
its adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from training.batching.collator import Collator, forward_inputs
from training.batching.image_features import EncodeImages
from vision.latent_reader import followed_by
from vision.midi import READER, Midi, behind, places

from .example import Example


class Read(NamedTuple):
    """What stands behind each id of a text to each row; (B, T) is the texts padded on the right.

    Attributes:
        hidden: the module's states (B, T, hidden).
        said: logits (B, T, V) of the next word, by what reads.
    """

    hidden: Tensor
    said: Tensor


ReadRows = Callable[[Midi, Sequence[Example], Sequence[Sequence[int]]], Read]
"""Reads a text to each row, in which `SLOT` is where a latent is."""


def read_features(midi: Midi, examples: Sequence[Example], texts: Sequence[Sequence[int]]) -> Read:
    """A `ReadRows` for a module that reads features and words itself."""
    ids = padded([[*e.asked, *text] for e, text in zip(examples, texts, strict=True)])
    hidden = _hidden(midi, examples, ids.to(midi.device))  # (B, A + T, hidden)
    width = max(map(len, texts))
    rows = [
        torch.nn.functional.pad(of, (0, 0, 0, width))[len(e.asked) : len(e.asked) + width]
        for of, e in zip(hidden, examples, strict=True)
    ]
    found = torch.stack(rows)
    return Read(found, midi.logits(found))


def _hidden(midi: Midi, examples: Sequence[Example], ids: Tensor) -> Tensor:
    """Hidden states (B, A + T, hidden), those with images of one shape read together."""
    shapes: dict[tuple[int, int], list[int]] = {}
    for number, each in enumerate(examples):
        shapes.setdefault((len(each.image), len(each.depth)), []).append(number)
    found: dict[int, Tensor] = {}
    for numbers in shapes.values():
        image = torch.stack([examples[n].image for n in numbers]).to(midi.device)
        depth = torch.stack([examples[n].depth for n in numbers]).to(midi.device)
        found.update(zip(numbers, midi(image, depth, ids[numbers]), strict=True))
    return torch.stack([found[number] for number in range(len(examples))])


def read_through(
    model: Any,
    collator: Collator,
    encode: EncodeImages,
    midi: Midi,
    examples: Sequence[Example],
    texts: Sequence[Sequence[int]],
) -> Read:
    """A `ReadRows`, once bound, for a module that `model` with its adapter reads for."""
    built = [followed_by(e.prompt, text) for e, text in zip(examples, texts, strict=True)]
    depths = torch.cat([each.depth for each in examples])
    inputs = forward_inputs(
        model, collator.join(built), partial(_fused, midi.depth_in, depths, encode)
    )
    del inputs["labels"]
    moved = {k: v.to(model.device) if torch.is_tensor(v) else v for k, v in inputs.items()}
    model.set_adapter(READER)
    read = model(**moved, output_hidden_states=True, logits_to_keep=1)
    at = padded([places(len(e.prompt.ids), t) for e, t in zip(examples, texts, strict=True)])
    states = behind(read.hidden_states[-1].to(midi.device, torch.float32), at.to(midi.device))
    ids = padded(texts).to(midi.device)
    head = model.get_output_embeddings()
    said = head(states.to(model.device, head.weight.dtype)).to(midi.device)
    return Read(midi.over(states, ids), said)


def _fused(
    depth_in: Callable[[Tensor], Tensor],
    depths: Tensor,
    encode: EncodeImages,
    model: Any,
    images: Any,
) -> Mapping[str, Any]:
    """What `encode` makes of `images`, with what `depth_in` makes of `depths` (V, W) added."""
    found = dict(encode(model, images))
    visual = copy(found["mm_encoder_outputs"]["image"])
    seen = visual.pooler_output
    parts = [seen] if torch.is_tensor(seen) else list(seen)
    added = depth_in(depths.to(next(iter(parts)).device)).split(
        [part.shape[:-1].numel() for part in parts]
    )
    fused = [p + more.reshape(p.shape).to(p) for p, more in zip(parts, added, strict=True)]
    visual.pooler_output = fused[0] if torch.is_tensor(seen) else tuple(fused)
    return {**found, "mm_encoder_outputs": {"image": visual}}


def padded(rows: Sequence[Sequence[int]], filler: int = 0) -> Tensor:
    """(B, T), padded on the right, which a causal reader does not see."""
    tensors = [torch.tensor(list(row), dtype=torch.long) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=filler)
