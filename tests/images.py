"""Images to ask about: noise, which no two seeds share, and plain colours."""

from __future__ import annotations

from functools import cache

import numpy as np
import PIL.Image

from mm.types import Image


@cache
def noise(seed: int = 0, size: tuple[int, int] = (96, 80)) -> Image:
    """An image whose pixels differ from those of every other seed; `size` is width, height."""
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image(PIL.Image.fromarray(pixels))


@cache
def plain(colour: str, size: tuple[int, int] = (60, 60)) -> Image:
    return Image(PIL.Image.new("RGB", size, colour))
