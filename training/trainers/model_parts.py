"""Parts of a model in training: the model inside its wrappers, its vision tower, its shards."""

from __future__ import annotations

import os
from typing import Any

_TOWER = ("visual.", "vision_tower.", "vision_model.", "projector.", "connector.", "image_newline")


def bare(model: Any) -> Any:
    """The model inside what accelerate and peft wrap around it."""
    while hasattr(model, "module"):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def is_sharded() -> bool:
    """Whether this process was launched to shard weights by FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def is_tower(name: str) -> bool:
    """Whether the weights of that name belong to the vision tower or its projector."""
    return any(part in name for part in _TOWER)


def set_tower_trainable(model: Any, trainable: bool) -> None:
    """Train the vision tower and the projector of `model`, or freeze them."""
    for name, weights in model.named_parameters():
        if is_tower(name):
            weights.requires_grad_(trainable)
