"""Where things are in an image, in one frame for all code.

A `Region` is in fractions of its image, so it survives resizing; only this file turns the numbers
a model writes into regions and back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Size = tuple[int, int]
"""(width, height) in pixels, as PIL reports it."""

XYXY = tuple[float, float, float, float]

_EPSILON = 1e-6  # a fraction that came from pixel 10 must go back to pixel 10


@dataclass(frozen=True)
class Region:
    """A box in fractions of its image, origin at the top left.

    0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1.
    """

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        if not (0 <= self.x0 < self.x1 <= 1 and 0 <= self.y0 < self.y1 <= 1):
            raise ValueError(f"Region must be ordered and inside [0, 1], got {self}")

    @classmethod
    def from_pixels(cls, xyxy: XYXY, size: Size) -> Region:
        """The part of `xyxy` inside an image of `size`.

        Raises:
            ValueError: a number is not finite, or nothing of the box lies inside the image.
        """
        if not all(math.isfinite(v) for v in xyxy):
            raise ValueError(f"box must be finite numbers, got {list(xyxy)}")
        width, height = size
        x0, x1 = (min(max(v / width, 0.0), 1.0) for v in (xyxy[0], xyxy[2]))
        y0, y1 = (min(max(v / height, 0.0), 1.0) for v in (xyxy[1], xyxy[3]))
        if x0 >= x1 or y0 >= y1:
            raise ValueError(f"box {list(xyxy)} is empty inside an image of {width}x{height}")
        return cls(x0, y0, x1, y1)

    def to_pixels(self, size: Size) -> tuple[int, int, int, int]:
        """The smallest whole-pixel xyxy box that covers the region; never empty."""
        width, height = size
        x0 = min(math.floor(self.x0 * width + _EPSILON), width - 1)
        y0 = min(math.floor(self.y0 * height + _EPSILON), height - 1)
        x1 = min(max(math.ceil(self.x1 * width - _EPSILON), x0 + 1), width)
        y1 = min(max(math.ceil(self.y1 * height - _EPSILON), y0 + 1), height)
        return x0, y0, x1, y1

    def within(self, outer: Region) -> Region:
        """This region of a crop, as a region of the image that `outer` was cropped from."""
        width, height = outer.x1 - outer.x0, outer.y1 - outer.y0
        return Region(
            outer.x0 + self.x0 * width,
            outer.y0 + self.y0 * height,
            min(outer.x0 + self.x1 * width, 1.0),
            min(outer.y0 + self.y1 * height, 1.0),
        )

    @property
    def area(self) -> float:
        """Share of the image, in (0, 1]."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)


WHOLE = Region(0.0, 0.0, 1.0, 1.0)


def iou(a: Region, b: Region) -> float:
    """Intersection over union, in [0, 1]."""
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (a.area + b.area - width * height)


def smart_resize(
    size: Size, factor: int, min_pixels: int, max_pixels: int, *, least: int = 0
) -> Size:
    """The nearest size in multiples of `factor` with an area within bounds, as Qwen-VL resizes.

    `least` is the shortest side before the area is looked at: 0 as the image processors of
    transformers have it, where a side may round to nothing and the area then grows; `factor` as
    qwen-vl-utils has it.
    """
    width, height = (max(least, round(side / factor) * factor) for side in size)
    if width * height > max_pixels:
        shrink = math.sqrt(size[0] * size[1] / max_pixels)
        width, height = (max(factor, math.floor(v / shrink / factor) * factor) for v in size)
    elif width * height < min_pixels:
        grow = math.sqrt(min_pixels / (size[0] * size[1]))
        width, height = (math.ceil(side * grow / factor) * factor for side in size)
    return width, height


@dataclass(frozen=True)
class BoxFormat:
    """How a model family writes a box in text.

    `frame` is the size its numbers are measured in; None means pixels of the image as the model
    saw it. `decimals` is how many digits it writes after the point.
    """

    key: str = "bbox_2d"
    order: Literal["xyxy", "yxyx"] = "xyxy"
    frame: Size | None = (1000, 1000)
    decimals: int = 0

    def read(self, numbers: XYXY, seen: Size) -> Region:
        """The region that `numbers` mean, for a model that saw the image at `seen` pixels; clips.

        Raises:
            ValueError: nothing of the box lies inside the image.
        """
        a, b, c, d = numbers
        xyxy = (a, b, c, d) if self.order == "xyxy" else (b, a, d, c)
        return Region.from_pixels(xyxy, self.frame or seen)

    def write(self, region: Region, seen: Size) -> list[float]:
        """The numbers a model of this family writes for `region`; `read` never finds them empty."""
        width, height = self.frame or seen
        x0, x1 = self._ends(region.x0, region.x1, width)
        y0, y1 = self._ends(region.y0, region.y1, height)
        return [x0, y0, x1, y1] if self.order == "xyxy" else [y0, x0, y1, x1]

    def _ends(self, low: float, high: float, length: int) -> tuple[float, float]:
        unit = 10**-self.decimals if self.decimals else 1
        start, end = (self._rounded(v * length) for v in (low, high))
        if start < end:
            return start, end
        middle = math.floor((low + high) / 2 * length / unit) * unit  # a sliver: the unit it is in
        start = self._rounded(min(middle, length - unit))
        return start, self._rounded(start + unit)

    def _rounded(self, value: float) -> float:
        return round(value, self.decimals) if self.decimals else round(value)
