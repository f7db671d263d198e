"""peft adapters: which base an adapter's folder names, and a model with the adapter on it."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mm.errors import ModelUnavailable

from .checkpoints import find, read_json, safetensors_header, why

ADAPTER, VERIFIER = "adapter", "verifier"
"""The names that the policy's adapter and a verifier's are loaded under."""

_PREFIX = "base_model.model."
_WRAPPED = re.compile(r"\.(?:original_module|modules_to_save\.\w+|base_layer)(?=\.|$)")
"""What peft puts into the names of modules that another adapter is on."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    # unlike Path.is_file, no error for a name that is too long
    adapter, model = folder / "adapter_config.json", folder / "config.json"
    return os.path.isfile(adapter) and not os.path.isfile(model)


def base_of(folder: Path) -> str:
    """The model that an adapter was trained on, as its config names it.

    Raises:
        ModelUnavailable: it names none.
    """
    config = read_json(folder / "adapter_config.json", f"{folder} is not an adapter")
    base = config.get("base_model_name_or_path")
    if not base:
        raise ModelUnavailable(
            f"{folder} names no base model; load the base with adapter={str(folder)!r}"
        )
    return str(base)


def checkpoint_of(name: str) -> Path:
    """The folder of a model's weights; where `name` is an adapter's, that of its base.

    Raises:
        ModelUnavailable: there is none.
    """
    folder = find(name)
    return find(base_of(folder)) if is_adapter(folder) else folder


def with_adapter(model: Any, adapter: str, name: str = ADAPTER) -> Any:
    """`model` with the peft adapter in the folder `adapter`, every tensor of it in its place.

    It is added under `name` beside those that `model` has already.

    An adapter that names modules as they were called before (until transformers 4.52:
    `model.layers`) is renamed as transformers renames such a checkpoint's weights.

    Raises:
        ModelUnavailable: it is not an adapter, or does not fit.
    """
    folder = find(adapter)
    read_json(folder / "adapter_config.json", f"{adapter} is not an adapter")
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise ModelUnavailable(f"{adapter} has no adapter_model.safetensors")
    safetensors_header(weights)
    try:
        with warnings.catch_warnings(action="ignore"):
            adapted, loaded = _loaded(model, folder, weights, name)
    except Exception as error:  # an adapter from elsewhere may hold anything
        raise ModelUnavailable(f"{adapter} does not fit the model: {why(error)}") from error
    missing = [key for key in loaded.missing_keys if f".{name}." in key or key.endswith(f".{name}")]
    _check_complete(adapter, missing, loaded.unexpected_keys)
    return adapted


def _loaded(model: Any, folder: Path, weights: Path, name: str) -> tuple[Any, Any]:
    """The model with the adapter, and which keys found no counterpart."""
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    config = PeftConfig.from_pretrained(str(folder))
    config.inference_mode = True
    tensors = load_file(weights)
    adapted = model if hasattr(model, "peft_config") else None
    names = _current_names(adapted.get_base_model() if adapted else model, tensors)
    if adapted:
        adapted.add_adapter(name, config)
    else:
        adapted = get_peft_model(model, config, adapter_name=name)
    renamed = {names[key]: tensor for key, tensor in tensors.items()}
    return adapted, set_peft_model_state_dict(adapted, renamed, adapter_name=name)


def _current_names(model: Any, keys: Iterable[str]) -> dict[str, str]:
    """For each key of an adapter, the key it has for `model`; itself where none is known."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    changes = get_model_conversion_mapping(model, add_legacy=False)
    renamings = [change for change in changes if isinstance(change, WeightRenaming)]
    modules = {_WRAPPED.sub("", name) for name, _ in model.named_modules()}
    names = {}
    for key in keys:
        path = key.removeprefix(_PREFIX)
        new = path if _module(path) in modules else rename_source_key(path, renamings, [])[0]
        names[key] = _PREFIX + new if _module(new) in modules else key
    return names


def _module(path: str) -> str:
    """The module that an adapter's tensor belongs to; a module saved whole has its own names."""
    module = re.split(r"\.(?:lora_|base_layer\.|modules_to_save\.)", path)[0]
    return module if module != path else path.rpartition(".")[0]


def _check_complete(adapter: str, missing: list[str], unexpected: list[str]) -> None:
    """Refuse an adapter of which a part is missing or would be left out."""
    # an adapter on the embeddings or the head brings a copy of the base's own weights
    left_out = [key for key in unexpected if ".base_layer." not in key]
    faults = [
        f"{len(keys)} weights {what}, such as {min(keys)}"
        for keys, what in ((left_out, "have no place in it"), (missing, "are missing"))
        if keys
    ]
    if faults:
        raise ModelUnavailable(f"{adapter} does not fit the model: {'; '.join(faults)}")
