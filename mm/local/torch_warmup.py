"""PyTorch's functions of one number, called once before several threads may call them first.

On an Intel processor several threads that call such a function for the first time together can
get a half of the result with four right digits (pytorch/pytorch#188792). Such a process sees its
first picture otherwise, and a training that is resumed in it is not the same training.
"""

from __future__ import annotations

_FUNCTIONS = (
    *("acos", "asin", "atan", "cos", "sin", "tan", "cosh", "sinh", "tanh"),
    *("exp", "expm1", "log", "log10", "log1p", "log2", "sqrt", "rsqrt"),
    *("erf", "erfc", "erfinv", "lgamma", "ceil", "floor", "round", "trunc"),
)


def make_first_calls() -> None:
    """Call each of them on one number, which one thread does alone."""
    import torch

    for kind in (torch.float32, torch.float64):
        number = torch.full((1,), 0.5, dtype=kind)
        for name in _FUNCTIONS:
            getattr(torch, name)(number)
