"""Adapters on a language model's own matrices (LoRA, arXiv 2106.09685)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mm.local.adapters import with_adapter
from mm.local.checkpoints import find
from mm.local.fingerprint import write_base

TARGET = (
    r".*(language_model|text_model)\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
)
"""Never peft's "all-linear", which would reach into the vision tower and the projector."""


def adapted(model: Any, rank: int) -> Any:
    """`model` with a trainable adapter of this rank; its own weights are frozen."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=TARGET, task_type="CAUSAL_LM")
    return get_peft_model(model, config)


def adapted_as(model: Any, folder: Path) -> Any:
    """`model` with the adapter in `folder`, for it to learn on; the model's weights are frozen.

    Raises:
        ModelUnavailable: it does not fit.
    """
    adapter = with_adapter(model, str(folder), "default")
    for name, parameter in adapter.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return adapter


def save_adapter(model: Any, base: str, folder: Path, weights: Any = None) -> None:
    """Write the adapter on `model` into `folder`, with what tells its `base`.

    The path of a base is written whole, so that the adapter loads from any working folder.
    `weights` are the model's, where they are not its own as they stand.
    """
    source = find(base)
    here = Path(base).expanduser().exists()
    model.active_peft_config.base_model_name_or_path = str(source.resolve()) if here else base
    model.save_pretrained(folder, state_dict=weights)
    write_base(folder, source)
