"""Scenes with exact ground truth; a scene is a pure function of its seed.

A scene is a table top with 3 to 8 objects. Each is one of 24 (colour, shape) pairs, appears once,
lies at a known depth and carries a small letter: legible in the image, a smudge of four pixels in
a 128-pixel overview.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import IntEnum
from itertools import product

from mm.geometry import Region

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple")
SHAPES = ("square", "circle", "triangle", "cross")
LETTERS = tuple("ACEFHJKLMNPRSTXZ")
SIDE = 768
"""Width and height of an image, in pixels."""

LETTER_HEIGHT = 0.3
"""Height of a letter, as a share of its object's side."""

MARGIN = 0.012
GAP = 0.02
NEAR_M, FAR_M = 1.0, 3.0


class Level(IntEnum):
    """How hard the images are; each level up to CLUTTER adds one thing to the level before it.

    GRAIN is TABLE with a fine pattern on every object, the coarser the nearer it is. Nothing else
    tells how far an object is, and an overview is too coarse to show the pattern.
    """

    PLAIN = 0
    SHADED = 1
    TABLE = 2
    PERSPECTIVE = 3
    CLUTTER = 4
    GRAIN = 5

    @property
    def recedes(self) -> bool:
        """Whether the table recedes upwards, so that size and height tell how far things are."""
        return self in (Level.PERSPECTIVE, Level.CLUTTER)


@dataclass(frozen=True)
class Thing:
    """One object. `x`, `y` (its centre) and `side` are fractions of the image; `depth` is metres
    from the camera."""

    colour: str
    shape: str
    letter: str
    x: float
    y: float
    side: float
    depth: float

    @property
    def name(self) -> str:
        """Its colour and shape, as questions name it."""
        return f"{self.colour} {self.shape}"

    @property
    def region(self) -> Region:
        """The square around it."""
        half = self.side / 2
        return Region(self.x - half, self.y - half, self.x + half, self.y + half)


@dataclass(frozen=True)
class Scene:
    """`things` stand from left to right; `words` are distractor texts with the centre they are
    written at."""

    seed: int
    level: Level
    things: tuple[Thing, ...]
    words: tuple[tuple[str, float, float], ...] = ()


def make_scene(seed: int, level: int = Level.PLAIN) -> Scene:
    """The scene of `seed`.

    Letters are drawn independently, and in half of the scenes one letter is written on a second
    object, so that `same` is not nearly always answered by no.
    """
    rng = random.Random(f"scene {seed} {int(level)}")
    pairs = rng.sample(list(product(COLOURS, SHAPES)), rng.randint(3, 8))
    placed: list[Thing] = []
    for colour, shape in pairs:
        spot = _free_spot(rng, placed, Level(level))
        if spot:
            placed.append(Thing(colour, shape, rng.choice(LETTERS), *spot))
    things = _share_a_letter(rng, placed) if rng.random() < 0.5 else placed
    things = sorted(things, key=lambda t: t.x)
    words = _distractors(rng, things) if level == Level.CLUTTER else ()
    return Scene(seed, Level(level), tuple(things), words)


def _free_spot(
    rng: random.Random, placed: list[Thing], level: Level
) -> tuple[float, float, float, float] | None:
    for _ in range(200):
        depth = rng.uniform(NEAR_M, FAR_M)
        nearness = (FAR_M - depth) / (FAR_M - NEAR_M)
        if level.recedes:
            side = 0.09 + 0.055 * nearness
            y = 0.30 + 0.60 * nearness
        else:
            side = rng.uniform(0.10, 0.14)
            y = rng.uniform(MARGIN + side / 2, 1 - MARGIN - side / 2)
        x = rng.uniform(MARGIN + side / 2, 1 - MARGIN - side / 2)
        y = min(y, 1 - MARGIN - side / 2)
        gap = -0.015 if level == Level.CLUTTER else GAP
        if all(_apart(x, y, side, other, gap) for other in placed):
            return x, y, side, depth
    return None


def _apart(x: float, y: float, side: float, other: Thing, gap: float) -> bool:
    reach = (side + other.side) / 2 + gap
    return abs(x - other.x) >= reach or abs(y - other.y) >= reach


def _share_a_letter(rng: random.Random, things: list[Thing]) -> list[Thing]:
    if len(things) < 2:
        return things
    a, b = rng.sample(range(len(things)), 2)
    twin = things[b]
    return [
        Thing(twin.colour, twin.shape, things[a].letter, twin.x, twin.y, twin.side, twin.depth)
        if i == b
        else thing
        for i, thing in enumerate(things)
    ]


def _distractors(rng: random.Random, things: list[Thing]) -> tuple[tuple[str, float, float], ...]:
    words = []
    for _ in range(rng.randint(1, 3)):
        x, y = rng.uniform(0.1, 0.9), rng.uniform(0.05, 0.95)
        if all(_apart(x, y, 0.16, thing, 0.0) for thing in things):
            words.append(("".join(rng.choices("abcdefghknrstu", k=rng.randint(3, 5))), x, y))
    return tuple(words)
