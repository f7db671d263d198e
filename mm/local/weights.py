"""A checkpoint's weights as a transformers model, every tensor of it from the checkpoint."""

from __future__ import annotations

from typing import Any

from mm.errors import ModelUnavailable

from .checkpoints import Checkpoint, why
from .placement import Placement

ANSWERING = (
    "AutoModelForImageTextToText",
    "AutoModelForVision2Seq",
    "AutoModelForCausalLM",
    "AutoModel",
)
"""The names in `auto_map` of classes that may answer, the likeliest first."""


def read_weights(checkpoint: Checkpoint, placement: Placement, *, trust_remote_code: bool) -> Any:
    """The checkpoint's model on its device.

    Raises:
        ModelUnavailable: it cannot be read, or lacks some of its model's weights.
    """
    quantized = placement.quantization or checkpoint.quantization
    options: dict[str, Any] = {"device_map": {"": placement.device}} if quantized else {}
    if placement.quantization:
        options["quantization_config"] = placement.quantization
    try:
        model, report = _class_of(checkpoint, trust_remote_code).from_pretrained(
            checkpoint.folder,
            dtype=placement.dtype,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
            **options,
        )
    except Exception as error:  # a config from elsewhere can make it raise anything
        raise ModelUnavailable(f"{checkpoint.folder}: {why(error)}") from error
    if missing := sorted(report["missing_keys"]):
        raise ModelUnavailable(
            f"{checkpoint.folder} lacks {len(missing)} of its model's weights, such as {missing[0]}"
        )
    return model if quantized else model.to(placement.device)


def answering_class(checkpoint: Checkpoint) -> str | None:
    """The name under which a checkpoint's own code has the class that answers; None without."""
    named = checkpoint.config.get("auto_map")
    return next((n for n in ANSWERING if n in named), None) if isinstance(named, dict) else None


def _class_of(checkpoint: Checkpoint, code: bool) -> Any:
    """The class that the config names where transformers has it; else that of the checkpoint's own
    code where that may run; else what fits the model type."""
    import transformers

    named = checkpoint.config.get("architectures")
    name = named[0] if isinstance(named, list) and named else None
    found = getattr(transformers, name, None) if isinstance(name, str) else None
    if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
        return found
    own = (answering_class(checkpoint) if code else None) or ANSWERING[0]
    return getattr(transformers, own, None) or _dropped(checkpoint, own)


def _dropped(checkpoint: Checkpoint, own: str) -> Any:
    """The class of a checkpoint's own code under a name that transformers no longer reads."""
    from transformers.dynamic_module_utils import get_class_from_dynamic_module
    from transformers.models.auto.auto_factory import add_generation_mixin_to_remote_model

    reference = checkpoint.config["auto_map"][own]
    folder = str(checkpoint.folder)
    found = get_class_from_dynamic_module(reference, folder, local_files_only=True)
    return add_generation_mixin_to_remote_model(found)
