"""Tabletop's scenes drawn by somebody else: other patterns, table, light and camera."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from training.tabletop.render import GRAIN_PX
from training.tabletop.scene import FAR_M, SIDE, Scene

COLOURS = {
    "red": (170, 20, 60),
    "orange": (220, 120, 70),
    "yellow": (225, 225, 120),
    "green": (20, 120, 110),
    "blue": (70, 140, 230),
    "purple": (110, 40, 130),
}


def drawn(scene: Scene, seed: int = 0) -> tuple[Image.Image, np.ndarray]:
    """The image, and the metres (SIDE, SIDE) of its pixels.

    Faces carry dots in hexagons; the table is speckled stone; the light falls off to one corner;
    the camera is turned by a few degrees.
    """
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[:SIDE, :SIDE].astype(float)
    stone = Image.fromarray(rng.normal(120, 40, (SIDE, SIDE)).clip(0, 255).astype("uint8"))
    stone = np.asarray(stone.filter(ImageFilter.GaussianBlur(3)), float)
    picture = np.stack([stone * share + 40 for share in (0.7, 0.75, 0.8)], -1)
    depth = np.full((SIDE, SIDE), FAR_M + 0.5, np.float32)
    for thing in sorted(scene.things, key=lambda t: -t.depth):
        mask = Image.new("L", (SIDE, SIDE))
        x0, y0, x1, y1 = thing.region.to_pixels((SIDE, SIDE))
        ImageDraw.Draw(mask).rounded_rectangle((x0, y0, x1, y1), 20, 255)
        here = np.asarray(mask) > 127
        face = np.array(COLOURS[thing.colour])[None, None] + _dots(down, across, thing.depth, rng)
        picture[here] = face[here]
        depth[here] = thing.depth
    light = 1.1 - 0.45 * (across + down) / (2 * SIDE)
    shown = Image.fromarray((picture * light[..., None]).clip(0, 255).astype("uint8"))
    turn = float(rng.uniform(-8, 8))
    turned = shown.rotate(turn, Image.Resampling.BICUBIC, fillcolor=(70, 70, 70))
    metres = Image.fromarray(depth).rotate(turn, fillcolor=FAR_M + 0.5)
    return turned, np.asarray(metres)


def _dots(down, across, depth: float, rng) -> np.ndarray:
    """A hexagonal pattern whose rows lie as far apart as Tabletop's stripes of that depth."""
    turn, wave = rng.uniform(0, np.pi), 2 * np.pi * depth / GRAIN_PX
    waves = [
        np.cos(wave * (across * np.cos(turn + a) + down * np.sin(turn + a)))
        for a in (0, np.pi / 3, 2 * np.pi / 3)
    ]
    return 12 * np.sum(waves, axis=0)[..., None]
