"""Adapters on a language model's own matrices (LoRA, arXiv 2106.09685)."""

from __future__ import annotations

from typing import Any

TARGET = (
    r".*(language_model|text_model)\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
)
"""Never peft's "all-linear", which would reach into the vision tower and the projector."""


def adapted(model: Any, rank: int) -> Any:
    """`model` with a trainable adapter of this rank; its own weights are frozen."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=TARGET, task_type="CAUSAL_LM")
    return get_peft_model(model, config)
