"""Rows of segments, packed into one batch of tensors.

A row is a prefix and segments that go on from it, or from each other. A segment attends to what it
goes on from and to itself, and its positions start where that ends, so that it is trained exactly
as if it stood alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.tabletop.clip_questions import CLIP_TASKS

from .shards import VIEW

ROW_TOKENS = 256

SIDE_TOKENS = 4
"""A view has this many visual tokens along each side."""

KINDS = (
    *("caption", "colour", "count", "locate", "read", "same", "search"),
    *("replay read", "replay same", "replay search", "full read", "full same", "full colour"),
    *(f"depth {kind}" for kind in ("where", "nearer", "read_nearest")),
    *(f"depth {kind}" for kind in ("colour", "count", "read", "same")),
    *(f"{strategy} {task}" for strategy in ("uniform", "watch") for task in CLIP_TASKS),
    *("uniform track", "uniform lamp", "watch lamp", "again", "letters"),
    *(
        f"{tokens} {task}"
        for tokens in (64, 144, 576)
        for task in ("read", "same", "colour", "count", "locate")
    ),
    *(f"verdict {task}" for task in ("read", "same", "search", "colour", "count")),
)
"""What a branch may ask, under the names that logs have."""


@dataclass(frozen=True)
class Segment:
    """A piece of a row: ids, and which of them train.

    Attributes:
        views: (offset, pixels) of each view.
        blocks: (offset, part of the memory: (rows, columns, layers, D)) of each replayed region.
        parent: the number, in its row, of the segment that it goes on from.
    """

    ids: tuple[int, ...]
    trained: tuple[bool, ...]
    views: tuple[tuple[int, np.ndarray], ...]
    blocks: tuple[tuple[int, np.ndarray], ...] = ()
    parent: int = 0

    @property
    def replayed(self) -> int:
        """How many visual tokens its blocks are."""
        return sum(block.shape[0] * block.shape[1] for _, block in self.blocks)


class Batch(NamedTuple):
    """B rows of T tokens and N views.

    Attributes:
        ids: (B, T).
        positions: (3, B, T), of time, height and width.
        segments: (B, T): 0 for the prefix, then a number per branch, -1 for padding.
        sees: (B, S + 1, S + 1): whether a token of one segment sees those of another before it;
            the last is the padding.
        trained: (B, T).
        views: (N, VIEW, VIEW, 3) uint8.
        slots: (N * 16,) where each visual token goes, as an index into the B * T tokens; B * T for
            no place.
        blocks: (M, layers, D) float16, the visual tokens of replayed regions.
        block_slots: (M,) where they go.
        kinds: (B, T): the index in KINDS of what the token's branch asks.
    """

    ids: Tensor
    positions: Tensor
    segments: Tensor
    sees: Tensor
    trained: Tensor
    views: Tensor
    slots: Tensor
    blocks: Tensor
    block_slots: Tensor
    kinds: Tensor


class _Laid(NamedTuple):
    """A row of T tokens, as in `Batch`; `views` and `blocks` are with where they begin in it."""

    ids: np.ndarray
    positions: np.ndarray
    segments: np.ndarray
    trained: np.ndarray
    kinds: np.ndarray
    views: list[tuple[int, np.ndarray]]
    blocks: list[tuple[int, np.ndarray]]


def collate(
    rows: Sequence[tuple[list[Segment], list[str]]],
    views: int,
    length: int = ROW_TOKENS,
    blocks: int = 0,
) -> Batch:
    """Rows of `length` tokens, with room for so many views and replayed visual tokens in all."""
    laid = [_laid_out(row, asked, length) for row, asked in rows]
    shown = [(b * length + at, view) for b, row in enumerate(laid) for at, view in row.views]
    replayed = [(b * length + at, block) for b, row in enumerate(laid) for at, block in row.blocks]
    nowhere = len(rows) * length
    arrays = (
        np.stack([row.ids for row in laid]),
        np.stack([row.positions for row in laid], axis=1),
        np.stack([row.segments for row in laid]),
        _sees([[segment.parent for segment in row] for row, _ in rows]),
        np.stack([row.trained for row in laid]),
        *_shown(shown, views, nowhere),
        *_remembered(replayed, blocks, nowhere),
        np.stack([row.kinds for row in laid]),
    )
    return Batch(*(torch.from_numpy(a) for a in arrays))


def _laid_out(row: Sequence[Segment], asked: Sequence[str], length: int) -> _Laid:
    laid = _Laid(
        np.zeros(length, np.int64),
        np.zeros((3, length), np.int64),
        np.full(length, -1, np.int64),
        np.zeros(length, bool),
        np.full(length, -1, np.int64),
        [],
        [],
    )
    at, ends = 0, [0]
    for number, (segment, kind) in enumerate(zip(row, asked, strict=True)):
        where = slice(at, at + len(segment.ids))
        laid.ids[where], laid.trained[where] = segment.ids, segment.trained
        laid.segments[where], laid.kinds[where] = number, KINDS.index(kind) if kind else -1
        shapes = [(start, (SIDE_TOKENS, SIDE_TOKENS)) for start, _ in segment.views]
        shapes += [(start, block.shape[:2]) for start, block in segment.blocks]
        positions, end = _positions(len(segment.ids), shapes, ends[segment.parent])
        laid.positions[:, where] = positions
        ends = [end] if number == 0 else [*ends, end]
        laid.views.extend((at + start, view) for start, view in segment.views)
        laid.blocks.extend((at + start, block) for start, block in segment.blocks)
        at += len(segment.ids)
    return laid


def _shown(
    shown: Sequence[tuple[int, np.ndarray]], room: int, nowhere: int
) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of all views, padded to `room`, and where their visual tokens go."""
    pixels = np.zeros((room, VIEW, VIEW, 3), np.uint8)
    slots = np.full((room, SIDE_TOKENS**2), nowhere, np.int64)
    for number, (start, view) in enumerate(shown):
        pixels[number] = view
        slots[number] = start + np.arange(SIDE_TOKENS**2)
    return pixels, slots.reshape(-1)


def _sees(parents: Sequence[Sequence[int]]) -> np.ndarray:
    """(B, S + 1, S + 1) from the parent of each segment of each row."""
    room = max(map(len, parents)) + 1
    sees = np.zeros((len(parents), room, room), bool)
    sees[:, range(room), range(room)] = True
    sees[:, :, 0] = True  # the prefix; padding has to see something
    for row, parent_of in zip(sees, parents, strict=True):
        for number, parent in enumerate(parent_of[1:], 1):
            row[number] |= row[parent]
    return sees


def _remembered(
    replayed: Sequence[tuple[int, np.ndarray]], room: int, nowhere: int
) -> tuple[np.ndarray, np.ndarray]:
    """The visual tokens of all blocks, padded to `room`, and where they go; nothing for none."""
    if not replayed:
        return np.zeros((0, 1, 1), np.float16), np.zeros(0, np.int64)
    layers = replayed[0][1].shape[2:]
    tokens = np.zeros((room, *layers), np.float16)
    slots = np.full(room, nowhere, np.int64)
    at = 0
    for start, block in replayed:
        flat = block.reshape(-1, *layers)
        tokens[at : at + len(flat)] = flat
        slots[at : at + len(flat)] = start + np.arange(len(flat))
        at += len(flat)
    return tokens, slots


def _positions(
    length: int, shown: Sequence[tuple[int, tuple[int, ...]]], first: int
) -> tuple[np.ndarray, int]:
    """Positions (3, length) from `first` on, and the next one.

    What is `shown` of m x n tokens advances them by the larger of the two.
    """
    positions = np.zeros((3, length), np.int64)
    at, value = 0, first
    for start, (m, n) in sorted(shown):
        positions[:, at:start] = value + np.arange(start - at)
        value += start - at
        rows, columns = np.divmod(np.arange(m * n), n)
        positions[:, start : start + m * n] = value + np.stack([rows * 0, rows, columns])
        at, value = start + m * n, value + max(m, n)
    positions[:, at:] = value + np.arange(length - at)
    return positions, value + length - at
