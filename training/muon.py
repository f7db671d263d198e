"""Muon for the matrices inside blocks, AdamW for the other weights.

Muon orthogonalises in whatever precision is fast on the processor. `torch.optim.Muon` does so in
bfloat16, always: without bfloat16 instructions that takes fifty times as long as in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mm.errors import UserError
from mm.local.precision import fast_dtype

POLYNOMIALS = (
    (8.0934, -23.6204, 17.4462),
    (3.6366, -2.7219, 0.5365),
    (2.6613, -1.9772, 0.4526),
)
"""Coefficients of x, x^3 and x^5 for each step: the best three in a row for singular values from
0.01 to 1, which end between 0.73 and 1.27 (Polar Express, arXiv 2505.16932, section 3).

`torch.optim.Muon` takes five steps of one polynomial to come as near; with these three a training
learns as much from each sample.
"""

_EPSILON = 1e-7

_MARGIN = 1.02
"""Of the norm: rounding to 16 bits brings singular values above one, where the polynomials, which
hold up to there, grow fast (1.004 would end at 56)."""

OUTER = ("embed", "lm_head", "merger", "projector", "connector")
"""Matrices at a model's ends, by parts of their names: AdamW's."""

Groups = Sequence[dict[str, Any]]
"""Parameter groups, as optimizers of torch take them."""


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
        """Update every parameter that has a gradient."""
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
        dtype = self._dtype = self._dtype or fast_dtype(parameter.device)
        parameter.mul_(1 - rate * group["weight_decay"])
        parameter.add_(
            orthogonalised(update, dtype), alpha=-rate * 0.2 * math.sqrt(max(parameter.shape))
        )


def orthogonalised(update: Tensor, dtype: torch.dtype) -> Tensor:
    """`update` (m, n) with its singular values brought near one, computed in `dtype`."""
    wide = update.mT if update.shape[0] > update.shape[1] else update
    x = wide.to(dtype)
    x = x / (x.norm() * _MARGIN).clamp(min=_EPSILON)
    rows, columns = x.shape
    # products of Gram matrices are smaller, and square what rounding does: not for 16 bits
    by_gram = columns >= 2 * rows and dtype.itemsize > 2
    x = _by_gram(x) if by_gram else _by_itself(x)
    return x.mT if wide is not update else x


def _by_itself(x: Tensor) -> Tensor:
    for a, b, c in POLYNOMIALS:
        gram = x @ x.mT  # (m, m), the smaller side
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _by_gram(x: Tensor) -> Tensor:
    """The same steps on x x^T (m, m) alone; what they come to is applied to `x` once."""
    gram = x @ x.mT
    whole = None
    for step, (a, b, c) in enumerate(POLYNOMIALS, 1):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        whole = factor if whole is None else factor @ whole
        if step < len(POLYNOMIALS):
            gram = factor @ gram @ factor  # all are polynomials of one matrix, so they commute
    assert whole is not None
    return whole @ x


class CombinedOptimizer(torch.optim.Optimizer):
    """Several optimizers as one: all their groups, and a step of each in turn."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step every part."""
        found = closure() if closure else None
        for part in self.parts:
            part.step()
        return found

    def state_dict(self) -> dict[str, Any]:
        return {
            "parts": [part.state_dict() for part in self.parts],
            "state": {},
            "param_groups": [],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            if _sizes(state["param_groups"]) != _sizes(part.param_groups):
                raise UserError(
                    "the checkpoint groups weights for Muon and AdamW as an earlier version did: "
                    "begin again, with another --output"
                )
            part.load_state_dict(state)
        self._share()

    def _share(self) -> None:
        """One dictionary for each group, so that a schedule changes the part's own."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def _sizes(groups: Groups) -> list[int]:
    return [len(group["params"]) for group in groups]


def muon(model: nn.Module, rate: float, weight_decay: float) -> CombinedOptimizer:
    """Muon for the matrices inside the blocks of `model`, AdamW for its other trainable weights.

    Norms and biases do not decay.
    """
    wanted = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    inner = [p for n, p in wanted if is_inner(n, p)]
    outer = [p for n, p in wanted if not is_inner(n, p)]
    shaped, flat = ([p for p in outer if (p.ndim > 1) is many] for many in (True, False))
    return muon_and_adamw(
        [{"params": inner}] if inner else [],
        [
            *([{"params": shaped}] if shaped else []),
            *([{"params": flat, "weight_decay": 0.0}] if flat else []),
        ],
        rate=rate,
        weight_decay=weight_decay,
    )


def muon_and_adamw(
    inner: Groups,
    outer: Groups,
    *,
    rate: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
) -> CombinedOptimizer:
    """Muon for `inner`, AdamW with `betas` for `outer`."""
    parts: list[torch.optim.Optimizer] = []
    if inner:
        parts.append(Muon(inner, lr=rate, weight_decay=weight_decay))
    if outer:
        parts.append(
            torch.optim.AdamW(outer, lr=rate, weight_decay=weight_decay, betas=betas, fused=True)
        )
    return CombinedOptimizer(parts)


def is_inner(name: str, parameter: nn.Parameter, outer: Sequence[str] = OUTER) -> bool:
    """Whether `parameter` is a matrix inside a block: none of `outer` is part of its name."""
    return parameter.ndim == 2 and not any(part in name for part in outer)
