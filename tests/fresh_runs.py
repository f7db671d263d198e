"""Conversations run by transformers' own model, whole and in one pass, without the engine."""

from __future__ import annotations

from typing import Any

import torch
from tiny_models import TinyModel

from mm.tokens.sequence import Tokens


def fresh_inputs(tiny: TinyModel, tokens: Tokens) -> dict[str, Any]:
    """What the model's own `forward` and `generate` take for `tokens`."""
    family, ids = tiny.builder.family, torch.tensor([tokens.ids])
    visual = (ids == tiny.builder.placeholder_id).int()
    # Idefics3 counts an image's tiles on the second axis, the first being the conversation
    axis = 1 if "pixel_attention_mask" in family.tensors else 0
    tensors = {
        key: torch.cat([span.tensors[key] for span in tokens.images], dim=axis)
        for key in tokens.images[0].tensors
    }
    if family.mrope:
        tensors["mm_token_type_ids"] = visual
        tiny.model.model.rope_deltas = None
    if family.bidirectional_images:
        tensors["token_type_ids"] = visual
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **tensors}


def fresh_logits(tiny: TinyModel, tokens: Tokens) -> torch.Tensor:
    """Logits (V,) of the token after the whole conversation."""
    with torch.no_grad():
        return tiny.model(**fresh_inputs(tiny, tokens)).logits[0, -1]
