"""What latents are trained by: stage 1 distils a rationale through a frozen language model, stage
2 couples them to the model that answers (SSR, arXiv 2505.12448, section 3.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mm.tokens.image_processing import LATENTS
from mm.tokens.sequence import Tokens
from training.batching.collator import IGNORED, Collator, forward_inputs
from training.batching.image_features import EncodeImages
from training.trainers.lora import ANSWERER, let_learn
from vision.midi import SLOT, Midi, with_slots

from .example import Example
from .reading import ReadRows, padded


def distilling_loss(
    model: Any, midi: Midi, read: ReadRows, examples: Sequence[Example]
) -> dict[str, Tensor]:
    """Stage 1: the rationale's cross-entropy, by what reads image and depth, and by the frozen
    language model that reads the latents between its words alone.

    Returns:
        The losses by name, to be added.
    """
    spread = [with_slots(each.reasoned, midi.config.latents) for each in examples]
    hidden, reading = read(midi, examples, spread)
    ids = padded(spread).to(midi.device)
    labels = padded([_labels(words) for words in spread], IGNORED)
    with _frozen(model):
        said = _said(model, ids, midi.latents(hidden, ids))
    let_learn(model)
    return {"read": _next_word(reading, labels), "model": _next_word(said, labels)}


def _labels(words: Sequence[int]) -> list[int]:
    return [IGNORED if each == SLOT else each for each in words]


def _frozen(model: Any) -> AbstractContextManager[Any]:
    """`model` as it is without the module's adapter, which is there to read."""
    return model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()


def _said(model: Any, ids: Tensor, latents: Tensor) -> Tensor:
    """Logits (B, T, V) of the language model over `ids`, with the latents in their slots."""
    device = model.device
    here = ids.to(device)
    embeds = model.get_input_embeddings()(here.clamp(min=0))
    slots = here == SLOT
    embeds = embeds.masked_scatter(slots[..., None], latents.to(embeds))
    text = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = text.get_decoder()(inputs_embeds=embeds).last_hidden_state
    return model.get_output_embeddings()(hidden).float()


def _next_word(logits: Tensor, wanted: Tensor) -> Tensor:
    labels = wanted[:, 1:].to(logits.device)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


def answering_loss(
    model: Any,
    midi: Midi,
    read: ReadRows,
    collator: Collator,
    examples: Sequence[Example],
    encode: EncodeImages,
) -> dict[str, Tensor]:
    """Stage 2: the answer's cross-entropy, the latents behind the image; and of what reads image,
    depth and question for them, which is asked for the answer too.

    Returns:
        The losses by name, to be added.
    """
    built = [each.answered for each in examples]
    losses: dict[str, Tensor] = {}
    if midi.config.kind != "none":
        found, losses = _answering_latents(midi, read, examples)
        built = [with_vectors(t, z) for t, z in zip(built, found, strict=True)]
    batch = collator.join(built)
    model.set_adapter(ANSWERER)
    inputs = forward_inputs(model, batch, encode)
    moved = {k: v.to(model.device) if torch.is_tensor(v) else v for k, v in inputs.items()}
    answered = model(**moved).loss
    let_learn(model)
    return {"answer": answered, **losses}


def _answering_latents(
    midi: Midi, read: ReadRows, examples: Sequence[Example]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Latents (B, n, D), and the loss of the answer by what reads, which comes behind their slots
    and so tells them nothing."""
    if midi.config.kind != "midi":
        return answering_latents(midi, read, examples), {}
    texts = [[*[SLOT] * midi.config.latents, *each.replied] for each in examples]
    hidden, reading = read(midi, examples, texts)
    labels = padded([_labels(text) for text in texts], IGNORED)
    return midi.latents(hidden, padded(texts).to(midi.device)), {
        "read": _next_word(reading, labels)
    }


def answering_latents(midi: Midi, read: ReadRows, examples: Sequence[Example]) -> Tensor:
    """(B, n, D), from the images, the depths and the questions alone."""
    slots = [[SLOT] * midi.config.latents] * len(examples)
    ids = padded(slots).to(midi.device)
    hidden = read(midi, examples, slots).hidden if midi.config.kind == "midi" else ids
    return midi.latents(hidden, ids)


def with_vectors(tokens: Tokens, vectors: Tensor) -> Tokens:
    """`tokens` with `vectors` (n, D) in the place of its latents; gradients flow into them."""
    spans = tuple(
        span if span.encoded else replace(span, process=lambda: {LATENTS: vectors})
        for span in tokens.images
    )
    return replace(tokens, images=spans)


def total(losses: Mapping[str, Tensor]) -> Tensor:
    """Their sum."""
    return torch.stack([loss.cpu() for loss in losses.values()]).sum()
