"""Clipping that keeps gradients: GPPO (Klear-Reasoner, 2508.07629), on top of a clipped loss."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def keep_gradients(
    logps: Tensor, old: Tensor, advantages: Tensor, *, low: float, high: float, dual: float = 3.0
) -> Tensor:
    """Log-probabilities (B, T) whose ratio to `old` is clipped, but whose gradient is kept.

    Where PPO's pessimistic bound would clip a token, -A * exp(this - old) is the clipped loss, and
    its gradient that of -A * (1 +/- bound) * log p instead of none. Under a negative advantage a
    ratio above `dual` is a constant.

    Args:
        advantages: (B, 1), or (B, T).
        low, high: ratios are kept within [1 - low, 1 + high].
    """
    ratio = (logps - old).exp()
    up = (advantages > 0) & (ratio > 1 + high)
    down = (advantages < 0) & (ratio < 1 - low)
    far = (advantages < 0) & (ratio > dual)
    bound = ratio.where(~up, 1 + high).where(~down, 1 - low)
    moved = logps + (bound.log() - ratio.log()).detach()
    return moved.where(~far, (old + math.log(dual)).detach())
