"""Makes `tiny-depth`, which reads how far things are from the grain of their faces.

It learns from parts of images of `Level.GRAIN`, and whole ones, under changing patterns and light,
so that it holds where the renderer is another one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image as Pil
from PIL import ImageEnhance
from torch import Tensor
from transformers import DepthAnythingForDepthEstimation, DPTImageProcessorPil

from training.tabletop.render import Grain, Pattern, depth_map, render
from training.tabletop.scene import SIDE, Level, Scene, make_scene

from .depth_network import BEGUN, PATCH
from .stage import Optimizers, learn

FIRST_SEED = 1 << 31
"""Its scenes have seeds from here on."""

SIZES = (128, 128, 256, 128, 128, SIDE)
"""Width and height, in pixels, of the parts in one batch after another."""

PIXELS = 36 * 128 * 128
"""About so many in a batch."""

PER_SCENE = 6
"""At most so many parts of one scene."""

PATTERNS: dict[Pattern, float] = {"stripes": 0.65, "steps": 0.25, "checks": 0.1}
"""Of faces, with their shares."""

RATE, BEGUN_SHARE = 6e-4, 0.05
"""The rate, and the share of it at which filters learn: Adam would unmake them in twenty steps."""

CHECKPOINT_EVERY = 50
THINGS_WEIGH = 10.0
"""How much more a pixel of a thing counts than one of the table."""


class Batch(NamedTuple):
    """`pixels` (B, 3, side, side) in -1 to 1, `metres` and `weights` (B, side, side)."""

    pixels: Tensor
    metres: Tensor
    weights: Tensor


def batches(first: int, steps: int) -> Iterator[Batch]:
    """Batch number n is a function of n alone."""
    for number in range(first, steps):
        yield _batch(SIZES[number % len(SIZES)], random.Random(f"depth {number}"))


def _batch(side: int, rng: random.Random) -> Batch:
    pixels, metres = [], []
    for parts in _shared_out(max(PIXELS // side**2, 1)):
        scene = make_scene(FIRST_SEED + rng.randrange(1 << 24), Level.GRAIN)
        image, depth = _lit(render(scene, grain=_grain(rng)), rng), depth_map(scene)
        for _ in range(parts):
            x, y = _corner(scene, side, rng)
            pixels.append(np.asarray(image)[y : y + side, x : x + side])
            metres.append(depth[y : y + side, x : x + side])
    shown = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
    far = torch.from_numpy(np.stack(metres))
    return Batch(shown, far, torch.where(far < far.max(), THINGS_WEIGH, 1.0))


def _shared_out(parts: int) -> list[int]:
    """How many of so many parts each scene gives."""
    return [min(PER_SCENE, parts - begun) for begun in range(0, parts, PER_SCENE)]


def _corner(scene: Scene, side: int, rng: random.Random) -> tuple[int, int]:
    """The left and top of a part that has something of a thing in it."""
    thing = rng.choice(scene.things)
    x, y = (round(v * SIDE) - rng.randrange(side) for v in (thing.x, thing.y))
    return min(max(x, 0), SIDE - side), min(max(y, 0), SIDE - side)


def _grain(rng: random.Random) -> Grain:
    """Patterns of any kind and strength."""
    (kind,) = rng.choices(list(PATTERNS), list(PATTERNS.values()))
    return Grain(kind, rng.uniform(10, 26))


def _lit(image: Pil.Image, rng: random.Random) -> Pil.Image:
    """`image` in another light, with a little noise."""
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = change(image).enhance(rng.uniform(0.75, 1.2))
    noise = np.random.default_rng(rng.randrange(1 << 30)).normal(
        0, rng.uniform(0, 4), (image.height, image.width, 1)
    )
    return Pil.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def loss_of(model: DepthAnythingForDepthEstimation, batch: Batch) -> Tensor:
    """The mean difference of logarithms, so that metres count by their share."""
    found = model(pixel_values=batch.pixels).predicted_depth.clamp(min=0.05)
    wrong = (found.log() - batch.metres.log()).abs()
    return (wrong * batch.weights).sum() / batch.weights.sum()


def train_depth(model: DepthAnythingForDepthEstimation, folder: Path, *, steps: int) -> None:
    """Train `model` in place; resumes from `folder`/depth.pt."""
    optimizers = Optimizers(
        model, RATE, steps, warmup=15, slow=BEGUN, slow_share=BEGUN_SHARE, outer=("",)
    )
    learn(
        model,
        optimizers,
        folder / "depth.pt",
        lambda first: batches(first, steps),
        partial(loss_of, model),
        steps=steps,
        every=CHECKPOINT_EVERY,
    )


def export_depth(model: DepthAnythingForDepthEstimation, folder: Path) -> None:
    """Write the folder that ships: weights, configuration, processor."""
    folder.mkdir(parents=True, exist_ok=True)
    model.eval().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    middle = [0.5, 0.5, 0.5]
    DPTImageProcessorPil(
        size={"height": SIDE, "width": SIDE},
        keep_aspect_ratio=True,
        ensure_multiple_of=PATCH,
        image_mean=middle,
        image_std=middle,
    ).save_pretrained(folder)
