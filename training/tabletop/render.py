"""Scenes as images and depth maps."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image as Pil
from PIL import ImageChops, ImageDraw, ImageFilter, ImageFont

from .scene import FAR_M, LETTER_HEIGHT, SIDE, Level, Scene, Thing

RGB = {
    "red": (214, 48, 49),
    "orange": (240, 138, 36),
    "yellow": (247, 212, 66),
    "green": (58, 160, 84),
    "blue": (52, 108, 206),
    "purple": (140, 78, 176),
}
"""What each colour is painted with."""

GRAIN_PX = 7.0
"""The period, in pixels, of the pattern of `Level.GRAIN` at one metre."""

_DARK_INK = {"yellow", "orange"}
_SUPERSAMPLE = 4


Pattern = Literal["stripes", "steps", "checks"]


@dataclass(frozen=True)
class Grain:
    """The pattern on faces at `Level.GRAIN`.

    Attributes:
        kind: waves in one direction, sharp "steps" in one, or "checks": waves in two.
        contrast: how far it makes a face lighter and darker, of 255.
    """

    kind: Pattern = "stripes"
    contrast: float = 18.0


def render(scene: Scene, side: int = SIDE, *, grain: Grain = Grain()) -> Pil.Image:
    """The image of `scene`: RGB, `side` x `side` pixels."""
    rng = random.Random(f"render {scene.seed}")
    image = _background(rng, scene.level, side)
    for thing in sorted(scene.things, key=lambda t: -t.depth):
        _paint(image, thing, scene.level, rng, side, grain)
    for word, x, y in scene.words:
        font = _font(round(0.035 * side))
        ImageDraw.Draw(image).text((x * side, y * side), word, (70, 60, 55), font, "mm")
    return image


def depth_map(scene: Scene, side: int = SIDE) -> np.ndarray:
    """Metres from the camera, float32 of shape (side, side); the table recedes upwards in
    perspective."""
    if scene.level.recedes:
        rows = np.linspace(FAR_M + 1.2, 0.9, side, dtype=np.float32)
        depth = np.repeat(rows[:, None], side, axis=1)
    else:
        depth = np.full((side, side), FAR_M + 0.5, np.float32)
    for thing in sorted(scene.things, key=lambda t: -t.depth):
        x0, y0, x1, _ = _pixel_box(thing, side)
        mask = np.asarray(_shape_mask(thing.shape, x1 - x0)) > 127
        depth[y0 : y0 + mask.shape[0], x0 : x0 + mask.shape[1]][mask] = thing.depth
    return depth


def _pixel_box(thing: Thing, side: int) -> tuple[int, int, int, int]:
    width = round(thing.side * side)
    x0, y0 = round((thing.x - thing.side / 2) * side), round((thing.y - thing.side / 2) * side)
    return x0, y0, x0 + width, y0 + width


def _background(rng: random.Random, level: Level, side: int) -> Pil.Image:
    tone = rng.randint(198, 238)
    base = tuple(min(255, tone + rng.randint(-9, 9)) for _ in range(3))
    if level < Level.TABLE:
        return Pil.new("RGB", (side, side), base)
    wood = _wood(rng, side)
    if level.recedes:
        wood.paste(Pil.new("RGB", (side, round(0.2 * side)), base), (0, 0))
    light = _glow(side).rotate(rng.choice((0, 90, 180, 270)))
    dimmed = wood.point([int(v * 0.86) for v in range(256)] * 3)
    return Pil.composite(wood, dimmed, light)


def _wood(rng: random.Random, side: int) -> Pil.Image:
    """Planks of one hue: stretched noise between a light and a darker tone."""
    grain = Pil.frombytes("L", (6, 96), rng.randbytes(576)).resize(
        (side, side), Pil.Resampling.BICUBIC
    )
    tone = rng.randint(188, 226)
    light = (tone, tone - rng.randint(14, 30), tone - rng.randint(36, 62))
    dark = tuple(v - rng.randint(12, 22) for v in light)
    wood = Pil.composite(
        Pil.new("RGB", (side, side), light), Pil.new("RGB", (side, side), dark), grain
    )
    draw = ImageDraw.Draw(wood)
    for k in range(1, 5):
        y = round(side * k / 5) + rng.randint(-14, 14)
        draw.line((0, y, side, y), tuple(v - 24 for v in dark), 2)
    return wood


@lru_cache(4)
def _glow(side: int) -> Pil.Image:
    return (
        Pil.radial_gradient("L")
        .resize((2 * side, 2 * side))
        .crop((side // 2, side // 3, side // 2 + side, side // 3 + side))
        .point([255 - v for v in range(256)])
    )


def _paint(
    image: Pil.Image, thing: Thing, level: Level, rng: random.Random, side: int, grain: Grain
) -> None:
    x0, y0, x1, _ = _pixel_box(thing, side)
    width = x1 - x0
    mask = _shape_mask(thing.shape, width)
    colour = tuple(max(0, min(255, v + rng.randint(-10, 10))) for v in RGB[thing.colour])
    if level >= Level.SHADED:
        reach = max(3, width // 14)
        image.paste(
            (40, 34, 30),
            (x0 - 2 * reach + reach // 2, y0 - 2 * reach + reach),
            _shadow(thing.shape, width, reach),
        )
        lit = tuple(min(255, v + 26) for v in colour)
        dim = tuple(max(0, v - 30) for v in colour)
        slope = _slope(width)
        face = Pil.composite(
            Pil.new("RGB", (width, width), dim), Pil.new("RGB", (width, width), lit), slope
        )
        if level == Level.GRAIN:
            face = _grained(face, thing.depth * SIDE / side, rng, grain)
        image.paste(face, (x0, y0), mask)
    else:
        image.paste(colour, (x0, y0), mask)
    _write(image, thing, x0, y0, width)


def _grained(face: Pil.Image, depth: float, rng: random.Random, grain: Grain) -> Pil.Image:
    """`face` with a pattern whose period in pixels is `GRAIN_PX` at one metre, less the farther."""
    turn, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    down, across = np.mgrid[: face.height, : face.width] * (2 * np.pi * depth / GRAIN_PX)
    waves = np.sin(across * np.cos(turn) + down * np.sin(turn) + phase)
    if grain.kind == "steps":
        waves = np.tanh(4 * waves)
    elif grain.kind == "checks":
        waves *= np.sin(down * np.cos(turn) - across * np.sin(turn))
    pattern = grain.contrast * waves[..., None]
    return Pil.fromarray(np.clip(np.asarray(face) + pattern, 0, 255).astype(np.uint8))


def _write(image: Pil.Image, thing: Thing, x0: int, y0: int, width: int) -> None:
    ink = (24, 22, 30) if thing.colour in _DARK_INK else (252, 252, 250)
    stamp = _letter_mask(thing.letter, max(6, round(LETTER_HEIGHT * width)))
    lower = 0.1 * width if thing.shape == "triangle" else 0.0
    left = x0 + (width - stamp.width) // 2
    top = y0 + round((width - stamp.height) / 2 + lower)
    image.paste(ink, (left, top), stamp)


@lru_cache(512)
def _shape_mask(shape: str, width: int) -> Pil.Image:
    big = width * _SUPERSAMPLE
    mask = Pil.new("L", (big, big), 0)
    draw = ImageDraw.Draw(mask)
    last = big - 1
    if shape == "square":
        draw.rounded_rectangle((0, 0, last, last), big // 14, 255)
    elif shape == "circle":
        draw.ellipse((0, 0, last, last), 255)
    elif shape == "triangle":
        draw.polygon([(big / 2, 0), (last, last), (0, last)], 255)
    else:
        arm = round(0.29 * big)
        draw.rectangle((arm, 0, last - arm, last), 255)
        draw.rectangle((0, arm, last, last - arm), 255)
    return mask.resize((width, width), Pil.Resampling.BOX)


@lru_cache(512)
def _shadow(shape: str, width: int, reach: int) -> Pil.Image:
    size = width + 4 * reach
    soft = Pil.new("L", (size, size), 0)
    soft.paste(_shape_mask(shape, width), (2 * reach, 2 * reach))
    return soft.filter(ImageFilter.GaussianBlur(reach * 0.8)).point(
        [v * 2 // 5 for v in range(256)]
    )


@lru_cache(64)
def _slope(width: int) -> Pil.Image:
    across = Pil.linear_gradient("L").resize((width, width))
    return ImageChops.add(across, across.rotate(90), scale=2.0)


@lru_cache(32)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


@lru_cache(1024)
def _letter_mask(letter: str, height: int) -> Pil.Image:
    """The letter's own pixels, cropped to its ink, `height` pixels high."""
    font = _font(4 * height)
    left, top, right, bottom = font.getbbox(letter, stroke_width=height // 6)
    canvas = Pil.new("L", (round(right - left), round(bottom - top)), 0)
    ImageDraw.Draw(canvas).text((-left, -top), letter, 255, font, stroke_width=height // 6)
    width = max(3, round(canvas.width * height / canvas.height))
    return canvas.resize((width, height), Pil.Resampling.BOX)
