"""A key-value cache whose rows have lengths of their own: conversations decoded in one batch.

Rows are dense: those in use come first, and the last one moves into the place of one that leaves.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from .model_runner import ModelRunner, dynamic_cache, length_bucket, row_bucket

if TYPE_CHECKING:
    from torch import Tensor

    from .prefix_cache import Layers


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
        self.view = self.width = self.most = 0

    @property
    def nbytes(self) -> int:
        """What the buffers take."""
        return sum(m.key_rows.nbytes + m.value_rows.nbytes for m in self._made)

    def add(self, layers: Layers, most: int = 0) -> None:
        """Copy a context, of batch 1, into a new last row; () is an empty one.

        `most` is the length that no row will exceed, if it is known: no buffer is made longer.
        """
        self.most = most
        row, length = len(self.lengths), layers[0][0].shape[2] if layers else 0
        for mine, (keys, values) in zip(self._made, layers, strict=False):
            mine.reserve(row + 1, length + 1, keys, values)
            mine.key_rows[row, :, :length] = keys[0]  # (heads, length, width)
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
        self.at = starts + torch.arange(width, device=device)  # (rows, width)
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
        self.owner: Slots = weakref.proxy(owner)  # a cycle would let buffers outlive their rows
        self.key_rows = self.value_rows = torch.empty(0, 0, 0, 0)
        self.is_initialized = True

    def reserve(self, rows: int, length: int, keys: Tensor, values: Tensor) -> None:
        """Make room for so many rows and positions, shaped like `keys` and `values`.

        If memory runs out, nothing changes.
        """
        have = self.key_rows.shape
        if rows > have[0] or length > have[2]:
            # sizes follow the rows in use, so what has left does not multiply what is to come
            own = self.owner
            longest = max(length, *own.lengths, 0)
            wanted = (row_bucket(max(rows, len(own.lengths))), length_bucket(longest, own.most))
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
        # rows (B, 1) and at (B, T) pick (B, T, heads, width); the states are (B, heads, T, width)
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

    def __init__(self, runner: ModelRunner) -> None:
        self._runner = runner
        self._slots = Slots(runner.depth)

    @property
    def nbytes(self) -> int:
        return self._slots.nbytes

    def add(self, layers: Layers, most: int) -> None:
        """Begin a last row with a computed context, of batch 1, which stays as it is.

        `most` is the length that no row will exceed.
        """
        self._slots.add(layers, most)

    def read(self, row: int) -> Layers:
        """The keys and values of `row`, without its padding."""
        return self._slots.read(row)

    def remove(self, row: int) -> None:
        """Free a row; the last one takes its place."""
        self._slots.remove(row)
        if not self._slots.lengths:
            self._slots = Slots(self._runner.depth)

    def compute(self, ids: Tensor, positions: Tensor, first: int, stop: int) -> Tensor:
        """Logits (B, V) after one more token `ids` (B, 1) of each of the rows [first, stop)."""
        slots, runner = self._slots, self._runner
        at = slots.begin(first, stop, 1, ids.device)  # (B, 1)
        # a row attends up to where it writes: behind lie padding and what left rows held
        mask = runner.row_mask(at, slots.view)  # (B, 1, 1, view)
        hidden = runner.forward(runner.embed(ids), positions, slots, attention_mask=mask)
        logits = runner.logits(hidden[:, -1])
        slots.advance([1] * (stop - first))  # only now: what failed is tried again from here
        return logits


class SeparateRows:
    """Rows of a model whose masks cannot be batched: each row is computed alone, in turn."""

    def __init__(self, runner: ModelRunner) -> None:
        self._runner = runner
        self._caches: list[Any] = []

    @property
    def nbytes(self) -> int:
        return sum(
            k.nbytes + v.nbytes for row in range(len(self._caches)) for k, v in self.read(row)
        )

    def add(self, layers: Layers, most: int) -> None:
        """Begin a last row with a computed context, of batch 1, which stays as it is."""
        self._caches.append(dynamic_cache(layers))

    def read(self, row: int) -> Layers:
        """The keys and values of `row`."""
        return tuple((layer.keys, layer.values) for layer in self._caches[row].layers)

    def remove(self, row: int) -> None:
        """Free a row; the last one takes its place."""
        self._caches[row] = self._caches[-1]
        self._caches.pop()

    def compute(self, ids: Tensor, positions: Tensor, first: int, stop: int) -> Tensor:
        """Logits (B, V) after one more token `ids` (B, 1) of each of the rows [first, stop)."""
        caches = self._caches[first:stop]
        lengths = [cache.get_seq_length() for cache in caches]
        try:
            hidden = [
                self._runner.forward(self._runner.embed(ids[i, None]), positions[i, None], cache)
                for i, cache in enumerate(caches)
            ]
            return self._runner.logits(torch.cat(hidden)[:, -1])
        except Exception:
            # who asks tries again: neither the rows before, nor layers of this one, may keep theirs
            for cache, length in zip(caches, lengths, strict=True):
                _shorten(cache, length)
            raise


def _shorten(cache: Any, length: int) -> None:
    """Take what stands behind `length` from each layer of a `dynamic_cache`, none of which slides.

    A cache's own `crop` takes as many from each, but a forward that failed reached only some.
    """
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[:, :, :length], layer.values[:, :, :length]


def _grown(old: Tensor, rows: int, length: int, like: Tensor) -> Tensor:
    new = like.new_zeros(rows, like.shape[1], length, like.shape[3])
    rows, length = min(rows, old.shape[0]), min(length, old.shape[2])
    if rows:
        new[:rows, :, :length] = old[:rows, :, :length]
    return new
