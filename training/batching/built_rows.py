"""Rows as a model reads them, built when a batch asks for them and cached while they fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mm.lru_cache import LRUCache
from mm.origins import Drawn, FrameOf
from mm.tokens.sequence import Tokens
from mm.types import Image
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
        if cached is not None:
            return cached
        built = self._build(self.data[index])
        self.add(index, built)
        return built

    def take(self, indices: Iterable[int]) -> list[Sides]:
        """The sequences of several rows."""
        return [self[index] for index in indices]

    def add(self, index: int, built: Sides) -> tuple[int, tuple[str, ...]]:
        """Cache the sequences of row `index`, built elsewhere; its tokens and images' names."""
        length, images, size = facts_of(built)
        self._cache.put(index, built, size)
        return length, images


def facts_of(sides: Sides) -> tuple[int, tuple[str, ...], int]:
    """The facts of a row that batching needs.

    Returns:
        How many tokens it takes, its sides padded to the longest; names of its images; and the
        bytes of its ids and pixels, 3 a pixel.
    """
    images = [span.visual.source for tokens in sides for span in tokens.images]
    names = {_name_of(image): image.pixels.width * image.pixels.height for image in images}
    ids = sum(len(tokens.ids) for tokens in sides)
    length = len(sides) * max(len(tokens.ids) for tokens in sides)
    return length, tuple(names), ID_BYTES * ids + 3 * sum(names.values())


def _name_of(image: Image) -> str:
    """What names an image, also where a grey one is shown instead."""
    if isinstance(image.origin, Drawn):
        return image.origin.parent
    if isinstance(image.origin, FrameOf) and _is_plain(image):  # many clips begin with a black one
        return f"{image.id} {image.origin.video}"
    return image.id


def _is_plain(image: Image) -> bool:
    extrema: Any = image.pixels.getextrema()  # a pair for each channel of RGB
    return all(low == high for low, high in extrema)
