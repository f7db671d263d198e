"""A depth map for people: in colour, with its scale and the regions it was asked about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mm.geometry import Region, Size

from .depth import DepthMap, farness, nearest_and_farthest

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as Pixels

_STOPS = ((255, 237, 160), (254, 178, 76), (227, 26, 28), (106, 0, 87), (20, 11, 60))
"""Colours from the nearest to the farthest, each darker than the one before."""

_UNKNOWN = (128, 128, 128)
_SHARE = 0.12
"""Of the map's width, how much the scale beside it takes."""


def coloured(depth: DepthMap, things: Sequence[Mapping[str, Any]] = ()) -> Pixels:
    """`depth` in colour, near light and far dark, unknown grey, with a scale at its right.

    Args:
        things: `name`, `region` (four fractions) and `depth` of each, as a trace's note has them.
    """
    from PIL import Image as PILImage
    from PIL import ImageDraw

    pixels = _coloured(farness(depth))
    pixels[~depth.valid] = _UNKNOWN
    map_ = PILImage.fromarray(pixels)
    pen = ImageDraw.Draw(map_)
    line = max(2, min(map_.size) // 200)
    for thing in things:
        box = Region(*thing["region"]).to_pixels(map_.size)
        pen.rectangle(box, outline="white", width=line)
        said = _said(thing["name"], thing["depth"], depth)
        _label(pen, (box[0] + line, box[1]), said, map_.size)
    return _with_scale(map_, depth)


def _coloured(far: np.ndarray) -> np.ndarray:
    """RGB (H, W, 3) of how far each pixel is, from 0, the nearest, to 1."""
    import numpy as np

    at = np.linspace(0, 1, len(_STOPS))
    bands = [np.interp(far, at, [stop[i] for stop in _STOPS]) for i in range(3)]
    return np.stack(bands, -1).round().astype(np.uint8)


def _said(name: str, value: float | None, depth: DepthMap) -> str:
    if value is None:
        return f"{name}: not known"
    return f"{name} {value:.2f} m" if depth.kind == "metric" else name


def _label(pen: Any, at: tuple[float, float], text: str, size: Size) -> None:
    """Above `at`, or below where there is no room; further left where it would leave the map."""
    from PIL import ImageFont

    font = ImageFont.load_default(max(12, min(size) // 32))
    at = (max(min(at[0], size[0] - 2 - pen.textlength(text, font=font)), 0), at[1])
    anchor = "lb" if pen.textbbox(at, text, font=font, anchor="lb")[1] >= 0 else "lt"
    pen.rectangle(pen.textbbox(at, text, font=font, anchor=anchor), fill=(0, 0, 0))
    pen.text(at, text, fill="white", font=font, anchor=anchor)


def _with_scale(map_: Pixels, depth: DepthMap) -> Pixels:
    import numpy as np
    from PIL import Image as PILImage
    from PIL import ImageDraw, ImageFont

    width, height = map_.size
    font = ImageFont.load_default(max(12, min(map_.size) // 40))
    words = _ends(depth)
    bar = max(round(width * _SHARE), 90) // 4
    text_at = width + 14 + bar
    right = text_at + 6 + round(max(font.getlength(text) for text in words))
    whole = PILImage.new("RGB", (right, height), "white")
    whole.paste(map_, (0, 0))
    scale = np.repeat(np.linspace(0, 1, height)[:, None], bar, 1)
    whole.paste(PILImage.fromarray(_coloured(scale)), (width + 8, 0))
    pen = ImageDraw.Draw(whole)
    for text, y, anchor in ((words[0], 4, "la"), (words[1], height - 4, "ld")):
        pen.text((text_at, y), text, fill="black", font=font, anchor=anchor)
    return whole


def _ends(depth: DepthMap) -> tuple[str, str]:
    if depth.kind == "metric":
        near, far = nearest_and_farthest(depth)
        return f"{near:.2f} m", f"{far:.2f} m"
    return "near", "far"
