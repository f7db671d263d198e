"""Cutting a region out of an image the way a model was trained to see it.

A crop is always cut from the original image, so a second look at a first look loses no detail;
`Cropped.parent` is therefore the original's id and `Cropped.region` the part of the original shown.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mm.geometry import XYXY, Region, Size, smart_resize
from mm.origins import Cropped
from mm.types import Image
from mm.vlm import CropRule

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

Window = tuple[int, int, int, int]
"""A square xyxy box in pixels; where the image is shorter than the square, it reaches outside."""

MAX_ASPECT = 100
"""No crop of VLM-R3 is longer than this many times its width."""

GREY = (128, 128, 128)


def crop(
    image: Image,
    region: Region,
    *,
    rule: CropRule = "vlm_r3",
    factor: int = 28,
    min_pixels: int = 4 * 28 * 28,
    max_pixels: int = 1024 * 28 * 28,
    view: int = 128,
) -> Image:
    """`region` of `image` enlarged; its origin says what was really cut.

    Args:
        rule: "vlm_r3" cuts the region, thin ones grown, and enlarges it up to twice; "square"
            shows `square_window` around it.
        factor: vlm_r3: sides of the crop are multiples of it, and no smaller part is cut.
        min_pixels, max_pixels: vlm_r3: bounds on the crop's area.
        view: square: side of the crop.
    """
    if rule == "square":
        return _square(image, region, view)
    box = sturdy(inclusive_box(region, image.size), image.size, minimum=factor)
    size = (box[2] - box[0], box[3] - box[1])
    scale = enlargement(size[0] * size[1] / (image.size[0] * image.size[1]))
    enlarged = (max(int(scale * size[0]), 1), max(int(scale * size[1]), 1))
    target = smart_resize(enlarged, factor, min_pixels, max_pixels, least=factor)
    return _cut(image, box, target)


def enlargement(share: float) -> float:
    """How many times VLM-R3 enlarges a crop that is `share` of its image's area: 2 down to 1."""
    return min(max(2.0 - (share - 0.125) / 0.375, 1.0), 2.0)


def inclusive_box(region: Region, size: Size) -> tuple[int, int, int, int]:
    """The xyxy box VLM-R3 cuts: both corner pixels belong to it; never empty."""
    width, height = size
    x0, y0, x1, y1 = (
        math.floor(v + 1e-6)  # a fraction that came from pixel 10 must go back to pixel 10
        for v in (region.x0 * width, region.y0 * height, region.x1 * width, region.y1 * height)
    )
    return min(x0, width - 1), min(y0, height - 1), min(x1 + 1, width), min(y1 + 1, height)


def sturdy(
    xyxy: tuple[int, int, int, int], size: Size, *, minimum: int, max_aspect: float = MAX_ASPECT
) -> tuple[int, int, int, int]:
    """`xyxy` with a short side grown around its centre, as far as an image of `size` allows.

    Afterwards each side has at least `minimum` pixels and `1 / max_aspect` of the other.
    """
    x0, y0, x1, y1 = xyxy
    least = max(minimum, math.ceil(max(x1 - x0, y1 - y0) / max_aspect))
    x0, x1 = _grow(x0, x1, least, size[0])
    y0, y1 = _grow(y0, y1, least, size[1])
    return x0, y0, x1, y1


def square_window(xyxy: XYXY, size: Size, margin: float = 1.3, minimum: int = 48) -> Window:
    """The square around the pixel box `xyxy` in an image of `size`: what the "square" rule shows.

    Its side is `margin` times the box's longer side, at least `minimum` and at most the image's
    longer side. It is centred on the box, then shifted to lie inside the image; along an axis
    where the image is shorter than the side it is centred on the image instead.
    """
    x0, y0, x1, y1 = xyxy
    side = min(max(math.ceil(margin * max(x1 - x0, y1 - y0)), minimum), max(size))
    left = _slide((x0 + x1) / 2, side, size[0])
    top = _slide((y0 + y1) / 2, side, size[1])
    return left, top, left + side, top + side


def square_view(pixels: Pixels, window: Window, view: int = 128) -> Pixels:
    """The `window` of `pixels` as `view` x `view` pixels, grey where it reaches outside."""
    from PIL import Image as PILImage

    x0, y0, x1, y1 = window
    inside = _clip(window, pixels.size)
    cut = pixels.convert("RGB").crop(inside)
    if inside != window:
        sheet = PILImage.new("RGB", (x1 - x0, y1 - y0), GREY)
        sheet.paste(cut, (inside[0] - x0, inside[1] - y0))
        cut = sheet
    return cut.resize((view, view), PILImage.Resampling.BICUBIC)


def in_original(region: Region, cut: Region, size: Size, rule: CropRule) -> Region:
    """`region` of a crop, as a region of the image of `size` that `cut` was cropped from.

    Raises:
        ValueError: all of it lies in the grey beside an image too short for its square.
    """
    if rule == "vlm_r3":
        return region.within(cut)
    x0, y0, x1, y1 = cut.to_pixels(size)
    side = max(x1 - x0, y1 - y0)
    left, top = x0 - (side - (x1 - x0) + 1) // 2, y0 - (side - (y1 - y0) + 1) // 2
    box = (
        left + region.x0 * side,
        top + region.y0 * side,
        left + region.x1 * side,
        top + region.y1 * side,
    )
    return Region.from_pixels(box, size)


def _square(image: Image, region: Region, view: int) -> Image:
    window = square_window(region.to_pixels(image.size), image.size)
    shown = Region.from_pixels(_clip(window, image.size), image.size)
    pixels = square_view(image.pixels, window, view)
    return Image(pixels, Cropped(image.id, shown, pixels.size))


def _cut(image: Image, box: tuple[int, int, int, int], size: Size) -> Image:
    from PIL import Image as PILImage

    pixels = image.pixels.crop(box).resize(size, PILImage.Resampling.LANCZOS)
    return Image(pixels, Cropped(image.id, Region.from_pixels(box, image.size), size))


def _clip(window: Window, size: Size) -> Window:
    x0, y0, x1, y1 = window
    return max(x0, 0), max(y0, 0), min(x1, size[0]), min(y1, size[1])


def _grow(low: int, high: int, least: int, length: int) -> tuple[int, int]:
    side = min(max(high - low, least), length)
    start = min(max((low + high - side) // 2, 0), length - side)
    return start, start + side


def _slide(centre: float, side: int, length: int) -> int:
    if side >= length:
        return (length - side) // 2
    return min(max(math.floor(centre - side / 2 + 0.5), 0), length - side)
