"""Which floating-point precision is fast here: asked of the processor by multiplying.

A flag may say that bfloat16 is supported where its products are fifty times slower than those of
float32: most processors without AVX-512 or AMX, and some builds that know of neither. A few
milliseconds of products decide instead.
"""

from __future__ import annotations

import logging
import time
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

SMALL = 500_000_000
"""Parameters below which a CPU computes in float32 unless told otherwise: exact, fast enough."""

LOADING = 1.5
"""Peak of memory while weights are converted to float32, as a multiple of their float32 size."""

_SIDE = 256
_TRIES = 3
_FASTER = 1.2  # a precision must be so much faster to be worth its rounding


def fast_dtype(device: torch.device) -> torch.dtype:
    """The precision, float32 or 16 bits, in which matrices are multiplied fastest on `device`."""
    import torch

    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16
    if device.type != "cpu":
        return torch.bfloat16
    exact, rounded = (products_per_s(dtype) for dtype in (torch.float32, torch.bfloat16))
    return torch.bfloat16 if rounded > _FASTER * exact else torch.float32


@cache
def products_per_s(dtype: torch.dtype) -> float:
    """Floating-point operations a second of a matrix product on one thread; measured once.

    By the time that the thread computes, so that a busy machine gives the same answer.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several would wait for each other where the machine is busy
    try:
        matrix = torch.ones(_SIDE, _SIDE, dtype=dtype)
        _seconds(matrix)  # the first product also chooses a kernel
        return 2 * _SIDE**3 / min(_seconds(matrix) for _ in range(_TRIES))
    finally:
        torch.set_num_threads(threads)


def _seconds(matrix: torch.Tensor) -> float:
    began = time.thread_time()
    matrix.mm(matrix)
    return time.thread_time() - began


def overflows(model_type: str) -> bool:
    """Whether a model's activations are too large for float16, whose largest number is 65504.

    Gemma's are: it was trained in bfloat16, and in float16 its logits are not numbers.
    """
    return "gemma" in model_type


def default_dtype(
    device: torch.device, parameters: int, free: int, *, large_numbers: bool = False
) -> torch.dtype:
    """The precision to load `parameters` weights in, with `free` bytes of memory on `device`.

    Float32 for small models on a CPU; else the fast one. Where that is float32 and does not fit,
    bfloat16 halves the memory, and a line says that it is slow here.

    Args:
        large_numbers: float16 cannot hold the model's activations; float32 is taken in its place.
    """
    import torch

    if device.type == "cpu" and parameters < SMALL:
        return torch.float32
    fast = fast_dtype(device)
    if fast == torch.float16 and large_numbers:
        fast = torch.float32
    if fast == torch.float32 and parameters * fast.itemsize * LOADING > free:
        log.warning(
            "float32 would be faster on this processor, and needs %.1f GiB of memory while it "
            "loads (%.1f free): taking bfloat16",
            parameters * fast.itemsize * LOADING / 2**30,
            free / 2**30,
        )
        return torch.bfloat16
    return fast


def fast_autocast(device: torch.device) -> torch.autocast:
    """A context in which matrices are multiplied in the fast precision of `device`."""
    import torch

    dtype = fast_dtype(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


def why_slow(dtype: torch.dtype, device: torch.device) -> str | None:
    """One line that says how slow `dtype` is on `device`; None where it is not slow."""
    import torch

    if device.type != "cpu" or dtype == torch.float32:
        return None
    theirs, ours = products_per_s(dtype), products_per_s(torch.float32)
    if theirs >= ours:
        return None
    return (
        f"{name_of(dtype)} is slow on this processor: {theirs / 1e9:.0f} billion operations a "
        f"second, float32 {ours / 1e9:.0f}"
    )


def fast_line(device: torch.device) -> str:
    """The fast precision of `device`, and on a CPU what products in each precision reach."""
    import torch

    if device.type != "cpu":
        return name_of(fast_dtype(device))
    reached = ", ".join(
        f"{name_of(dtype)} {products_per_s(dtype) / 1e9:.0f}"
        for dtype in (torch.float32, torch.bfloat16)
    )
    return f"{name_of(fast_dtype(device))} (billion operations a second: {reached})"


def name_of(dtype: Any) -> str:
    """A dtype as flags and files name it: "float32"."""
    return str(dtype).removeprefix("torch.")
