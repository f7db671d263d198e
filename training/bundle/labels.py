"""Dense labels of views: what each visual token should know, as tensors for the vision stage.

A view of 128 pixels has 4 x 4 visual tokens of 32 pixels. In an overview each token has four slots,
its quarters of 16 pixels, and a slot knows the object whose centre lies in it. In crops and tiles a
token knows its letter.
"""

from __future__ import annotations

import numpy as np

from training.tabletop.scene import COLOURS, LETTERS, SHAPES, SIDE, Scene, Thing
from vision.crop import Window

from .shards import VIEW

CELLS = 4
CELL = VIEW // CELLS
SLOTS = 4
SLOT_NUMBERS = 1 + 1 + 1 + 4
"""Per slot: 1 if an object is there, its colour, its shape, its box as offsets in slots."""

IGNORED = -100
NOTHING = len(LETTERS)


def overview_labels(scene: Scene) -> np.ndarray:
    """float32 (16, SLOTS, SLOT_NUMBERS): presence, colour, shape, then x0, y0, x1, y1 from the
    slot's centre in 16 px."""
    labels = np.zeros((CELLS * CELLS, SLOTS, SLOT_NUMBERS), np.float32)
    half = CELL // 2
    for thing in scene.things:
        x, y = thing.x * VIEW, thing.y * VIEW
        column, row = int(x // half), int(y // half)
        cell = (row // 2) * CELLS + column // 2
        slot = (row % 2) * 2 + column % 2
        centre_x, centre_y = (column + 0.5) * half, (row + 0.5) * half
        region = thing.region
        box = [
            (v * VIEW - c) / half
            for v, c in zip(
                (region.x0, region.y0, region.x1, region.y1),
                (centre_x, centre_y, centre_x, centre_y),
                strict=True,
            )
        ]
        labels[cell, slot] = [1, COLOURS.index(thing.colour), SHAPES.index(thing.shape), *box]
    return labels


def letter_labels(scene: Scene, window: Window) -> np.ndarray:
    """int64 (16,): the letter whose centre lies in the token's cell (or 10 px around it), NOTHING,
    or IGNORED between."""
    labels = np.full(CELLS * CELLS, NOTHING, np.int64)
    scale = VIEW / (window[2] - window[0])
    for thing in scene.things:
        x, y = letter_centre(thing)
        x, y = (x * SIDE - window[0]) * scale, (y * SIDE - window[1]) * scale
        for cell in range(CELLS * CELLS):
            distance = _distance(x, y, (cell % CELLS) * CELL, (cell // CELLS) * CELL)
            inside = 6 <= x <= VIEW - 6 and 6 <= y <= VIEW - 6
            if distance <= 10 and inside:
                labels[cell] = LETTERS.index(thing.letter)
            elif distance <= 26 and labels[cell] == NOTHING:
                labels[cell] = IGNORED
    return labels


def letter_centre(thing: Thing) -> tuple[float, float]:
    """Where the letter is written, as fractions of the image; a triangle carries it lower."""
    lower = 0.1 * thing.side if thing.shape == "triangle" else 0.0
    return thing.x, thing.y + lower


def _distance(x: float, y: float, left: float, top: float) -> float:
    """Chebyshev distance from the point to the cell; 0 inside."""
    return max(left - x, x - left - CELL, top - y, y - top - CELL, 0.0)
