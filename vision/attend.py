"""Attention-guided crops for any checkpoint, without training (ViCrop, arXiv 2502.17422).

The model reads the question once; where its attention goes is cut out and shown beside the image,
and then the question is answered. Nothing is asked of the model but its attention.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple, cast

import numpy as np

from mm.errors import ModelError
from mm.geometry import Region, Size
from mm.session import Session
from mm.trace import Branch
from mm.types import Conversation, Cost, Image, Message, Text, user
from mm.vlm import Aim, Attentive, CropRule

from .crop import crop
from .show_region import answer, present
from .zoom import Camera, ChooseRegion, Cut
from .zoom_tool import BadCall, RegionCall

GENERIC = "Write a general description of the image."
RATIOS = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
"""Sides of the windows tried, in multiples of the smallest."""

TINY = 1e-8


class Spot(NamedTuple):
    """A square window of an image, and how sharply attention falls into it."""

    region: Region
    sharpness: float


def attend(
    session: Session,
    *,
    aim: Aim | None = None,
    gradient: bool = False,
    tile: int | None = None,
    rule: CropRule | None = None,
    choose_region: ChooseRegion | None = None,
    cut: Cut = crop,
) -> Branch:
    """Show the part of the image that the question makes the model look at, then let it answer.

    Among several images it is the one with the sharpest window. A question without images is
    only asked.

    Args:
        aim: which attention tells; None for what the checkpoint names, or its family's.
        gradient: weigh heads by the gradient of the answer's first token instead of dividing by the
            attention under a generic request.
        tile: look at images with a side above this many pixels in tiles of at most so many, for
            details that the whole image does not show; None looks at each as a whole.
        rule: how the crop is cut; None for the rule the model was trained on.
        choose_region: replaces the region found, for controls.
        cut: `crop` with other options.

    Raises:
        ModelError: the model failed, or shows no attention.
    """
    if session.images:
        vlm, aim = _attentive(session, aim)
        (index, spot), cost = _find(vlm, session.messages, aim, gradient, tile)
        region = choose_region(session.sample, spot.region) if choose_region else spot.region
        asked = RegionCall(index, region)
        with suppress(BadCall):  # nothing but the grey beside a narrow image
            present(session, asked, Camera(rule, cut).shoot(session, asked), cost=cost)
    return answer(session)


def window(attention: np.ndarray, size: Size, base: int) -> Spot:
    """The window of an image of `size` that attention (rows, columns) singles out.

    Squares of `base` to twice as many pixels slide over the map; that whose sum stands out most
    from its four neighbours', per cell, is taken (papers' `box`). A window that covers the whole
    map means the whole image.
    """
    rows, columns = attention.shape
    best: Spot | None = None
    for ratio in RATIOS:
        side = base * ratio
        wide = min(max(int(side / (size[0] / columns)), 1), columns)
        high = min(max(int(side / (size[1] / rows)), 1), rows)
        if wide == columns and high == rows:
            if ratio == 1:
                return Spot(Region(0.0, 0.0, 1.0, 1.0), 0.0)
            continue
        x, y, sharpness = _sharpest(attention, wide, high)
        if best is None or sharpness > best.sharpness:
            centre = ((x + wide / 2) / columns * size[0], (y + high / 2) / rows * size[1])
            best = Spot(_square(centre, side, size), sharpness)
    assert best is not None
    return best


def generic(conversation: Conversation) -> Conversation:
    """The same images with a request that asks for nothing in particular."""
    images = [image for message in conversation for image in message.images]
    return (user(*images, GENERIC),)


def _attentive(session: Session, aim: Aim | None) -> tuple[Attentive, Aim]:
    aim = aim or session.vlm.traits.aim
    if aim is None or not hasattr(session.vlm, "attention"):
        raise ModelError(
            f"{session.vlm.name} shows no attention, which attend needs: use a checkpoint of a "
            "listed family, or another strategy"
        )
    return cast(Attentive, session.vlm), aim


def _find(
    vlm: Attentive, conversation: Conversation, aim: Aim, gradient: bool, tile: int | None
) -> tuple[tuple[int, Spot], Cost]:
    """The image to look at and where, and what finding it cost."""
    images = [image for message in conversation for image in message.images]
    base = [max(aim.base, min(p.size) // 16) for p in images]
    maps, cost = _maps(vlm, conversation, aim, gradient)
    for i, image in enumerate(images):
        if tile and max(image.size) > tile:
            maps[i], more = _tiled(vlm, conversation, image, aim, gradient, tile)
            cost += more
    spots = [window(m, p.size, b) for m, p, b in zip(maps, images, base, strict=True)]
    return max(enumerate(spots), key=lambda pair: pair[1].sharpness), cost


def _maps(
    vlm: Attentive, conversation: Conversation, aim: Aim, gradient: bool
) -> tuple[list[np.ndarray], Cost]:
    seen = vlm.attention(conversation, [aim.layer], query=aim.query, gradient=gradient)
    if gradient or not aim.relative:
        return list(seen.maps[0]), seen.cost
    usual = vlm.attention(generic(conversation), [aim.layer], query=aim.query)
    maps = [a / (b + TINY) for a, b in zip(seen.maps[0], usual.maps[0], strict=True)]
    return maps, seen.cost + usual.cost


def _tiled(
    vlm: Attentive,
    conversation: Conversation,
    image: Image,
    aim: Aim,
    gradient: bool,
    tile: int,
) -> tuple[np.ndarray, Cost]:
    """One map of `image` from its tiles, each looked at alone with the same words."""
    columns, rows = (max(math.ceil(side / tile), 1) for side in image.size)
    cost, lines = Cost(), []
    for row in range(rows):
        line = []
        for column in range(columns):
            part = Region(column / columns, row / rows, (column + 1) / columns, (row + 1) / rows)
            piece = Image(image.pixels.crop(part.to_pixels(image.size)))
            (seen,), more = _maps(vlm, _about(conversation, piece), aim, gradient)
            line.append(seen)
            cost += more
        lines.append(_joined(line, axis=1))
    return _joined(lines, axis=0), cost


def _about(conversation: Conversation, piece: Image) -> Conversation:
    """The last user's words about `piece` alone."""
    words = [m for m in conversation if m.role == "user"][-1]
    return (Message("user", (piece, *(p for p in words.parts if isinstance(p, Text)))),)


def _joined(maps: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """`maps` side by side; tiles may differ by a cell, and are cut to the smallest."""
    least = min(m.shape[1 - axis] for m in maps)
    return np.concatenate([m[:least] if axis else m[:, :least] for m in maps], axis=axis)


def _sharpest(attention: np.ndarray, wide: int, high: int) -> tuple[int, int, float]:
    """Column, row and sharpness of the window with the largest sum."""
    sums = np.lib.stride_tricks.sliding_window_view(attention, (high, wide)).sum((2, 3))
    y, x = (int(v) for v in np.unravel_index(int(sums.argmax()), sums.shape))
    around = [
        sums[b, a]
        for b, a in ((y, x - 1), (y, x + 1), (y - 1, x), (y + 1, x))
        if 0 <= b < sums.shape[0] and 0 <= a < sums.shape[1]
    ]
    mean = float(np.mean(around)) if around else 0.0
    return x, y, (float(sums[y, x]) - mean) / (wide * high)


def _square(centre: tuple[float, float], side: float, size: Size) -> Region:
    """The square around `centre`, in pixels, shifted into the image."""
    edges = []
    for at, length in zip(centre, size, strict=True):
        reach = min(side, length)
        low = min(max(at - reach / 2, 0.0), length - reach)
        edges.append((low / length, (low + reach) / length))
    (x0, x1), (y0, y1) = edges
    return Region(x0, y0, min(x1, 1.0), min(y1, 1.0))
