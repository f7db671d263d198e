"""A strip of the frames that a model saw, in the order of time; those of looks are framed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mm.origins import Cropped, FrameOf
from mm.trace import Branch
from mm.types import Image

from .context import apart, seconds, smaller

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

SIDE = 180
"""The shorter side of a frame in a strip, in pixels."""

ACROSS = 8
_GAP = 8
_LOOKED = (214, 40, 40)


def strip(branch: Branch, *, across: int = ACROSS, letters: int = 16) -> Pixels:
    """The frames of `branch`, its question's and those of looks, which have a red border.

    A part of a frame that was enlarged stands behind its frame.

    Args:
        across: frames in a row, at most.
        letters: height of the letters of the times under them, in pixels.
    """
    from PIL import Image as PILImage

    cells = [_cell(image, looked, time, letters) for image, looked, time in _shown(branch)]
    width, height = max(c.size[0] for c in cells), max(c.size[1] for c in cells)
    across = min(len(cells), across)
    rows = -(-len(cells) // across)
    size = (across * (width + _GAP) + _GAP, rows * (height + _GAP) + _GAP)
    whole = PILImage.new("RGB", size, "white")
    for n, cell in enumerate(cells):
        row, column = divmod(n, across)
        whole.paste(cell, (_GAP + column * (width + _GAP), _GAP + row * (height + _GAP)))
    return whole


def _shown(branch: Branch) -> list[tuple[Image, bool, str]]:
    """Each image, whether it was looked at again, and what is written under it."""
    first = [(image, False) for image in branch.sample.images]
    shown = [*first, *((image, True) for image in branch.images)]
    origins = {image.id: image.origin for image, _ in shown}
    seen = [(frame, looked) for image, looked in shown for frame in apart(image)]
    found = []
    for image, looked in seen:
        origin = image.origin
        part = isinstance(origin, Cropped)
        source = origins.get(origin.parent) if part else origin
        if isinstance(source, FrameOf):
            label = f"{seconds(source.time_s)} s" + (", a part" if part else "")
            found.append(((source.video, source.time_s, part), (image, looked, label)))
    return [each for _, each in sorted(found, key=lambda pair: pair[0])]


def _cell(image: Image, looked: bool, label: str, letters: int) -> Pixels:
    from PIL import Image as PILImage
    from PIL import ImageDraw, ImageFont

    size, font = smaller(image.size, SIDE), ImageFont.load_default(letters)
    width = max(size[0], math.ceil(font.getlength(label)) + 4)
    cell = PILImage.new("RGB", (width, size[1] + letters * 3 // 2), "white")
    cell.paste(image.pixels.resize(size), (0, 0))
    pen = ImageDraw.Draw(cell)
    colour = _LOOKED if looked else (0, 0, 0)
    if looked:
        pen.rectangle((0, 0, size[0] - 1, size[1] - 1), outline=_LOOKED, width=4)
    pen.text((2, size[1] + 3), label, fill=colour, font=font)
    return cell
