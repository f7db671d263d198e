"""Values under a budget of bytes; the least recently used is evicted first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class LRUCache(Generic[K, V]):
    """Values under a budget of bytes; the least recently used is evicted first. For one thread.

    Args:
        at_least: how many values stay, whatever their size.
    """

    def __init__(self, budget: int, *, at_least: int = 0) -> None:
        self.budget = budget
        self.bytes = 0
        self._at_least = at_least
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()

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
