"""Cutting a region out of a picture the way a model was trained to see it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mm.geometry import XYXY, Size

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

Window = tuple[int, int, int, int]
"""A square xyxy box in whole pixels; where the picture is shorter than the square it reaches outside."""

GREY = (128, 128, 128)


def square_window(xyxy: XYXY, size: Size, margin: float = 1.3, minimum: int = 48) -> Window:
    """The square around the pixel box `xyxy` in a picture of `size`: what the "square" rule shows.

    Its side is `margin` times the box's longer side, at least `minimum` and at most the picture's longer side.
    It is centred on the box, then shifted to lie inside the picture; along an axis where the picture is
    shorter than the side it is centred on the picture instead.
    """
    x0, y0, x1, y1 = xyxy
    side = min(max(math.ceil(margin * max(x1 - x0, y1 - y0)), minimum), max(size))
    left = _slide((x0 + x1) / 2, side, size[0])
    top = _slide((y0 + y1) / 2, side, size[1])
    return left, top, left + side, top + side


def square_view(pixels: Pixels, window: Window, view: int = 128) -> Pixels:
    """The `window` of `pixels`, letterboxed in grey where it reaches outside, as `view` x `view` pixels."""
    from PIL import Image

    x0, y0, x1, y1 = window
    inside = (max(x0, 0), max(y0, 0), min(x1, pixels.width), min(y1, pixels.height))
    cut = pixels.convert("RGB").crop(inside)
    if inside != window:
        sheet = Image.new("RGB", (x1 - x0, y1 - y0), GREY)
        sheet.paste(cut, (inside[0] - x0, inside[1] - y0))
        cut = sheet
    return cut.resize((view, view), Image.Resampling.BICUBIC)


def _slide(centre: float, side: int, length: int) -> int:
    if side >= length:
        return (length - side) // 2
    return min(max(math.floor(centre - side / 2 + 0.5), 0), length - side)
