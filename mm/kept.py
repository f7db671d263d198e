"""What an engine keeps between requests: computed contexts, and features of pictures."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Generic, TypeVar

from .spans import Tokens

if TYPE_CHECKING:
    from torch import Tensor

K = TypeVar("K")
V = TypeVar("V")

Layers = tuple[tuple["Tensor", "Tensor"], ...]
"""Keys and values of each layer, both (1, heads, T, head width); never written in place."""


@dataclass(frozen=True)
class Context:
    """What a computed context was computed from: equal contexts have equal keys and values.

    Attributes:
        ids: the token ids.
        images: (start, stop, content) of each picture in the ids, in order.
        adapter: the adapter that was active.
    """

    ids: tuple[int, ...]
    images: tuple[tuple[int, int, str], ...] = ()
    adapter: str | None = None

    @classmethod
    def of(cls, tokens: Tokens, adapter: str | None = None) -> Context:
        images = tuple((span.start, span.stop, span.content) for span in tokens.images)
        return cls(tokens.ids, images, adapter)

    def shared(self, other: Context) -> int:
        """How many leading ids mean the same in both; the cut never falls inside a picture."""
        if self.adapter != other.adapter:
            return 0
        length = _equal(self.ids, other.ids)
        for mine, theirs in zip_longest(self.images, other.images):
            for start, stop, _ in (i for i in (mine, theirs) if i):
                if start < length and (mine != theirs or length < stop):
                    length = start
        return length

    def begins(self, other: Context) -> bool:
        """Whether `other` starts with all of this."""
        length = len(self.ids)
        return other.ids[:length] == self.ids and self.shared(other) == length

    def cut(self, length: int) -> int:
        """`length`, or the start of the picture that it falls inside."""
        return next((start for start, stop, _ in self.images if start < length < stop), length)


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


class Kept(Generic[K, V]):
    """Values under a budget of bytes; the one unused for longest goes first. For one thread."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.bytes = 0
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def get(self, key: K) -> V | None:
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: K, value: V, size: int) -> None:
        """Keep `value` of `size` bytes; one larger than the whole budget is not kept."""
        self.drop(key)
        if size > self.budget:
            return
        self._values[key] = (value, size)
        self.bytes += size
        while self.bytes > self.budget:
            self.drop(next(iter(self._values)))

    def drop(self, key: K) -> None:
        if key in self._values:
            self.bytes -= self._values.pop(key)[1]

    def clear(self) -> None:
        self._values.clear()
        self.bytes = 0

    def __contains__(self, key: object) -> bool:
        """Any thread may ask."""
        return key in self._values

    def __iter__(self) -> Iterator[K]:
        return iter(tuple(self._values))

    def __len__(self) -> int:
        return len(self._values)


class Contexts:
    """Computed contexts; any beginning of one serves a request that begins the same."""

    def __init__(self, budget: int) -> None:
        self.kept: Kept[Context, Layers] = Kept(budget)

    def longest(self, wanted: Context, limit: int) -> tuple[int, Layers]:
        """The longest computed beginning of `wanted`, of at most `limit` ids, and its layers."""
        best, length = self._nearest(wanted, limit)
        if best is None or length == 0:
            return 0, ()
        layers = self.kept.get(best) or ()
        return length, tuple((k[:, :, :length], v[:, :, :length]) for k, v in layers)

    def reach(self, wanted: Context, limit: int) -> int:
        """How long `longest` would be; nothing counts as used."""
        return self._nearest(wanted, limit)[1]

    def keep(self, context: Context, layers: Layers) -> None:
        """Keep what was computed, in place of the contexts that it continues."""
        for other in self.kept:
            if len(context.ids) < len(other.ids) and context.begins(other):
                self.kept.get(other)  # says all this and more: only mark it as used
                return
            if other.begins(context):
                self.kept.drop(other)
        self.kept.put(context, layers, sum(k.nbytes + v.nbytes for k, v in layers))

    def _nearest(self, wanted: Context, limit: int) -> tuple[Context | None, int]:
        """The kept context that shares most, the first of several, and what can be used of it."""
        best, length, pictures = None, 0, 0
        for other in self.kept:
            # most share a system message and no more: those are passed over quickly
            if (
                other.ids[: length + 1] == wanted.ids[: length + 1]
                and other.images[:pictures] == wanted.images[:pictures]
                and (shared := wanted.shared(other)) > length
            ):
                best, length = other, shared
                pictures = sum(start <= length for start, _, _ in wanted.images)
        return best, wanted.cut(min(length, limit))
