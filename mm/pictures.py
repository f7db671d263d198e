"""Pictures to tensors: each picture alone, so that a cached context equals a fresh one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from .families import Family
from .geometry import Size
from .layouts import Layout
from .types import Image

if TYPE_CHECKING:
    from torch import Tensor

_BUDGET = 256 * 2**20  # bytes of tensors: some dozens of pictures at a usual resolution


class Pictures:
    """One family's image processor, its latest results kept; safe to use from several threads."""

    def __init__(self, family: Family, config: Any, processor: Any) -> None:
        self._family = family
        self._processor = processor
        self._kept: OrderedDict[str, Mapping[str, Tensor]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self.layout: Callable[[Size], Layout] = lru_cache(1024)(
            partial(family.layout, config, processor)
        )

    def tensors(self, image: Image) -> Mapping[str, Tensor]:
        """What the encoder takes for `image` alone."""
        with self._lock:
            if image.id in self._kept:
                self._kept.move_to_end(image.id)
                return self._kept[image.id]
        made = self._process(image)
        with self._lock:
            if image.id not in self._kept:
                self._kept[image.id] = made
                self._bytes += _size(made)
            while self._bytes > _BUDGET and len(self._kept) > 1:
                self._bytes -= _size(self._kept.popitem(last=False)[1])
        return made

    def _process(self, image: Image) -> Mapping[str, Tensor]:
        made = self._processor(
            images=[image.pixels], return_tensors="pt", **dict(self._family.options)
        )
        return {k: made[k] for k in self._family.tensors if k in made}


def _size(tensors: Mapping[str, Tensor]) -> int:
    return sum(t.nbytes for t in tensors.values())
