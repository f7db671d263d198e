"""Parts of a model in training: the model inside its wrappers, its vision tower, its shards; and
how it answers meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mm.local.hf_vlm import HFVLM

_TOWER = ("visual.", "vision_tower.", "vision_model.", "projector.", "connector.", "image_newline")


def bare(model: Any) -> Any:
    """The model inside what accelerate and peft wrap around it."""
    while hasattr(model, "module"):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextmanager
def answering(vlm: HFVLM) -> Iterator[None]:
    """The model in eval mode; nothing cached from before its weights moved, nor left behind, where
    forward and backward need the memory."""
    model = vlm.engine.model
    training = model.training
    vlm.engine.clear_caches()
    model.eval()
    try:
        yield
    finally:
        model.train(training)
        vlm.engine.clear_caches()


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
