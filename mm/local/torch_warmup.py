"""Warms up torch's unary math kernels on one thread, because their first concurrent call may be
inexact (pytorch/pytorch#188792).

On an Intel processor half of the result can then have four right digits only. Such a process
computes its first image differently, so a training resumed in it would not repeat the original one.
"""

from __future__ import annotations

_FUNCTIONS = (
    *("acos", "asin", "atan", "cos", "sin", "tan", "cosh", "sinh", "tanh"),
    *("exp", "expm1", "log", "log10", "log1p", "log2", "sqrt", "rsqrt"),
    *("erf", "erfc", "erfinv", "lgamma", "ceil", "floor", "round", "trunc"),
)


def warm_up() -> None:
    """Call each of them on one number, which takes one thread."""
    import torch

    for kind in (torch.float32, torch.float64):
        number = torch.full((1,), 0.5, dtype=kind)
        for name in _FUNCTIONS:
            getattr(torch, name)(number)
