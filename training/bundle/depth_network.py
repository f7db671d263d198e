"""The network of `tiny-depth`: a Depth Anything of one and a half million parameters, untrained.

Its first layers begin as what reads a grain: waves of every period and direction, and how strong
each is, whatever its phase. They must learn slowly (`depth_stage.BEGUN_SHARE`): at the full rate
depths of things stayed a quarter off in the 160 steps that were tried.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

PATCH = 16
"""Width and height, in pixels, of what becomes one token."""

PERIODS = tuple(7.0 * (2.3 / 7.0) ** (step / 7) for step in range(8))
"""Of the waves, in pixels, from the nearest thing's to the farthest's."""

TURNS = 6
WIDTH = 208
"""Of a token: waves, their strengths, and sixteen numbers for what else there is."""

MAX_M = 5
BEGUN = ("patch_embeddings", "layer.0.mlp")
"""The parameters that begin as filters."""


def make_depth_model() -> DepthAnythingForDepthEstimation:
    """Untrained: every weight but those of the waves is drawn at random."""
    torch.manual_seed(0)
    backbone = Dinov2Config(
        hidden_size=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        mlp_ratio=2,
        image_size=16 * PATCH,
        patch_size=PATCH,
        layerscale_value=1.0,
        reshape_hidden_states=False,
    )
    backbone.out_indices = [1, 2, 3]
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=PATCH,
        reassemble_hidden_size=WIDTH,
        reassemble_factors=[2, 1, 0.5],
        neck_hidden_sizes=[32, 48, 64],
        fusion_hidden_size=32,
        head_hidden_size=16,
        depth_estimation_type="metric",
        max_depth=MAX_M,
    )
    model: Any = DepthAnythingForDepthEstimation(config)
    with torch.no_grad():
        _draw(model)
        _see_waves(model)
    return model


def _draw(model: Any) -> None:
    """Weights that keep a signal's strength: the class's own make it vanish in the head."""
    for module in model.modules():
        if isinstance(module, nn.ConvTranspose2d):
            module.weight.normal_(0, len(module.weight) ** -0.5)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.normal_(0, module.weight[0].numel() ** -0.5)
    for layer in model.backbone.encoder.layer:
        layer.attention.o_proj.weight.mul_(0.3)
        layer.mlp.fc2.weight.mul_(0.3)
    model.head.conv2.bias.fill_(0.5)  # nothing behind a ReLU is dead at first
    places = model.backbone.embeddings.position_embeddings
    places.zero_().requires_grad_(False)  # a thing is as far wherever it lies


def _see_waves(model: Any) -> None:
    filters = waves(PATCH)
    count = len(filters)
    first = model.backbone.embeddings.patch_embeddings.projection.weight
    first[:count] = 2 / 3 * filters[:, None]
    first[count : 2 * count] = 0
    first[2 * count :].normal_(0, 0.01)
    layer = model.backbone.encoder.layer[0]
    layer.attention.o_proj.weight.zero_()
    strengths = torch.eye(count)
    up, down = layer.mlp.fc1.weight, layer.mlp.fc2.weight
    up[: 2 * count] = 0
    up[:count, :count], up[count : 2 * count, :count] = 2 * strengths, -2 * strengths
    down[:, : 2 * count] = 0
    down[count : 2 * count, : 2 * count] = 0.5 * torch.cat([strengths, strengths], 1)


def waves(size: int) -> Tensor:
    """(12 x PERIODS, size, size) Gabor filters: each period, direction and phase, without a mean,
    of length one."""
    at = torch.arange(size) - (size - 1) / 2
    down, across = torch.meshgrid(at, at, indexing="ij")
    soft = torch.exp(-(down**2 + across**2) / (2 * (size / 3) ** 2))
    made = []
    for period, turn in itertools.product(PERIODS, range(TURNS)):
        angle = torch.tensor(turn * torch.pi / TURNS)
        phase = (across * angle.cos() + down * angle.sin()) * 2 * torch.pi / period
        made += [phase.cos(), phase.sin()]
    filters = torch.stack(made) * soft
    filters -= filters.mean((1, 2), keepdim=True)
    return filters / filters.flatten(1).norm(dim=1)[:, None, None]
