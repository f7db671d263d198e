"""Parts of a model in training: what lies inside of its wrappers, and what it sees with."""

from __future__ import annotations

from typing import Any

_TOWER = ("visual.", "vision_tower.", "vision_model.", "projector.", "connector.", "image_newline")


def bare(model: Any) -> Any:
    """The model inside what accelerate and peft put around it."""
    while hasattr(model, "module"):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def is_tower(name: str) -> bool:
    """Whether what the model sees comes from the weights of that name."""
    return any(word in name for word in _TOWER)
