"""Values under a budget of bytes, which several caches and reservations may share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class ByteBudget:
    """A budget shared by caches and reservations; reservations come first and evict cached values.

    For one thread.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.reserved = 0
        self.caches: list[LRUCache[Any, Any]] = []

    @property
    def free(self) -> int:
        """Bytes that are neither reserved nor cached; below 0 where caches must shrink."""
        return self.total - self.reserved - sum(cache.bytes for cache in self.caches)

    def reserve(self, size: int) -> bool:
        """Reserve `size` bytes in place of what is reserved, evicting cached values for them.

        Returns False and changes nothing if `size` exceeds the total.
        """
        if size > self.total:
            return False
        self.reserved = size
        while self.free < 0:
            max(self.caches, key=lambda cache: cache.bytes).evict()
        return True


class LRUCache(Generic[K, V]):
    """Values under a budget of bytes; the least recently used is evicted first. For one thread.

    Args:
        budget: what its values may take.
        shared: a budget that it shares with others besides.
        at_least: how many values stay, whatever their size.
    """

    def __init__(self, budget: int, *, shared: ByteBudget | None = None, at_least: int = 0) -> None:
        self.budget = budget
        self.bytes = 0
        self._shared = shared
        self._at_least = at_least
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        if shared:
            shared.caches.append(self)

    @property
    def room(self) -> int:
        """The most bytes that a value put now may have and surely stay."""
        if not (shared := self._shared):
            return self.budget
        left = shared.total - shared.reserved
        others = sum(cache.bytes for cache in shared.caches if cache is not self)
        # the largest cache is evicted from first: a fair part of what is left is always had
        return min(self.budget, max(left - others, left // len(shared.caches)))

    def get(self, key: K) -> V | None:
        """The value under `key`, now the most recently used; None where there is none."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: K, value: V, size: int) -> None:
        """Cache `value` of `size` bytes; one larger than the whole budget is not cached."""
        self.drop(key)
        if size > self.budget and not self._at_least:
            return
        self._values[key] = (value, size)
        self.bytes += size
        while self.bytes > self.budget and len(self) > self._at_least:
            self.evict()
        if self._shared:
            self._shared.reserve(self._shared.reserved)

    def evict(self) -> None:
        """Drop the least recently used value."""
        self.drop(next(iter(self._values)))

    def drop(self, key: K) -> None:
        """Forget `key`, if it is there."""
        if key in self._values:
            self.bytes -= self._values.pop(key)[1]

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()
        self.bytes = 0

    def __contains__(self, key: object) -> bool:
        """Any thread may ask."""
        return key in self._values

    def __iter__(self) -> Iterator[K]:
        return iter(tuple(self._values))

    def __len__(self) -> int:
        return len(self._values)
