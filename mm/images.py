"""Pictures from outside, opened the way a person sees them or refused in one line."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .types import Image, Loaded

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

MAX_PIXELS = 100_000_000
"""Pixels a picture may have unless the caller or MM_MAX_PIXELS says otherwise: 300 MB once decoded."""

MAX_ASPECT = 200.0
"""How many times longer one side may be than the other unless the caller or MM_MAX_ASPECT says otherwise."""

Source = str | Path | bytes | BinaryIO


class BadImage(ValueError):
    """A picture that cannot be used; the message names it and says the remedy."""


def open_image(
    source: Source | Pixels, *, max_pixels: int | None = None, max_aspect: float | None = None
) -> Image:
    """The picture at `source` as a person sees it: upright, RGB, on white, the first frame.

    Args:
        source: a path, the bytes of a file, an open binary file, or a PIL image.
        max_pixels: the most width * height; None means MM_MAX_PIXELS, or 100 million.
        max_aspect: the longest side over the shortest; None means MM_MAX_ASPECT, or 200.

    Raises:
        BadImage: there is no such picture, it cannot be read, or it is over a limit. Nothing over a
            limit is decoded.
    """
    from PIL.Image import Image as Pixels

    max_pixels = int(_limit("MM_MAX_PIXELS", MAX_PIXELS) if max_pixels is None else max_pixels)
    max_aspect = _limit("MM_MAX_ASPECT", MAX_ASPECT) if max_aspect is None else max_aspect
    if isinstance(source, Pixels):
        _check_size("picture in memory", source.size, max_pixels, max_aspect)
        return Image(to_rgb(source))
    if isinstance(source, (str, Path)):
        return Image(_decode(str(source), read_file(source), max_pixels, max_aspect), Loaded(str(source)))
    data = source if isinstance(source, bytes) else source.read()
    return Image(_decode(str(getattr(source, "name", "bytes in memory")), data, max_pixels, max_aspect))


def to_rgb(pixels: Pixels) -> Pixels:
    """`pixels` as a person sees them: upright, 8-bit RGB, what is transparent on white."""
    from PIL import Image as pil
    from PIL import ImageOps

    pixels = ImageOps.exif_transpose(pixels)
    if pixels.mode.startswith("I;16"):
        pixels = pixels.point(lambda v: v / 257, "L") if pixels.mode == "I;16" else pixels
    if pixels.has_transparency_data:
        pixels = pixels.convert("RGBA")
        white = pil.new("RGBA", pixels.size, "white")
        return pil.alpha_composite(white, pixels).convert("RGB")
    return pixels.convert("RGB")


def read_file(path: str | Path) -> bytes:
    return Path(path).read_bytes()


def _decode(name: str, data: bytes, max_pixels: int, max_aspect: float) -> Pixels:
    from PIL import Image as pil

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with pil.open(io.BytesIO(data)) as pixels:
                _check_size(name, pixels.size, max_pixels, max_aspect)
                pixels.load()
                return to_rgb(pixels)
        except OSError as error:
            raise BadImage(f"{name!r} is not a picture this Pillow can read: {error}") from None


def _check_size(name: str, size: tuple[int, int], max_pixels: int, max_aspect: float) -> None:
    width, height = size
    if width * height > max_pixels:
        raise BadImage(f"{name!r} is {width}x{height}")
    if max(size) > max_aspect * min(size):
        raise BadImage(f"{name!r} is {width}x{height}")


def _limit(name: str, default: float) -> float:
    return float(os.environ.get(name, default))
