"""Makes `tiny-depth`: a GLPN of half a million parameters that reads how far things are from the
grain of their faces.

It learns from parts of images of `Level.GRAIN` under changing patterns and light, so that it holds
where the renderer is another one.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image as Pil
from PIL import ImageEnhance
from torch import Tensor
from transformers import GLPNConfig, GLPNForDepthEstimation, GLPNImageProcessorPil

from training.tabletop.render import Grain, depth_map, render
from training.tabletop.scene import SIDE, Level, make_scene

from .stage import Log, Optimizers, ahead, resumed, saved

FIRST_SEED = 1 << 31
"""Its scenes have seeds from here on."""

PART = 224
"""Width and height of the parts it learns from, in pixels."""

SCENES, PARTS = 2, 4
"""In a batch: scenes, and parts of each."""

WAVES = (7.0, 4.8, 3.4, 2.35)
"""Periods, in pixels, from the nearest thing's to the farthest's."""

MAX_M = 5
RATE = 2e-3
CHECKPOINT_EVERY = 100
THINGS_WEIGH = 10.0
"""How much more a pixel of a thing counts than one of the table."""


class Batch(NamedTuple):
    """`pixels` (B, 3, PART, PART) in 0 to 1, `metres` and `weights` (B, PART, PART)."""

    pixels: Tensor
    metres: Tensor
    weights: Tensor


def make_depth_model() -> GLPNForDepthEstimation:
    """Untrained: random weights behind filters for the waves of every depth, in six directions."""
    torch.manual_seed(0)
    config = GLPNConfig(
        num_encoder_blocks=4,
        depths=[1, 1, 1, 1],
        sr_ratios=[8, 4, 2, 1],
        hidden_sizes=[len(WAVES) * 12, 48, 64, 96],
        num_attention_heads=[1, 2, 2, 4],
        mlp_ratios=[2, 2, 2, 2],
        decoder_hidden_size=24,
        drop_path_rate=0.0,
        max_depth=MAX_M,
    )
    model = GLPNForDepthEstimation(config)
    first: Any = model.get_parameter("glpn.encoder.patch_embeddings.0.proj.weight")
    with torch.no_grad():
        first.copy_(_waves(first.shape[-1])[:, None] / 3)
    return model


def _waves(size: int) -> Tensor:
    """(12 x WAVES, size, size) Gabor filters: each period, direction and phase, without a mean."""
    at = torch.arange(size) - size // 2
    down, across = torch.meshgrid(at, at, indexing="ij")
    soft = torch.exp(-(down**2 + across**2) / (2 * (size / 3) ** 2))
    made = []
    for period, turn in itertools.product(WAVES, range(6)):
        angle = torch.tensor(turn * torch.pi / 6)
        phase = (across * angle.cos() + down * angle.sin()) * 2 * torch.pi / period
        made += [phase.cos(), phase.sin()]
    filters = torch.stack(made) * soft
    filters -= filters.mean((1, 2), keepdim=True)
    return filters / filters.flatten(1).norm(dim=1)[:, None, None]


def batches(first: int, steps: int) -> Iterator[Batch]:
    """Batch number n is a function of n alone."""
    for number in range(first, steps):
        yield _batch(random.Random(f"depth {number}"))


def _batch(rng: random.Random) -> Batch:
    pixels, metres = [], []
    for _ in range(SCENES):
        scene = make_scene(FIRST_SEED + rng.randrange(1 << 24), Level.GRAIN)
        image, depth = _lit(render(scene, grain=_grain(rng)), rng), depth_map(scene)
        for _ in range(PARTS):
            thing = rng.choice(scene.things)
            x, y = (round(v * SIDE) - rng.randrange(PART) for v in (thing.x, thing.y))
            x, y = (min(max(v, 0), SIDE - PART) for v in (x, y))
            pixels.append(np.asarray(image)[y : y + PART, x : x + PART])
            metres.append(depth[y : y + PART, x : x + PART])
    shown = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    far = torch.from_numpy(np.stack(metres))
    return Batch(shown, far, torch.where(far < far.max(), THINGS_WEIGH, 1.0))


def _grain(rng: random.Random) -> Grain:
    """Patterns of any kind and strength."""
    return Grain(rng.choice(("stripes", "steps", "checks")), rng.uniform(8, 28))


def _lit(image: Pil.Image, rng: random.Random) -> Pil.Image:
    """`image` in another light, with a little noise."""
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = change(image).enhance(rng.uniform(0.75, 1.2))
    noise = np.random.default_rng(rng.randrange(1 << 30)).normal(
        0, rng.uniform(0, 4), (image.height, image.width, 1)
    )
    return Pil.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def loss_of(model: GLPNForDepthEstimation, batch: Batch) -> Tensor:
    """The mean difference of logarithms, so that metres count by their share."""
    found = model(pixel_values=batch.pixels).predicted_depth.clamp(min=0.05)
    wrong = (found.log() - batch.metres.log()).abs()
    return (wrong * batch.weights).sum() / batch.weights.sum()


def train_depth(model: GLPNForDepthEstimation, folder: Path, *, steps: int) -> None:
    """Train `model` in place; resumes from `folder`/depth.pt."""
    optimizers = Optimizers(model, rate=RATE, steps=steps)
    path = folder / "depth.pt"
    first, before_s = resumed(path, model, optimizers)
    log = Log(folder / "depth.log", before_s)
    model.train()
    for number, batch in enumerate(ahead(batches(first, steps)), first):
        loss = loss_of(model, batch)
        loss.backward()
        optimizers.step(number)
        if number % 20 == 0:
            log.write(step=number, loss=round(loss.item(), 4))
        if (number + 1) % CHECKPOINT_EVERY == 0 or number + 1 == steps:
            saved(path, model, optimizers, step=number + 1, seconds=log.seconds)


def export_depth(model: GLPNForDepthEstimation, folder: Path) -> None:
    """Write the folder that ships: weights, configuration, processor."""
    folder.mkdir(parents=True, exist_ok=True)
    model.eval().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    GLPNImageProcessorPil(size_divisor=32, do_resize=True, do_rescale=True).save_pretrained(folder)
