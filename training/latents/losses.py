"""What latents are trained by: stage 1 distils a rationale through a frozen language model, stage
2 couples them to the model that answers (SSR, arXiv 2505.12448, section 3.4)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from mm.tokens.builder import TokenBuilder
from mm.tokens.image_processing import LATENTS
from mm.tokens.sequence import Tokens
from mm.types import Conversation, Image, Latents
from training.batching.collator import IGNORED, Collator, forward_inputs
from training.batching.image_features import EncodeImages
from vision.depth_strategies import with_latents
from vision.midi import SLOT, Midi, encoder_image, with_slots

from .rows import DepthRow

Features = Callable[[Sequence[Image]], Sequence[Tensor]]
"""What the model's frozen encoder sees in images: (V, W) each."""


@dataclass(frozen=True)
class Example:
    """A row, made ready once.

    Attributes:
        image, depth: features (V, W) of the image, and of the image of its depth.
        asked: the ids of the question.
        reasoned: those of the rationale's words, each apart.
        answered: the conversation with room for the latents.
    """

    image: Tensor
    depth: Tensor
    asked: tuple[int, ...]
    reasoned: tuple[tuple[int, ...], ...]
    answered: Tokens


def example_of(row: DepthRow, builder: TokenBuilder, features: Features, midi: Midi) -> Example:
    """`row` made ready for `midi`.

    Raises:
        ValueError: its conversation cannot be built.
    """
    image, depth = features([row.image, encoder_image(row.depth, row.image)])
    encode = builder.safe_tokenizer.encode
    words = re.findall(r"\s*\S+", row.rationale)
    talk = row.messages
    if midi.config.kind != "none":
        room = torch.zeros(midi.config.latents, midi.config.model_width)
        talk = with_latents(talk, Latents(row.image, f"room for {row.id}", room))
    return Example(
        image.float(),
        depth.float(),
        encode((row.question,)),
        tuple(encode((word,)) for word in words),
        Collator(builder).tokens(_Talk(row.id, talk)),
    )


@dataclass(frozen=True)
class _Talk:
    """A conversation as the collator takes it."""

    id: str
    messages: Conversation
    untrained: frozenset[int] = frozenset()


def distilling_loss(model: Any, midi: Midi, examples: Sequence[Example]) -> dict[str, Tensor]:
    """Stage 1: the rationale's cross-entropy, by the Mamba that reads it, and by the frozen
    language model that reads the latents between its words.

    Returns:
        The losses by name, to be added.
    """
    spread = [with_slots(each.reasoned, midi.config.latents) for each in examples]
    both = [[*e.asked, *words] for e, words in zip(examples, spread, strict=True)]
    ids = _padded(both).to(midi.device)
    hidden = _hidden(midi, examples, ids)  # (B, T, hidden)
    told = [
        [*[IGNORED] * len(e.asked), *_labels(words)]
        for e, words in zip(examples, spread, strict=True)
    ]
    read = _read(model, _padded(spread), midi.latents(hidden, ids))
    return {
        "mamba": _next_word(midi.logits(hidden), _padded(told, IGNORED)),
        "model": _next_word(read, _padded([_labels(words) for words in spread], IGNORED)),
    }


def _labels(words: Sequence[int]) -> list[int]:
    return [IGNORED if each == SLOT else each for each in words]


def _padded(rows: Sequence[Sequence[int]], filler: int = 0) -> Tensor:
    """(B, T), padded on the right, which a causal reader does not see."""
    tensors = [torch.tensor(list(row)) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=filler)


def _hidden(midi: Midi, examples: Sequence[Example], ids: Tensor) -> Tensor:
    """What the Mamba reads (B, T, hidden), those with images of one shape together."""
    shapes: dict[tuple[int, int], list[int]] = {}
    for number, each in enumerate(examples):
        shapes.setdefault((len(each.image), len(each.depth)), []).append(number)
    found: dict[int, Tensor] = {}
    for numbers in shapes.values():
        image = torch.stack([examples[n].image for n in numbers]).to(midi.device)
        depth = torch.stack([examples[n].depth for n in numbers]).to(midi.device)
        found.update(zip(numbers, midi(image, depth, ids[numbers]), strict=True))
    return torch.stack([found[number] for number in range(len(examples))])


def _read(model: Any, ids: Tensor, latents: Tensor) -> Tensor:
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
    model: Any, midi: Midi, collator: Collator, examples: Sequence[Example], encode: EncodeImages
) -> dict[str, Tensor]:
    """Stage 2: the answer's cross-entropy, the latents behind the image.

    Returns:
        The loss by its name.
    """
    built = [each.answered for each in examples]
    if midi.config.kind != "none":
        found = answering_latents(midi, examples)
        built = [with_vectors(t, z) for t, z in zip(built, found, strict=True)]
    batch = collator.join(built)
    inputs = forward_inputs(model, batch, encode)
    moved = {k: v.to(model.device) if torch.is_tensor(v) else v for k, v in inputs.items()}
    return {"answer": model(**moved).loss}


def answering_latents(midi: Midi, examples: Sequence[Example]) -> Tensor:
    """(B, n, D), from the images, the depths and the questions alone."""
    rows = [[*each.asked, *[SLOT] * midi.config.latents] for each in examples]
    ids = _padded(rows).to(midi.device)
    return midi.latents(_hidden(midi, examples, ids), ids)


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
