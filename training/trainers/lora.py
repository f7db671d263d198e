"""Adapters on a language model's own matrices (LoRA, arXiv 2106.09685)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mm.local.checkpoints import find
from mm.local.fingerprint import write_base

TARGET = (
    r".*(language_model|text_model)\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
)
"""Never peft's "all-linear", which would reach into the vision tower and the projector."""


ANSWERER = "default"
"""The name of an adapter that answers: peft writes it into the folder itself, others in theirs."""


def adapted(model: Any, rank: int, name: str = ANSWERER) -> Any:
    """`model` with a trainable adapter of this rank beside those it has; its own weights are
    frozen."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=TARGET, task_type="CAUSAL_LM")
    if not hasattr(model, "peft_config"):
        return get_peft_model(model, config, adapter_name=name)
    model.add_adapter(name, config)
    return model


def let_learn(model: Any) -> Any:
    """`model`, all adapters of which learn: peft lets only the one in use."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return model


def save_adapter(model: Any, base: str, folder: Path, weights: Any = None) -> None:
    """Write the adapter on `model` into `folder`, with what tells its `base`.

    The path of a base is written whole, so that the adapter loads from any working folder.
    `weights` are the model's, where they are not its own as they stand.
    """
    source = find(base)
    here = Path(base).expanduser().exists()
    for config in model.peft_config.values():
        config.base_model_name_or_path = str(source.resolve()) if here else base
    model.save_pretrained(folder, state_dict=weights)
    write_base(folder, source)
