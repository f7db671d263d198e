"""Rows to batches, through the one token builder: what a checkpoint reads is what it trains on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from mm.geometry import Region
from mm.tokens.builder import TokenBuilder
from mm.tokens.sequence import ImageSpan, Tokens
from mm.types import Features
from training.data import Row

from .built_rows import Sides
from .image_features import EncodeImages, encode_images

if TYPE_CHECKING:
    from torch import Tensor

    from mm.types import Conversation

IGNORED = -100  # the label that torch's cross-entropy leaves out


class Trainable(Protocol):
    """What a row must have to be trained on."""

    @property
    def id(self) -> str: ...

    @property
    def messages(self) -> Conversation: ...

    @property
    def untrained(self) -> frozenset[int]: ...


@dataclass(frozen=True)
class Pointed:
    """A region that a completion points at; its last token is at (`row`, `at`) of the batch."""

    row: int
    at: int
    region: Region


@dataclass(frozen=True)
class Batch:
    """Rows padded to one length.

    Attributes:
        inputs: (rows, length) integer tensors for the model's forward: `input_ids`,
            `attention_mask` and, where the family asks for it, which ids are placeholders.
        labels: (rows, length) ids to predict, `IGNORED` where nothing is learnt.
        images: in the order of their placeholders; their tensors are made when asked for.
        pointed: the regions that completions ask to have replayed.
    """

    inputs: Mapping[str, Tensor]
    labels: Tensor
    images: tuple[ImageSpan, ...]
    pointed: tuple[Pointed, ...] = ()


class Collator:
    """Makes batches for one checkpoint."""

    def __init__(self, builder: TokenBuilder, *, side: Literal["left", "right"] = "right") -> None:
        self.builder = builder
        self.side = side

    def __call__(self, rows: Sequence[Trainable]) -> Batch:
        """The batch of `rows`, whole conversations with every turn closed.

        Raises:
            ValueError: there are no rows, or one cannot be built; the message begins with its id.
        """
        if not rows:
            raise ValueError("0 rows: a batch takes at least one")
        return self.join([self.tokens(row) for row in rows])

    def build(self, row: Trainable) -> Sides:
        """`row` as the one sequence that it is.

        Raises:
            ValueError: as `tokens`.
        """
        return (self.tokens(row),)

    def tokens(self, row: Trainable) -> Tokens:
        """`row` as a model reads it.

        Raises:
            ValueError: it cannot be built, or nothing of it trains; the message begins with its id.
        """
        try:
            built = self.builder.build(row.messages, open_turn=False, exclude=row.untrained)
        except ValueError as error:
            raise ValueError(f"{row.id}: {error}") from error
        if not any(built.trained):
            raise ValueError(f"{row.id}: 0 trained tokens; an assistant's message must train")
        return built

    def length(self, row: Trainable) -> int:
        """How many tokens `row` takes.

        Raises:
            ValueError: as `tokens`.
        """
        return len(self.tokens(row).ids)

    def join_sides(self, rows: Sequence[Sides]) -> Batch:
        """The batch of built rows; of pairs, all first sides stand before all second ones."""
        return self.join([side for sides in zip(*rows, strict=True) for side in sides])

    def join(self, built: Sequence[Tokens]) -> Batch:
        """The batch of conversations that are built already."""
        import torch

        length = max(len(tokens.ids) for tokens in built)
        ids = [self._padded(tokens.ids, length, self._pad) for tokens in built]
        mask = [self._padded([1] * len(tokens.ids), length, 0) for tokens in built]
        labels = [self._padded(_labels(tokens), length, IGNORED) for tokens in built]
        inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
        return Batch(
            {**inputs, **self._types(built, length)},
            torch.tensor(labels),
            tuple(span for tokens in built for span in tokens.images),
            tuple(self._pointed(built, length)),
        )

    def _pointed(self, built: Sequence[Tokens], length: int) -> Iterator[Pointed]:
        """What is replayed right behind trained text; only an image's own tokens lie between."""
        for row, tokens in enumerate(built):
            shift = length - len(tokens.ids) if self.side == "left" else 0
            for span in tokens.images:
                at = span.start - 1
                while tokens.ids[at] in self.builder.banned_ids:
                    at -= 1
                if isinstance(span.visual, Features) and tokens.trained[at]:
                    yield Pointed(row, at + shift, span.visual.region)

    @property
    def _pad(self) -> int:
        own = self.builder.tokenizer.pad_token_id
        return min(self.builder.end_ids) if own is None else own

    def _padded(self, values: Sequence[int], length: int, filler: int) -> list[int]:
        padding = [filler] * (length - len(values))
        return [*padding, *values] if self.side == "left" else [*values, *padding]

    def _types(self, built: Sequence[Tokens], length: int) -> dict[str, Tensor]:
        import torch

        types = [each.types(self.builder.placeholder_id) for each in built]
        visual = torch.tensor([self._padded(each, length, 0) for each in types])
        if self.builder.family.mrope:
            return {"mm_token_type_ids": visual}
        return {"token_type_ids": visual} if self.builder.family.bidirectional_images else {}


class PairCollator:
    """Makes batches of pairs: all chosen sides, then all rejected ones; the prompt never trains."""

    def __init__(self, collator: Collator) -> None:
        self._collator = collator

    def __call__(self, rows: Sequence[Row]) -> Batch:
        """The batch of `rows`, twice as many as they are.

        Raises:
            ValueError: as `Collator`, or a row is no pair.
        """
        return self._collator.join_sides([self.build(row) for row in rows])

    def build(self, row: Row) -> Sides:
        """The chosen and the rejected side of `row`, each with the prompt.

        Raises:
            ValueError: one of them cannot be built, nothing of it trains, or `row` is no pair.
        """
        return tuple(self._collator.tokens(side) for side in _sides(row))


def _sides(row: Row) -> tuple[Row, Row]:
    """Both ways the row goes on, each with the prompt."""
    if not row.chosen or not row.rejected:
        raise ValueError("expected 'chosen' and 'rejected', found no pair")
    prompt = row.untrained | frozenset(range(len(row.messages)))
    chosen, rejected = (
        replace(row, messages=row.messages + side, untrained=prompt)
        for side in (row.chosen, row.rejected)
    )
    return chosen, rejected


def forward_inputs(
    model: Any, batch: Batch, encode: EncodeImages = encode_images
) -> dict[str, Any]:
    """Everything `model(**...)` takes, its images as `encode` encodes them."""
    features = encode(model, batch.images) if batch.images else {}
    return {**batch.inputs, "labels": batch.labels, **features}


def _labels(tokens: Tokens) -> list[int]:
    return [
        id if trains else IGNORED for id, trains in zip(tokens.ids, tokens.trained, strict=True)
    ]
