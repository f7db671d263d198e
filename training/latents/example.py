"""Rows made ready for a module that reads depth."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import torch
from PIL import Image as Pil
from torch import Tensor

from mm.tokens.builder import TokenBuilder
from mm.tokens.sequence import Tokens
from mm.types import Conversation, Image, Latents
from training.batching.collator import Collator
from vision.depth_strategies import with_latents
from vision.latent_reader import reading_of
from vision.midi import Midi, encoder_image

from .rows import DepthRow

Features = Callable[[Sequence[Image]], Sequence[Tensor]]
"""What the model's frozen encoder sees in images, each alone: (V, W)."""


@dataclass(frozen=True)
class Example:
    """A row, made ready once.

    Attributes:
        image, depth: features (V, W) of the image, and of the image of its depth.
        asked: the ids of the question.
        prompt: in which the model reads the image and the question.
        reasoned: the ids of the rationale's words, each apart.
        replied: the ids of the answer, its end included.
        answered: the conversation with room for the latents.
    """

    image: Tensor
    depth: Tensor
    asked: tuple[int, ...]
    prompt: Tokens
    reasoned: tuple[tuple[int, ...], ...]
    replied: tuple[int, ...]
    answered: Tokens


def example_of(row: DepthRow, builder: TokenBuilder, features: Features, midi: Midi) -> Example:
    """`row` made ready for `midi`.

    Raises:
        ValueError: its conversation cannot be built.
    """
    image, depth = features([row.image, _drawn(row.depth, row.image)])
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
        reading_of(builder, row.image, row.question),
        tuple(encode((word,)) for word in words),
        builder.continuation(row.messages[-1].text),
        Collator(builder).tokens(_Talk(row.id, talk)),
    )


_drawn = lru_cache(maxsize=1)(encoder_image)  # rows made ready one behind another share a map


def without_pixels(example: Example, again: Callable[[], Example]) -> Example:
    """`example`, many of which can be kept: its images are those of `again()`, made when needed."""
    return replace(
        example,
        prompt=_released(example.prompt, lambda: again().prompt),
        answered=_released(example.answered, lambda: again().answered),
    )


def _released(tokens: Tokens, again: Callable[[], Tokens]) -> Tokens:
    def process(number: int) -> Mapping[str, Tensor]:
        return again().images[number].process()

    spans = [
        replace(span, visual=_NO_PIXELS, process=partial(process, number))
        for number, span in enumerate(tokens.images)
    ]
    return replace(tokens, images=tuple(spans))


_NO_PIXELS = Image(Pil.new("RGB", (1, 1)))


@dataclass(frozen=True)
class _Talk:
    """A conversation as the collator takes it."""

    id: str
    messages: Conversation
    untrained: frozenset[int] = frozenset()
