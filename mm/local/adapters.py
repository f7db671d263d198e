"""peft adapters: which base an adapter's folder names, and a model with the adapter on it."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mm.errors import ModelUnavailable

from .checkpoints import find, read_json, safetensors_header, why
from .fingerprint import fingerprint

ADAPTER, VERIFIER = "adapter", "verifier"
"""The names that the policy's adapter and a verifier's are loaded under."""

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_PREFIX = "base_model.model."
_WRAPPED = re.compile(r"\.(?:original_module|modules_to_save\.\w+|base_layer)(?=\.|$)")
"""What peft puts into the names of modules that another adapter is on."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    # unlike Path.is_file, no error for a name that is too long
    adapter, model = folder / _CONFIG, folder / "config.json"
    return os.path.isfile(adapter) and not os.path.isfile(model)


def base_of(folder: Path) -> str:
    """The model that an adapter was trained on, as its config names it.

    Raises:
        ModelUnavailable: it names none.
    """
    config = read_json(folder / _CONFIG, f"{folder} is not an adapter")
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
        ModelUnavailable: it is not an adapter, or does not fit; `model` is as it was then.
    """
    folder = _checked(adapter)
    try:
        with warnings.catch_warnings(action="ignore"), _restored_on_error(model, name):
            adapted, loaded = _loaded(model, folder, folder / _WEIGHTS, name)
            _check_complete(adapter, _of(name, loaded.missing_keys), loaded.unexpected_keys)
    except ModelUnavailable:
        raise
    except Exception as error:  # an adapter from elsewhere may hold anything
        raise ModelUnavailable(f"{adapter} does not fit the model: {why(error)}") from error
    return adapted


def content_of(adapter: str) -> str:
    """Sixteen hex digits that tell the adapter in a folder from others: its config and its weights.

    Raises:
        ModelUnavailable: it is not an adapter.
    """
    folder = _checked(adapter)
    config = (folder / _CONFIG).read_bytes()
    return hashlib.sha256(config + fingerprint(folder).encode()).hexdigest()[:16]


def _checked(adapter: str) -> Path:
    """The folder of an adapter whose files can be read."""
    folder = find(adapter)
    read_json(folder / _CONFIG, f"{adapter} is not an adapter")
    weights = folder / _WEIGHTS
    if not weights.is_file():
        raise ModelUnavailable(f"{adapter} has no {_WEIGHTS}")
    safetensors_header(weights)
    return folder


def _of(name: str, keys: Iterable[str]) -> list[str]:
    """Those of a model's keys that belong to the adapter `name`."""
    return [key for key in keys if f".{name}." in key or key.endswith(f".{name}")]


@contextmanager
def _restored_on_error(model: Any, name: str) -> Iterator[None]:
    """Where adding the adapter `name` fails, `model` as it was: peft changes it in place first."""
    modules = [(module, dict(module._modules)) for module in model.modules()]
    try:
        yield
    except BaseException:
        if _is_wrapped(model):
            _delete(model, name)
        for module, children in modules:  # peft gives back none of the layers that it replaced
            module._modules.clear()
            module._modules.update(children)
        if not _is_wrapped(model):
            vars(model).pop("peft_config", None)
        raise


def _delete(model: Any, name: str) -> None:
    """Take the adapter `name`, or what there is of it, off a model in peft's wrapper."""
    from peft.functional import delete_adapter

    # the wrapper's own method refuses one of which it has forgotten the config by then
    delete_adapter(model.get_base_model(), name, model.base_model.prefix)
    model.peft_config.pop(name, None)


def _is_wrapped(model: Any) -> bool:
    """Whether `model` is peft's wrapper: what it wraps has a `peft_config` too."""
    return hasattr(model, "get_base_model")


def _loaded(model: Any, folder: Path, weights: Path, name: str) -> tuple[Any, Any]:
    """The model with the adapter, and which keys found no counterpart."""
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    config = PeftConfig.from_pretrained(str(folder))
    config.inference_mode = True
    tensors = load_file(weights)
    adapted = model if _is_wrapped(model) else None
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
