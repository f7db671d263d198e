"""Muon, its orthogonalisation in whatever precision is fast on the processor.

`torch.optim.Muon` orthogonalises in bfloat16, always: on a processor without bfloat16 instructions
that takes fifty times as long as in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mm.local.precision import fast_dtype

COEFFICIENTS = (3.4445, -4.775, 2.0315)
"""Of the quintic of Newton and Schulz (Jordan 2024), whose slope at zero is the largest."""

STEPS = 5
_EPSILON = 1e-7


class Muon(torch.optim.Muon):
    """As `torch.optim.Muon`, with updates as large as AdamW's (Moonlight): one rate fits both.

    Args:
        dtype: of the orthogonalisation; None takes the fast one of the parameters' device. Its
            state is that of `torch.optim.Muon`.
    """

    def __init__(self, params: Any, *, dtype: torch.dtype | None = None, **options: Any) -> None:
        super().__init__(params, adjust_lr_fn="match_rms_adamw", **options)
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = closure() if closure else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, momentum, rate = self.state[parameter], group["momentum"], float(group["lr"])
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        mean = state["momentum_buffer"]
        mean.lerp_(gradient, 1 - momentum)
        update = gradient.lerp(mean, momentum) if group["nesterov"] else mean
        dtype = self._dtype or fast_dtype(parameter.device)
        parameter.mul_(1 - rate * group["weight_decay"])
        parameter.add_(
            orthogonalised(update, dtype), alpha=-rate * 0.2 * math.sqrt(max(parameter.shape))
        )


def orthogonalised(update: Tensor, dtype: torch.dtype) -> Tensor:
    """`update` (m, n) with its singular values brought near one, computed in `dtype`."""
    a, b, c = COEFFICIENTS
    wide = update.mT if update.shape[0] > update.shape[1] else update
    x = wide.to(dtype)
    x = x / x.norm().clamp(min=_EPSILON)
    for _ in range(STEPS):
        gram = x @ x.mT  # (m, m), the smaller side
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if wide is not update else x
