"""Qwen3-VL's vision tower over many views of one size at once.

The library's forward runs attention image by image and rebuilds positions for each; over a hundred
small views a step that overhead is most of the time. This is the same arithmetic with the weights
of the same modules, batched; a test holds the two equal.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.qwen3_vl.modeling_qwen3_vl import (
    Qwen3VLVisionModel,
    apply_rotary_pos_emb_vision,
)
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
)


class Encoded(NamedTuple):
    """`tokens` (B, V, D) and one such tensor per deepstack layer."""

    tokens: Tensor
    deepstack: list[Tensor]


def patches(views: Tensor, patch: int, merge: int) -> Tensor:
    """(B, side, side, 3) uint8 to (B, P, 3 * patch * patch) in [-1, 1], patches in the processor's
    order.

    A still image fills all temporal slots of a patch alike, so one slot is enough here.
    """
    batch, side = views.shape[:2]
    cells = side // patch // merge
    grid = views.view(batch, cells, merge, patch, cells, merge, patch, 3)
    ordered = grid.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(batch, -1, 3 * patch * patch)
    return ordered.float() / 127.5 - 1


def encode_views(visual: Qwen3VLVisionModel, views: Tensor) -> Encoded:
    """What `visual` makes of square uint8 views (B, side, side, 3)."""
    config: Any = visual.config
    cells = views.shape[1] // config.patch_size
    grid = torch.tensor([[1, cells, cells]])
    kernel = visual.patch_embed.proj
    flat = kernel.weight.sum(2).flatten(1)
    hidden = F.linear(
        patches(views, config.patch_size, config.spatial_merge_size), flat, kernel.bias
    )
    hidden = hidden + _positions(visual, grid)
    rope = visual.rotary_pos_emb(
        hidden[0], get_vision_position_ids(grid, config.spatial_merge_size)
    )
    deepstack = []
    blocks: Any = visual.blocks  # modules do not know the types of their own modules
    for layer, block in enumerate(blocks):
        hidden = hidden + _attend(block.attn, block.norm1(hidden), rope)
        hidden = hidden + block.mlp(block.norm2(hidden))
        if layer in visual.deepstack_visual_indexes:
            merger = visual.deepstack_merger_list[visual.deepstack_visual_indexes.index(layer)]
            deepstack.append(_merge(merger, hidden))
    return Encoded(_merge(visual.merger, hidden), deepstack)


def _positions(visual: Any, grid: Tensor) -> Tensor:
    indices, weights = get_vision_interpolation_indices_and_weights(
        grid,
        num_grid_per_side=visual.num_grid_per_side,
        mode=visual.interpolation_mode,
        align_corners=visual.interpolation_align_corners,
        spatial_merge_size=visual.config.spatial_merge_size,
    )
    return (visual.pos_embed(indices) * weights[:, :, None]).sum(1)


def _attend(attention: Any, hidden: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    batch, count, width = hidden.shape
    qkv = attention.qkv(hidden).view(batch * count, 3, attention.num_heads, -1)
    query, key, value = qkv.permute(1, 0, 2, 3).unbind(0)
    cos, sin = (t.repeat(batch, 1) for t in rope)
    query, key = apply_rotary_pos_emb_vision(query, key, cos, sin)
    query, key, value = (
        t.view(batch, count, attention.num_heads, -1).transpose(1, 2) for t in (query, key, value)
    )
    if torch.is_grad_enabled():
        # written out because the fused kernel's bf16 backward is six times slower at 64 patches
        weights = (query @ key.transpose(2, 3) * attention.scaling).softmax(-1)
        seen = weights.to(value.dtype) @ value
    else:
        seen = F.scaled_dot_product_attention(query, key, value, scale=attention.scaling)
    return attention.proj(seen.transpose(1, 2).reshape(batch, count, width))


def _merge(merger: Any, hidden: Tensor) -> Tensor:
    batch = hidden.shape[0]
    merged = merger(hidden.reshape(-1, hidden.shape[-1]))
    return merged.view(batch, -1, merged.shape[-1])
