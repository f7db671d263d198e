"""A key-value cache whose rows have lengths of their own: conversations computed in one batch.

Rows are dense: those in use come first, and the last one moves into the place of one that leaves.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

if TYPE_CHECKING:
    from torch import Tensor

    from .model_runner import ModelRunner
    from .prefix_cache import Layers


_BUCKET = 128  # positions; buffers grow by doubling, and never by less than this


class Slots(Cache):
    """Keys and values (rows, heads, positions, width) of each layer, row i `lengths[i]` long.

    `begin` says which rows the next forward computes, and how many tokens of each; `advance` how
    many of them count.

    Args:
        depth: how many layers the decoder has.
    """

    def __init__(self, depth: int) -> None:
        self._made = [_SlotLayer(self) for _ in range(depth)]
        super().__init__(layers=list(self._made))
        self.lengths: list[int] = []
        self.view = self.width = 0

    def add(self, layers: Layers) -> None:
        """Copy a context, of batch 1, into a new last row; () is an empty one."""
        row, length = len(self.lengths), layers[0][0].shape[2] if layers else 0
        for mine, (keys, values) in zip(self._made, layers, strict=False):
            mine.reserve(row + 1, length + 1, keys, values)
            mine.key_rows[row, :, :length] = keys[0]
            mine.value_rows[row, :, :length] = values[0]
        self.lengths.append(length)

    def read(self, row: int) -> Layers:
        """A copy of what `row` holds, of batch 1."""
        n = self.lengths[row]
        return tuple(
            (m.key_rows[row : row + 1, :, :n].clone(), m.value_rows[row : row + 1, :, :n].clone())
            for m in self._made
        )

    def remove(self, row: int) -> None:
        """Free `row`; the last row takes its number."""
        last = len(self.lengths) - 1
        n = self.lengths[last]
        if row != last:
            for layer in self._made:
                layer.key_rows[row, :, :n] = layer.key_rows[last, :, :n]
                layer.value_rows[row, :, :n] = layer.value_rows[last, :, :n]
            self.lengths[row] = n
        self.lengths.pop()

    def begin(self, first: int, stop: int, width: int, device: torch.device) -> Tensor:
        """Prepare a forward over `width` tokens of each of the rows [first, stop).

        Returns where each token will be written, (rows, width). Rows with fewer tokens are padded
        at their ends; what is written there is overwritten by what follows.
        """
        lengths = self.lengths[first:stop]
        self.first, self.stop, self.width = first, stop, width
        self.view = max(lengths) + width
        self.rows = torch.arange(first, stop, device=device)[:, None]
        starts = torch.tensor(lengths, device=device)[:, None]
        self.at = starts + torch.arange(width, device=device)
        return self.at

    def advance(self, counts: Sequence[int]) -> None:
        """Count the tokens that each row of the forward now holds."""
        for row, count in zip(range(self.first, self.stop), counts, strict=True):
            self.lengths[row] += count


class _SlotLayer(CacheLayerMixin):
    """One layer of `Slots`, as transformers' attention modules use it."""

    is_sliding = False

    def __init__(self, owner: Slots) -> None:
        super().__init__()
        self.owner: Slots = weakref.proxy(owner)  # in a cycle, buffers would outlive their rows
        self.key_rows = self.value_rows = torch.empty(0, 0, 0, 0)
        self.is_initialized = True

    def reserve(self, rows: int, length: int, keys: Tensor, values: Tensor) -> None:
        """Have room for so many rows and positions of what `keys` and `values` are like.

        Where memory runs out, all stays as it was.
        """
        have = self.key_rows.shape
        if rows > have[0] or length > have[2]:
            wanted = (_bucket(rows, have[0], 1), _bucket(length, have[2], _BUCKET))
            grown = _grown(self.key_rows, *wanted, keys), _grown(self.value_rows, *wanted, values)
            self.key_rows, self.value_rows = grown

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the buffers are made when they are needed."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write each row's tokens from the row's own length on; returns what the rows hold."""
        own = self.owner
        self.reserve(len(own.lengths), own.view, key_states, value_states)
        self.key_rows[own.rows, :, own.at] = key_states.transpose(1, 2)
        self.value_rows[own.rows, :, own.at] = value_states.transpose(1, 2)
        held = slice(own.first, own.stop)
        return self.key_rows[held, :, : own.view], self.value_rows[held, :, : own.view]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.owner.view, 0

    def get_seq_length(self) -> int:
        return self.owner.view - self.owner.width

    def get_max_cache_shape(self) -> int:
        return -1

    def get_max_length(self) -> int:
        return -1


class BatchedRows:
    """Rows computed in one forward. The buffers go when the last row leaves."""

    def __init__(self, weights: ModelRunner) -> None:
        self._weights = weights
        self._slots: Slots | None = None

    def add(self, layers: Layers) -> None:
        """Begin a last row with a computed context, of batch 1, which stays as it is."""
        self._slots = self._slots or Slots(len(layers))
        self._slots.add(layers)

    def read(self, row: int) -> Layers:
        """The keys and values of `row`, without its padding."""
        assert self._slots
        return self._slots.read(row)

    def remove(self, row: int) -> None:
        """Free a row; the last one takes its place."""
        assert self._slots
        self._slots.remove(row)
        if not self._slots.lengths:
            self._slots = None

    def compute(self, ids: Tensor, positions: Tensor, first: int, stop: int) -> Tensor:
        """Logits (B, V) after one more token `ids` (B, 1) of each of the rows [first, stop)."""
        slots, weights = self._slots, self._weights
        assert slots
        at = slots.begin(first, stop, 1, ids.device)
        mask = weights.row_mask(at, slots.view)
        hidden = weights.forward(weights.embed(ids), positions, slots, attention_mask=mask)
        slots.advance([1] * (stop - first))
        return weights.logits(hidden[:, -1])


class SeparateRows:
    """Rows of a model whose masks nobody here can batch: each computed by itself, in turn."""

    def __init__(self, weights: ModelRunner) -> None:
        self._weights = weights
        self._caches: list[Any] = []

    def add(self, layers: Layers) -> None:
        """Begin a last row with a computed context, of batch 1, which stays as it is."""
        self._caches.append(dynamic_cache(layers))

    def read(self, row: int) -> Layers:
        """The keys and values of `row`."""
        return layers_of(self._caches[row])

    def remove(self, row: int) -> None:
        """Free a row; the last one takes its place."""
        self._caches[row] = self._caches[-1]
        self._caches.pop()

    def compute(self, ids: Tensor, positions: Tensor, first: int, stop: int) -> Tensor:
        """Logits (B, V) after one more token `ids` (B, 1) of each of the rows [first, stop)."""
        weights = self._weights
        hidden = [
            weights.forward(
                weights.embed(ids[i, None]), positions[i, None], self._caches[first + i]
            )
            for i in range(stop - first)
        ]
        return weights.logits(torch.cat(hidden)[:, -1])


def _bucket(wanted: int, have: int, least: int) -> int:
    size = max(have, least)
    while size < wanted:
        size *= 2
    return size


def _grown(old: Tensor, rows: int, length: int, like: Tensor) -> Tensor:
    new = like.new_zeros(rows, like.shape[1], length, like.shape[3])
    if len(old):
        new[: old.shape[0], :, : old.shape[2]] = old
    return new


def dynamic_cache(layers: Iterable[tuple[Tensor, Tensor]]) -> Any:
    """transformers' cache for one request; it begins with `layers`, which stay as they are."""
    from transformers.cache_utils import DynamicCache

    return DynamicCache(tuple(layers) or None)


def layers_of(cache: Any) -> tuple[tuple[Tensor, Tensor], ...]:
    """The keys and values in a transformers cache, layer by layer."""
    return tuple((layer.keys, layer.values) for layer in cache.layers)
