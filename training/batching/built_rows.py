"""Rows as a model reads them, built when a batch asks for them and cached while they fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mm.lru_cache import LRUCache
from mm.tokens.sequence import Tokens
from training.data import DataSet, Row

Sides = Sequence[Tokens]
"""The token sequences of a row: one, or both sides of a pair."""

Build = Callable[[Row], Sides]

ID_BYTES = 8


class BuiltRows:
    """The token sequences of each row of `data`; a row is read and built once while it is cached.

    Images are decoded when a row is read, so an epoch after the first costs little. One row at a
    time is built; several threads may ask.

    Args:
        budget: bytes of ids and pixels that may be cached.
    """

    def __init__(self, data: DataSet, build: Build, budget: int = 0) -> None:
        self.data = data
        self._build = build
        self._cache: LRUCache[int, Sides] = LRUCache(budget)

    def __getitem__(self, index: int) -> Sides:
        """The sequences of row `index`.

        Raises:
            BadData: the row can no longer be read.
            ValueError: it cannot be built.
        """
        cached = self._cache.get(index)
        return self.add(index, self._build(self.data[index])) if cached is None else cached

    def add(self, index: int, built: Sides) -> Sides:
        """Cache what was built of row `index` elsewhere."""
        self._cache.put(index, built, sum(map(_size, built)))
        return built


def padded_length(sides: Sides) -> int:
    """How many tokens a row takes in a batch: its sides, padded to the longest."""
    return len(sides) * max(len(tokens.ids) for tokens in sides)


def _size(tokens: Tokens) -> int:
    """Bytes of its ids and of its images' pixels, 3 a pixel."""
    images = {id(span.image): span.image.size for span in tokens.images}
    return ID_BYTES * len(tokens.ids) + sum(3 * w * h for w, h in images.values())
