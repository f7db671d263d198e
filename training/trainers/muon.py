"""The optimiser of a training: AdamW, or Muon for the matrices inside blocks and AdamW for the
rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from training.muon import Muon

_OUTER = ("embed", "lm_head", "merger", "projector")


class Together(torch.optim.Optimizer):
    """Several optimisers as one: their groups in a row, their steps one after the other."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
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
            part.load_state_dict(state)
        self._share()

    def _share(self) -> None:
        """One dictionary for each group, so that a schedule changes the part's own."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def muon(model: nn.Module, rate: float, weight_decay: float) -> Together:
    """Muon (Jordan 2024), its updates as large as AdamW's (Moonlight): one rate fits both."""
    wanted = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    inner = [p for n, p in wanted if _is_inner(n, p)]
    outer = [p for n, p in wanted if not _is_inner(n, p)]
    parts: list[torch.optim.Optimizer] = []
    if inner:
        parts.append(Muon(inner, lr=rate, weight_decay=weight_decay))
    if outer:
        parts.append(torch.optim.AdamW(outer, lr=rate, weight_decay=weight_decay, fused=True))
    return Together(parts)


def _is_inner(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and not any(word in name for word in _OUTER)
