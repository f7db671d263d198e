"""Holding a model, while it learns more, to what it answered before.

A new stage forgets what was hardest to learn first: counts fall by six to eight points. So where a
token's kind was known before, the answer's distribution is held to the one that the model gave as
it was (learning without forgetting, arXiv:1606.09282, section 3, at temperature 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Qwen3VLForConditionalGeneration

from .language_stage import decode, trained_logits
from .packing import KINDS, Batch

KNOWN = KINDS[: KINDS.index("full read")]
"""What the language and replay stages taught."""

SETTLED = tuple(kind for kind in KINDS if not kind.startswith(("verdict", "again", "letters")))
"""What the extend stage taught too, but for verdicts and what follows them."""


def distance(
    before: Qwen3VLForConditionalGeneration,
    batch: Batch,
    logits: Tensor,
    kinds: Tensor,
    *,
    held: Sequence[str] = KNOWN,
) -> Tensor:
    """(N,) divergence, in nats, of `logits` (N, V) from those that the model `before` gives.

    Zero for the tokens whose kind, in `kinds` (N,), is none of `held`.
    """
    known = torch.isin(kinds, torch.tensor([KINDS.index(kind) for kind in held]))
    if not known.any():
        return logits.new_zeros(len(logits))
    with torch.no_grad():
        wanted, _, _ = trained_logits(before, decode(before, batch), batch)
    ours, theirs = logits.log_softmax(-1), wanted.log_softmax(-1)
    return F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1) * known
