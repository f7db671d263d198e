"""Keys and values of computed contexts: any prefix of one serves a request that shares it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import TYPE_CHECKING

from mm.lru_cache import ByteBudget, LRUCache
from mm.tokens.sequence import Tokens

if TYPE_CHECKING:
    from torch import Tensor


Layers = tuple[tuple["Tensor", "Tensor"], ...]
"""Keys and values of each layer, both (1, heads, T, head width); never written in place."""


@dataclass(frozen=True)
class PrefixKey:
    """What a computed context was computed from: equal contexts have equal keys and values.

    Attributes:
        ids: the token ids.
        images: (start, stop, content) of each image in the ids, in order.
        adapter: the adapter that was active.
    """

    ids: tuple[int, ...]
    images: tuple[tuple[int, int, str], ...] = ()
    adapter: str | None = None

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Counted once: going through a cache's entries takes every key's, of hundreds of ids."""
        return hash((self.ids, self.images, self.adapter))

    @classmethod
    def of(cls, tokens: Tokens, adapter: str | None = None) -> PrefixKey:
        """The key of a prompt's tokens and images under an adapter; None is the weights alone."""
        images = tuple((span.start, span.stop, span.content) for span in tokens.images)
        return cls(tokens.ids, images, adapter)

    def common_prefix(self, other: PrefixKey) -> int:
        """How many leading ids mean the same in both; the cut never falls inside an image."""
        if self.adapter != other.adapter:
            return 0
        length = _equal(self.ids, other.ids)
        for mine, theirs in zip_longest(self.images, other.images):
            for start, stop, _ in (i for i in (mine, theirs) if i):
                if start < length and (mine != theirs or length < stop):
                    length = start
        return length

    def is_prefix_of(self, other: PrefixKey) -> bool:
        """Whether `other` starts with all of this."""
        length = len(self.ids)
        return other.ids[:length] == self.ids and self.common_prefix(other) == length

    def cut(self, length: int) -> int:
        """`length`, or the start of the image that it falls inside."""
        return next((start for start, stop, _ in self.images if start < length < stop), length)

    def start(self, length: int) -> PrefixKey:
        """The first `length` ids, fewer where that falls inside an image."""
        length = self.cut(length)
        images = tuple(image for image in self.images if image[1] <= length)
        return PrefixKey(self.ids[:length], images, self.adapter)


def _equal(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """How many leading ids are equal."""
    same, differ = 0, min(len(a), len(b)) + 1
    while differ - same > 1:
        middle = (same + differ) // 2
        if a[same:middle] == b[same:middle]:
            same = middle
        else:
            differ = middle
    return same


def _first(layers: Layers, length: int) -> Layers:
    """Those of the first `length` ids; copied where that is a part, as a view would keep all."""
    if all(k.shape[2] == length for k, _ in layers):
        return layers
    return tuple((k[:, :, :length].clone(), v[:, :, :length].clone()) for k, v in layers)


class PrefixCache:
    """Computed contexts under a budget of bytes; any prefix of one can be matched."""

    def __init__(self, budget: int, shared: ByteBudget | None = None) -> None:
        self.entries: LRUCache[PrefixKey, Layers] = LRUCache(budget, shared=shared)

    def match(self, wanted: PrefixKey, limit: int) -> tuple[int, Layers]:
        """The length of the longest cached prefix of `wanted`, at most `limit`, and its layers."""
        best, length = self._nearest(wanted, limit)
        if best is None or length == 0:
            return 0, ()
        layers = self.entries.get(best) or ()
        return length, tuple((k[:, :, :length], v[:, :, :length]) for k, v in layers)

    def match_length(self, wanted: PrefixKey, limit: int) -> int:
        """The length that `match` would find; nothing counts as used."""
        return self._nearest(wanted, limit)[1]

    def store(self, context: PrefixKey, layers: Layers) -> None:
        """Cache what was computed, in place of the contexts that it continues.

        Of a context that is too large as many leading ids as there is room for.
        """
        size = sum(k.nbytes + v.nbytes for k, v in layers)
        if size > self.entries.room:
            context = context.start(len(context.ids) * self.entries.room // size)
            if not context.ids:
                return
        for other in self.entries:
            if context.is_prefix_of(other):
                self.entries.get(other)  # holds all this: only mark it as used
                return
            if other.is_prefix_of(context):
                self.entries.drop(other)
        layers = _first(layers, len(context.ids))
        self.entries.put(context, layers, sum(k.nbytes + v.nbytes for k, v in layers))

    def _nearest(self, wanted: PrefixKey, limit: int) -> tuple[PrefixKey | None, int]:
        """The cached context with the longest common prefix, and how many ids of it can be reused.

        The first of them on ties.
        """
        best, length, images = None, 0, 0
        for other in self.entries:
            # most share a system message and no more: those are passed over quickly
            if (
                other.ids[: length + 1] == wanted.ids[: length + 1]
                and other.images[:images] == wanted.images[:images]
                and (shared := wanted.common_prefix(other)) > length
            ):
                best, length = other, shared
                images = sum(start <= length for start, _, _ in wanted.images)
        return best, wanted.cut(min(length, limit))
