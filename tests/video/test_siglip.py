"""A SigLIP is loaded once a process, however many threads ask, and encodes an image once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch
from PIL import Image

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


def test_an_image_is_encoded_once() -> None:
    model = siglip.load_siglip("tiny-siglip")
    images = [Image.new("RGB", (32, 32), (n, 0, 7)) for n in (1, 2, 1)]
    seen: list[int] = []
    process = model._process

    def counted(images, **kw):
        seen.append(len(images))
        return process(images=images, **kw)

    fresh = siglip.Siglip(model._model, model._tokenizer, counted)
    first = fresh.images(images)
    assert torch.equal(first[0], first[2])
    assert torch.equal(fresh.images(images[::-1]), first.flip(0))
    assert torch.allclose(model.images(images), first)
    assert seen == [2]
