"""All rows of a training as examples, each made ready once while there is room for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from mm.local.hf_vlm import HFVLM
from mm.lru_cache import LRUCache
from mm.types import Image
from vision.latent_reader import features_of
from vision.midi import Midi

from .example import Example, example_of, without_pixels
from .rows import DepthRows

CACHE = 2**30
"""Bytes of features that are cached, of images and of rows."""


class Examples:
    """The rows, made ready for `midi`; those whose features have room are cached."""

    def __init__(self, rows: DepthRows, vlm: HFVLM, midi: Midi) -> None:
        self.rows, self.vlm, self.midi = rows, vlm, midi
        self._cached: LRUCache[int, Example] = LRUCache(CACHE)
        self._seen: LRUCache[str, Tensor] = LRUCache(CACHE)

    def __call__(self, index: int) -> Example:
        """Row number `index`. The rows beside it that share its files are made ready too, while
        no other must go for them: they are drawn later, when the files are long closed.

        Raises:
            BadData: it cannot be opened any more.
            ValueError: its conversation cannot be built.
        """
        if (known := self._cached.get(index)) is not None:
            return known
        made = self._cache(index)
        for other in self.rows.beside(index)[1:]:
            if other not in self._cached and self._cached.bytes + _bytes(made) <= CACHE:
                self._cache(other)
        return made

    def _cache(self, index: int) -> Example:
        made = self._made(index)
        self._cached.put(index, without_pixels(made, partial(self._made, index)), _bytes(made))
        return made

    def _made(self, index: int) -> Example:
        return example_of(self.rows[index], self.vlm.builder, self._features, self.midi)

    def _features(self, images: Sequence[Image]) -> list[Tensor]:
        """The features of `images`, of which many rows may share one."""
        known = [self._seen.get(image.id) for image in images]
        return [
            self._encoded(image) if features is None else features
            for image, features in zip(images, known, strict=True)
        ]

    def _encoded(self, image: Image) -> Tensor:
        (found,) = features_of(self.vlm.engine, [image])
        self._seen.put(image.id, found, found.nbytes)
        return found


def _bytes(example: Example) -> int:
    return example.image.nbytes + example.depth.nbytes
