"""Images and depth maps of rows, each opened once for rows that stand near each other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import TypeVar

from mm.lru_cache import LRUCache
from mm.types import Image
from vision.depth import DepthMap

OPENED = 2**28
"""Bytes of opened images and maps that are held."""

T = TypeVar("T", Image, DepthMap)


class OpenedFiles:
    """What was opened last, under a budget of bytes; safe to use from several threads."""

    def __init__(self, budget: int = OPENED) -> None:
        self._cache: LRUCache[Hashable, Image | DepthMap] = LRUCache(budget)
        self._lock = threading.Lock()

    def get(self, key: Hashable, kind: type[T], opened: Callable[[], T]) -> T:
        """What was opened under `key`, of this kind; else what `opened()` gives now."""
        with self._lock:
            found = self._cache.get((kind, key))
        if isinstance(found, kind):
            return found
        made = opened()  # outside of the lock: others open theirs meanwhile
        with self._lock:
            self._cache.put((kind, key), made, _bytes(made))
        return made


def _bytes(opened: Image | DepthMap) -> int:
    if isinstance(opened, DepthMap):
        return opened.values.nbytes + opened.valid.nbytes
    width, height = opened.size
    return 3 * width * height
