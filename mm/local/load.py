"""Loads a model by name. Importing this loads neither torch nor transformers."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from mm.errors import ModelUnavailable, first_line
from mm.families.registry import FAMILIES, family_of
from mm.tokens.torchvision_compat import hide_broken_torchvision
from mm.vlm import CropRule

from .checkpoints import Checkpoint, find, inspect, read_json
from .precision import default_dtype, why_slow
from .quantization import quantization
from .torch_warmup import make_first_calls

if TYPE_CHECKING:
    import torch

    from .generic_vlm import GenericVLM
    from .hf_vlm import HFVLM

log = logging.getLogger(__name__)

_TINY = 50_000_000  # parameters; below it a step is over before a second CPU thread has begun
_ADAPTER = "adapter"


def load(
    name: str = "tiny",
    *,
    device: str | None = None,
    dtype: str | None = None,
    adapter: str | None = None,
    trust_remote_code: bool = False,
    threads: int | None = None,
    quantize: str | None = None,
) -> HFVLM | GenericVLM:
    """The model called `name`, ready to answer.

    A checkpoint of a family that families.py does not list runs through its own processor, with a
    warning that it keeps nothing between turns.

    Args:
        name: a bundled model ("tiny"), a folder with a checkpoint or a peft adapter, or a hub id.
        device: as torch names it; None takes a GPU if there is one.
        dtype: "float32", "bfloat16" or "float16"; None takes float32 for small models on
            a CPU, else the precision that is fast there.
        adapter: the folder of a peft adapter to answer with.
        trust_remote_code: run code that comes with the checkpoint.
        threads: CPU threads of this process; None leaves torch's number, but takes 1 for a model so
            small that sharing its steps costs more than it saves.
        quantize: "4bit" or "8bit" weights of the language model, through bitsandbytes.

    Raises:
        ModelUnavailable: missing, gated, offline, too large, or of a kind that is not supported;
            the message says the remedy.
        ValueError: no such dtype, or no such `quantize`.
    """
    with no_collecting():
        return _load(name, device, dtype, adapter, trust_remote_code, threads, quantize)


def _load(
    name: str,
    device: str | None,
    dtype: str | None,
    adapter: str | None,
    trust_remote_code: bool,
    threads: int | None,
    quantize: str | None,
) -> HFVLM | GenericVLM:
    folder = find(name)
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        if adapter:
            raise ModelUnavailable(f"{name} is an adapter itself; give its base to use {adapter}")
        base, adapter = _base_of(folder), str(folder)
        folder = find(base)
    checkpoint = inspect(folder)
    _check_supported(checkpoint, trust_remote_code)
    place = _device(device)
    kind = _dtype(dtype, place, checkpoint)
    quantized = quantization(quantize, kind)
    if quantized is None:
        _check_memory(checkpoint, place, kind)
    make_first_calls()
    _set_threads(threads, place, checkpoint)
    with _quiet():
        return _assemble(name, checkpoint, place, kind, adapter, trust_remote_code, quantized)


def _assemble(
    name: str,
    checkpoint: Checkpoint,
    device: torch.device,
    dtype: torch.dtype,
    adapter: str | None,
    trust_remote_code: bool,
    quantized: Any,
) -> HFVLM | GenericVLM:
    from dataclasses import replace

    if family_of(str(checkpoint.config.get("model_type"))) is None:
        return _unlisted(name, checkpoint, dtype, device, adapter, trust_remote_code)
    from mm.engine.engine import Engine
    from mm.tokens.loading import load_builder

    from .fast_vision_tower import speed_up
    from .hf_vlm import HFVLM

    try:
        builder = load_builder(
            str(checkpoint.folder), local_files_only=True, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"{name}: {first_line(error)}") from error
    model = speed_up(_weights(checkpoint, dtype, trust_remote_code, device, quantized)).eval()
    if adapter:
        model = _adapted(model, adapter).eval()
    budget = max(_free(device) // 4, 2**28) if device.type == "cuda" else 2**29
    engine = Engine(model, builder, context_budget=budget, feature_budget=budget // 4)
    traits = replace(builder.traits, crop_rule=_crop_rule(checkpoint, builder.traits.crop_rule))
    return HFVLM(engine, name=name, traits=traits, adapter=_ADAPTER if adapter else None)


def _unlisted(
    name: str,
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device: torch.device,
    adapter: str | None,
    trust_remote_code: bool,
) -> GenericVLM:
    from .generic_vlm import load_generic

    if adapter:
        raise ModelUnavailable(f"{name}: adapters need a listed family, and its is not")
    model = _weights(checkpoint, dtype, trust_remote_code, device).eval()
    folder = str(checkpoint.folder)
    return load_generic(folder, model, name=name, trust_remote_code=trust_remote_code)


def _weights(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    trust_remote_code: bool,
    device: torch.device,
    quantized: Any = None,
) -> Any:
    """The model on `device`, every tensor of it from the checkpoint."""
    import transformers

    architecture = (checkpoint.config.get("architectures") or [""])[0]
    model_class: Any = getattr(transformers, architecture, None)
    if model_class is None:
        model_class = transformers.AutoModelForImageTextToText
    place = {"quantization_config": quantized, "device_map": {"": device}} if quantized else {}
    try:
        model, report = model_class.from_pretrained(
            checkpoint.folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
            **place,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelUnavailable(f"{checkpoint.folder}: {first_line(error)}") from error
    if missing := sorted(report["missing_keys"]):
        raise ModelUnavailable(
            f"{checkpoint.folder} lacks {len(missing)} of its model's weights, such as {missing[0]}"
        )
    return model if quantized else model.to(device)


def _adapted(model: Any, adapter: str) -> Any:
    """`model` with the peft adapter in the folder `adapter`."""
    folder = find(adapter)
    read_json(folder / "adapter_config.json", f"{adapter} is not an adapter")
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise ModelUnavailable(f"{adapter} has no adapter_model.safetensors")
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    try:
        adapted = PeftModel.from_pretrained(model, str(folder), adapter_name=_ADAPTER)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelUnavailable(f"{adapter} does not fit the model: {first_line(error)}") from error
    needed = get_peft_model_state_dict(adapted, adapter_name=_ADAPTER, save_embedding_layers=False)
    with safe_open(weights, "pt") as file:
        there = set(file.keys())
    strays = sorted(set(needed) ^ {k for k in there if "embed" not in k or k in needed})
    if strays:
        raise ModelUnavailable(
            f"{adapter} does not fit the model: {len(strays)} weights differ, such as {strays[0]}"
        )
    return adapted


def _base_of(folder: Path) -> str:
    config = read_json(folder / "adapter_config.json", f"{folder} is not an adapter")
    base = config.get("base_model_name_or_path")
    if not base:
        raise ModelUnavailable(
            f"{folder} names no base model; load the base with adapter={str(folder)!r}"
        )
    return str(base)


def _check_supported(checkpoint: Checkpoint, trust_remote_code: bool) -> None:
    model_type = str(checkpoint.config.get("model_type", ""))
    own_code = trust_remote_code and "auto_map" in checkpoint.config
    if not (family_of(model_type) or own_code or _reads_pictures(model_type)):
        known = ", ".join(family.name for family in FAMILIES)
        raise ModelUnavailable(
            f"{checkpoint.folder}: model type {model_type!r} is not supported; use one of {known}"
        )


def _reads_pictures(model_type: str) -> bool:
    """Whether transformers has a model of this type that answers about pictures."""
    hide_broken_torchvision()
    from transformers.models.auto import modeling_auto

    return model_type in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


def _device(device: str | None) -> torch.device:
    import torch

    if device in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as error:
        raise ModelUnavailable(
            f"device {device!r} is not available here: {first_line(error)}"
        ) from None
    return place


def _dtype(dtype: str | None, device: torch.device, checkpoint: Checkpoint) -> torch.dtype:
    import torch

    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype in (None, "auto"):
        return default_dtype(device, checkpoint.parameters, _free(device))
    if dtype not in kinds:
        raise ValueError(f"dtype must be one of {', '.join(kinds)} or auto, got {dtype!r}")
    if slow := why_slow(kinds[dtype], device):
        log.warning("%s; leave the dtype out for the faster one", slow)
    return kinds[dtype]


def _check_memory(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
    needed = checkpoint.parameters * dtype.itemsize
    free = _free(device)
    if needed > free:
        kind = str(dtype).removeprefix("torch.")
        raise ModelUnavailable(
            f"{checkpoint.folder} needs {needed / 2**30:.1f} GiB in {kind}; {device} has "
            f"{free / 2**30:.1f} GiB free: take a smaller model, another device, or a smaller dtype"
        )


def _free(device: torch.device) -> int:
    """Bytes of memory that `device` can still give."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available


def _set_threads(threads: int | None, device: torch.device, checkpoint: Checkpoint) -> None:
    import torch

    if threads is None and device.type == "cpu" and checkpoint.parameters < _TINY:
        threads = 1
    if threads is not None:
        torch.set_num_threads(threads)


def _crop_rule(checkpoint: Checkpoint, default: CropRule) -> CropRule:
    rule = checkpoint.config.get("crop_rule", default)
    if rule not in get_args(CropRule):
        raise ModelUnavailable(
            f"{checkpoint.folder}: crop_rule must be in {get_args(CropRule)}, got {rule!r}"
        )
    return rule


@contextmanager
def no_collecting() -> Iterator[None]:
    """No garbage collection: imports make a million objects that stay, and a sixth of the time goes
    into looking through them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars or advice from transformers while it loads."""
    from transformers.utils import logging as theirs

    level, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(level)
        if bars:
            theirs.enable_progress_bar()
