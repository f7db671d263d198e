"""Decoder blocks compiled for training.

A small model's step on a CPU is mostly casts, products and sums of small tensors; compiled, they
take one pass over memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

WORTH_IT_S = 300.0
"""A training at least so long earns back the time that compiling takes, about half a minute."""


def why_not_compiled() -> str:
    """Why PyTorch cannot compile here, found by trying; "" if it can.

    On a CPU it needs a C++ compiler and Python's headers.
    """
    import torch

    try:
        torch.compile(_sample, dynamic=True)(torch.ones(2, 3, requires_grad=True)).sum().backward()
    except Exception as error:  # whatever it is, a training runs without
        return " ".join(str(error).split())[:200]
    return ""


def compile_blocks(model: Any) -> None:
    """Compile the blocks of `model`'s decoder, for forward passes with gradients only.

    Those without, as the engine's, read caches, for which a compiler would recompile each time.
    """
    import torch

    compiled: dict[type, Callable[..., Any]] = {}
    for block in model.get_decoder().layers:
        kind = type(block)
        if kind not in compiled:  # one program for all blocks of a class
            compiled[kind] = torch.compile(kind.forward, dynamic=True)
        block.__dict__["forward"] = partial(_forward, block, kind.forward, compiled[kind])


def _forward(
    block: Any, plain: Callable[..., Any], compiled: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    import torch

    return (compiled if torch.is_grad_enabled() else plain)(block, *args, **kwargs)


def _sample(x: Tensor) -> Tensor:
    return x.sin() * 2 + 1
