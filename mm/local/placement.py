"""Where and how a checkpoint's weights are held: device, precision, bits, threads."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mm.engine.resources import free_bytes
from mm.errors import ModelUnavailable, first_line
from mm.families.image_budgets import ImageBudgets

from .checkpoints import Checkpoint
from .precision import default_dtype, name_of, overflows, why_slow
from .quantization import check_readable, quantization

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

_TINY = 50_000_000  # parameters; below it a step is over before a second CPU thread has begun


@dataclass(frozen=True)
class LoadOptions:
    """What `load` was asked for, as it describes it."""

    device: str | None = None
    dtype: str | None = None
    adapter: str | None = None
    trust_remote_code: bool = False
    threads: int | None = None
    quantize: str | None = None
    memory: int | None = None
    budgets: ImageBudgets = ImageBudgets()
    verifier: str | None = None


@dataclass(frozen=True)
class Placement:
    """Where and how weights are held; `quantization` is transformers' config of it, or None."""

    device: torch.device
    dtype: torch.dtype
    quantization: Any = None


def place(checkpoint: Checkpoint, options: LoadOptions) -> Placement:
    """The placement that `options` ask for; by default on cuda where there is one, else the CPU.

    Raises:
        ModelUnavailable: no such device, too little memory, or a package for its bits is missing.
        ValueError: no such dtype or `quantize`.
    """
    check_readable(checkpoint, options.quantize)
    device = device_named(options.device)
    dtype = _dtype(options.dtype, device, checkpoint)
    bits = quantization(options.quantize, dtype)
    if bits is None:
        _check_memory(checkpoint, device, dtype)
    return Placement(device, dtype, bits)


def set_threads(threads: int | None, device: torch.device, checkpoint: Checkpoint) -> None:
    """Set this process's CPU threads: those asked for, or one for a tiny model on a CPU."""
    import torch

    if threads is None and device.type == "cpu" and checkpoint.parameters < _TINY:
        threads = 1
    if threads is not None:
        torch.set_num_threads(threads)


def device_named(device: str | None) -> torch.device:
    """The device of that name; None and "auto": cuda where there is one, else the CPU.

    Raises:
        ModelUnavailable: there is none such.
    """
    import torch

    if device in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ModelUnavailable(
            f"device {device!r} is not available here: {first_line(error)}"
        ) from None
    return found


def _dtype(dtype: str | None, device: torch.device, checkpoint: Checkpoint) -> torch.dtype:
    import torch

    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype in (None, "auto"):
        large = overflows(checkpoint.model_type)
        free = free_bytes(device)
        return default_dtype(device, checkpoint.parameters, free, large_numbers=large)
    if dtype not in kinds:
        raise ValueError(f"dtype must be one of {', '.join(kinds)} or auto, got {dtype!r}")
    if slow := why_slow(kinds[dtype], device):
        log.warning("%s; leave the dtype out for the faster one", slow)
    return kinds[dtype]


def _check_memory(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
    stored = checkpoint.quantization is not None
    needed = checkpoint.bytes if stored else checkpoint.parameters * dtype.itemsize
    free = free_bytes(device)
    if needed > free:
        kind = "its own bits" if stored else name_of(dtype)
        raise ModelUnavailable(
            f"{checkpoint.folder} needs {needed / 2**30:.1f} GiB in {kind}; {device} has "
            f"{free / 2**30:.1f} GiB free: take a smaller model, another device, or a smaller dtype"
        )
