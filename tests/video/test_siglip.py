"""Loading a SigLIP: once a process, however many threads ask."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from video import siglip


def test_threads_that_ask_at_once_get_one_model(monkeypatch) -> None:
    loaded: list[str] = []

    @lru_cache
    def slowly(name: str) -> object:
        loaded.append(name)
        time.sleep(0.02)
        return object()

    monkeypatch.setattr(siglip, "_loaded", slowly)
    with ThreadPoolExecutor(4) as threads:
        models = set(threads.map(siglip.load_siglip, ["a folder"] * 4))
    assert (len(models), loaded) == (1, ["a folder"])
