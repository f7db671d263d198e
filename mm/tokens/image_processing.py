"""Pictures to tensors: each picture alone, so that a cached context equals a fresh one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from mm.families.image_layouts import Layout
from mm.families.registry import RECALLING, Family
from mm.families.visual_memory import Block, Recall, Sheet, block, sheet
from mm.geometry import Size
from mm.types import Features, Image
from mm.vlm import Memory

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels
    from torch import Tensor

_BUDGET = 256 * 2**20  # bytes of tensors: some dozens of pictures at a usual resolution


class Pictures:
    """One family's image processor, its latest results kept; safe to use from several threads.

    `memory` is how its pictures are remembered, None where they cannot be.
    """

    def __init__(
        self, family: Family, config: Any, processor: Any, memory: Memory | None = None
    ) -> None:
        self._family = family
        self._config = config
        self._memory = memory
        self._processor = processor
        self._kept: OrderedDict[str, Mapping[str, Tensor]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self.layout: Callable[[Size], Layout] = lru_cache(1024)(
            partial(family.layout, config, processor)
        )

    def tensors(self, seen: Image | Features) -> Mapping[str, Tensor]:
        """What the encoder takes for one picture alone, or for the memory it is remembered by."""
        key = key_of(seen)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = self._process(seen.pixels) if isinstance(seen, Image) else self._tiles(seen)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self._bytes += _size(made)
            while self._bytes > _BUDGET and len(self._kept) > 1:
                self._bytes -= _size(self._kept.popitem(last=False)[1])
        return made

    def block(self, features: Features) -> Block:
        """Which visual tokens of its picture's memory `features` are.

        Raises:
            ValueError: the model remembers no pictures.
        """
        _, sheet = self._remembered(features)
        return block(features.region, sheet, features.pool)

    def patches(self, seen: Image | Features) -> int:
        """What the encoder computes for it, where it is not kept."""
        if isinstance(seen, Image):
            return self.layout(seen.size).patches
        recall, sheet = self._remembered(seen)
        return sheet.grid[0] * sheet.grid[1] * recall.cell(self._config)

    def _tiles(self, features: Features) -> Mapping[str, Tensor]:
        recall, sheet = self._remembered(features)
        return recall.tensors([self._process(t) for t in sheet.cut(features.image.pixels)])

    def _remembered(self, features: Features) -> tuple[Recall, Sheet]:
        recall = self._family.recall
        if recall is None or self._memory is None:
            raise ValueError(
                f"{self._family.name} cannot replay what it saw: its features are no grid; "
                f"{' and '.join(RECALLING)} can"
            )
        found = sheet(self._memory, features.image.size, self.cells, snapshot=features.snapshot)
        return recall, found

    def cells(self, size: Size) -> Size:
        """(columns, rows) of the visual tokens that show the whole of a picture of `size`."""
        grid = self.layout(size).grid
        return grid.columns, grid.rows

    def _process(self, pixels: Pixels) -> Mapping[str, Tensor]:
        made = self._processor(images=[pixels], return_tensors="pt", **dict(self._family.options))
        return {k: made[k] for k in self._family.tensors if k in made}


def key_of(seen: Image | Features) -> str:
    """What an encoded picture, or memory, is kept under; all regions of a memory share it."""
    if isinstance(seen, Image):
        return seen.id
    return f"{seen.image.id} {'snapshot' if seen.snapshot else 'memory'}"


def _size(tensors: Mapping[str, Tensor]) -> int:
    return sum(t.nbytes for t in tensors.values())
