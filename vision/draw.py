"""Images for people: where a model looked, and sheets of many images."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

from mm.geometry import Region, Size
from mm.trace import Branch
from mm.types import Image

from .regions import regions_of

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

Box = tuple[int, int, int, int]

COLOURS = ("#ffd400", "#00d5ff", "#ff5fa2", "#7dff5a", "#ff9130", "#c79bff")
"""Light ones, drawn between black lines, so that they show on dark and on light."""

INK, PAPER = "#000000", "#e4e4e8"

_MAX_CAPTION, _MAX_CAPTION_LINES = 400, 4
_MIN_DRAWN = 256


def draw(
    image: Image, looked: Branch | Sequence[Region], *, labels: Sequence[str] | None = None
) -> Pixels:
    """`image` with the regions that were looked at, numbered from 1 in the order of looking.

    An image shorter than 256 pixels on both sides is enlarged a whole number of times.

    Args:
        looked: regions of `image`, or a branch, of which those in `image` are drawn.
        labels: instead of the numbers, one for each region.

    Raises:
        ValueError: `labels` and regions differ in number.
    """
    from PIL import ImageDraw

    numbered = _numbered(image, looked)
    names = [name for name, _ in numbered] if labels is None else labels
    if len(names) != len(numbered):
        raise ValueError(f"{len(names)} labels for {len(numbered)} regions")
    drawn = _readable(image.pixels)
    pen = ImageDraw.Draw(drawn)
    width = max(2, round(min(drawn.size) / 200))
    boxes = [region.to_pixels(drawn.size) for _, region in numbered]
    for at, box in enumerate(boxes):
        _frame(pen, box, drawn.size, COLOURS[at % len(COLOURS)], width)
    _tags(pen, boxes, names, drawn.size)
    return drawn


def sheet(
    images: Sequence[Image | Pixels],
    captions: Sequence[str] = (),
    *,
    columns: int | None = None,
    cell: int = 256,
) -> Pixels:
    """Thumbnails in a grid, row by row, each over its caption of at most four lines.

    `cell` is the side, in pixels, that a thumbnail fits in; smaller images are not enlarged.

    Raises:
        ValueError: there are no images, or captions and images differ in number.
    """
    from PIL import Image as PILImage
    from PIL import ImageDraw

    if not images or len(captions) not in (0, len(images)):
        raise ValueError(
            f"one caption for each of one or more images; got {len(captions)} and {len(images)}"
        )
    columns = columns or math.ceil(math.sqrt(len(images)))
    font, gap = _font(max(12, cell // 16)), max(4, cell // 32)
    texts = [_wrapped(caption, font, cell) for caption in captions] or [""] * len(images)
    rows = [texts[at : at + columns] for at in range(0, len(texts), columns)]
    heights = [max(_height(text, font) for text in row) + cell + 2 * gap for row in rows]
    page = PILImage.new("RGB", (columns * (cell + gap) + gap, sum(heights) + gap), PAPER)
    pen = ImageDraw.Draw(page)
    for at, (image, text) in enumerate(zip(images, texts, strict=True)):
        row, column = divmod(at, columns)
        left, top = gap + column * (cell + gap), gap + sum(heights[:row])
        thumbnail = _thumbnail(image.pixels if isinstance(image, Image) else image, cell)
        page.paste(thumbnail, (left + (cell - thumbnail.width) // 2, top + cell - thumbnail.height))
        pen.multiline_text((left, top + cell + gap // 2), text, fill=INK, font=font)
    return page


def _numbered(image: Image, looked: Branch | Sequence[Region]) -> list[tuple[str, Region]]:
    if not isinstance(looked, Branch):
        return [(str(at), region) for at, region in enumerate(looked, start=1)]
    prompt = [*enumerate(looked.sample.images)]
    same = [at for at, other in prompt if other is image]  # one of several with the same pixels
    mine = same or [at for at, other in prompt if other.id == image.id]
    found = enumerate(regions_of(looked), start=1)
    return [(str(at), region) for at, (index, region) in found if index in mine]


def _readable(pixels: Pixels) -> Pixels:
    """A copy to draw on, large enough for a tag."""
    from PIL import Image as PILImage

    times = math.ceil(_MIN_DRAWN / max(pixels.size))
    if times == 1:
        return pixels.convert("RGB").copy()
    size = (pixels.width * times, pixels.height * times)
    return pixels.convert("RGB").resize(size, PILImage.Resampling.NEAREST)


def _frame(pen: ImageDraw, box: Box, size: Size, colour: str, width: int) -> None:
    """A coloured frame along the inside of `box` with a thin black line on both sides."""
    edge = max(1, width // 2)
    x0, y0, x1, y1 = box[0] - edge, box[1] - edge, box[2] - 1 + edge, box[3] - 1 + edge
    outer = (max(x0, 0), max(y0, 0), min(x1, size[0] - 1), min(y1, size[1] - 1))
    lines = ((INK, edge), (colour, width), (INK, edge))
    inset = 0
    for ink, thickness in lines:
        inner = (outer[0] + inset, outer[1] + inset, outer[2] - inset, outer[3] - inset)
        if inner[0] <= inner[2] and inner[1] <= inner[3]:
            pen.rectangle(inner, outline=ink, width=thickness)
        inset += thickness


def _tags(pen: ImageDraw, boxes: Sequence[Box], names: Sequence[str], size: Size) -> None:
    """A tag at each box, above it where there is room, inside the image always."""
    font = _font(min(max(12, min(size) // 28), max(6, min(size) // 2)))
    pad = max(2, min(size) // 250)
    taken: list[Box] = []
    for at, (box, name) in enumerate(zip(boxes, names, strict=True)):
        left, top, right, bottom = pen.textbbox((0, 0), name, font=font)
        width = math.ceil(max(right - left, bottom - top)) + 2 * pad
        tag = _place(box, (width, math.ceil(bottom - top) + 2 * pad + 1), size, taken)
        taken.append(tag)
        pen.rectangle(tag, fill=COLOURS[at % len(COLOURS)], outline=INK)
        middle = ((tag[0] + tag[2]) / 2, (tag[1] + tag[3]) / 2)
        pen.text(middle, name, fill=INK, font=font, anchor="mm")


def _place(box: Box, tag: Size, size: Size, taken: Sequence[Box]) -> Box:
    """The first place around `box` whose tag covers no other; the very first when all do."""
    x0, y0, x1, y1 = box
    width, height = tag
    lefts = (x0, x1 - width, x0 + width, (x0 + x1 - width) // 2)
    tops = (y0 - height, y1, y0, y1 - height) if y0 >= height else (y0, y1, y1 - height)
    places = []
    for top, left in product(tops, lefts):
        left = max(min(left, size[0] - 1 - width), 0)
        top = max(min(top, size[1] - 1 - height), 0)
        place = (left, top, min(left + width, size[0] - 1), min(top + height, size[1] - 1))
        places.append(place)
    return next((p for p in places if not any(_overlap(p, t) for t in taken)), places[0])


def _overlap(a: Box, b: Box) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _thumbnail(pixels: Pixels, cell: int) -> Pixels:
    small = pixels.convert("RGB")
    small.thumbnail((cell, cell))
    return small


def _wrapped(text: str, font: FreeTypeFont | ImageFont, width: int) -> str:
    """`text` broken into lines of at most `width` pixels; what has no room becomes an ellipsis."""
    lines = [""]
    for word in _words(text, font, width):
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    if len(lines) > _MAX_CAPTION_LINES:
        last = lines[_MAX_CAPTION_LINES - 1]
        while last and font.getlength(last + "...") > width:
            last = last[:-1]
        lines[_MAX_CAPTION_LINES - 1 :] = [last.rstrip() + "..."]
    return "\n".join(lines)


def _words(text: str, font: FreeTypeFont | ImageFont, width: int) -> list[str]:
    """The words of `text`, as much of it as could be shown; those longer than a line in pieces."""
    pieces: list[str] = []
    for word in (text if len(text) <= _MAX_CAPTION else text[:_MAX_CAPTION] + "...").split():
        while len(word) > 1 and font.getlength(word) > width:
            lengths = range(1, len(word))
            fits = max(bisect_right(lengths, width, key=lambda n, w=word: font.getlength(w[:n])), 1)
            pieces.append(word[:fits])
            word = word[fits:]
        pieces.append(word)
    return pieces


def _height(text: str, font: FreeTypeFont | ImageFont) -> int:
    from PIL import Image as PILImage
    from PIL import ImageDraw

    if not text:
        return 0
    pen = ImageDraw.Draw(PILImage.new("RGB", (1, 1)))
    return math.ceil(pen.multiline_textbbox((0, 0), text, font=font)[3])


def _font(size: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont as Fonts

    return Fonts.load_default(size)
