"""Logits that are not rounded: what a language model's head says, in float32 whatever its dtype.

Logits of ten or so in bfloat16 stand a sixteenth apart, so close seconds often tie with the first,
and which of them is written depends on how many rows the batch happens to have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def logits_of(head: Any, hidden: Tensor) -> Tensor:
    """Logits (..., V), in float32, of the tokens after `hidden` (..., D)."""
    import torch
    from torch import nn

    half = hidden.dtype in (torch.bfloat16, torch.float16)
    if not half or type(head) is not nn.Linear or head.bias is not None:
        return head(hidden).float()
    made = _unrounded(hidden.reshape(-1, hidden.shape[-1]), head.weight.t())
    return made.view(*hidden.shape[:-1], -1)


def _unrounded(hidden: Tensor, weight: Tensor) -> Tensor:
    """`hidden @ weight` in float32, from (N, D) and (D, V) in 16 bits.

    Products of 16 bits are summed in 32 and then rounded. CUDA can leave the rounding out;
    elsewhere a second product, less the first before it is rounded, is what rounding took.
    """
    import torch

    if hidden.device.type == "cuda":
        return torch.mm(hidden, weight, out_dtype=torch.float32)
    rounded = torch.mm(hidden, weight)
    return rounded.float() + torch.addmm(rounded, hidden, weight, beta=-1).float()
