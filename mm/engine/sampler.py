"""From logits to the next token."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from mm.types import Sampling

if TYPE_CHECKING:
    from torch import Tensor


class Sampler:
    """Draws one reply's tokens, with a seed of its own that no other request can disturb."""

    def __init__(self, sampling: Sampling, banned: Collection[int]) -> None:
        import torch

        self.sampling = sampling
        self._banned = torch.tensor(sorted(banned), dtype=torch.long)
        # on the processor: the same seed draws the same numbers on every device
        self._random = torch.Generator().manual_seed(sampling.seed)

    def pick(self, logits: Tensor) -> tuple[int, float]:
        """The next id and its log-probability at temperature 1, from `logits` (V,)."""
        return pick_rows([self], log_probs(logits[None], self._banned))[0]

    def uniform(self) -> float:
        """The reply's next random number, in [0, 1)."""
        import torch

        return torch.rand((), generator=self._random, dtype=torch.float64).item()


def log_probs(logits: Tensor, banned: Tensor) -> Tensor:
    """Log-probabilities (..., V) at temperature 1, with no mass on the `banned` ids."""
    banned = banned.to(logits.device)
    return logits.float().index_fill(-1, banned, float("-inf")).log_softmax(-1)


def pick_rows(samplers: Sequence[Sampler], likely: Tensor) -> list[tuple[int, float]]:
    """Each sampler's next id and its log-probability, from log-probabilities (B, V).

    A row's pick depends on nothing but its own row and its own sampler.
    """
    ids = likely.argmax(-1)
    whole = [i for i, s in enumerate(samplers) if _draws(s) and s.sampling.top_p >= 1]
    cut = [i for i, s in enumerate(samplers) if _draws(s) and s.sampling.top_p < 1]
    for rows, draw in ((whole, _draw), (cut, _draw_top)):
        if rows:
            ids[rows] = draw([samplers[i] for i in rows], likely[rows])
    taken = likely.gather(-1, ids[:, None])[:, 0]
    return list(zip(ids.tolist(), taken.tolist(), strict=True))


def _draws(sampler: Sampler) -> bool:
    return sampler.sampling.temperature != 0


def _draw(samplers: Sequence[Sampler], likely: Tensor) -> Tensor:
    return _quantile(_probs(samplers, likely), _uniform(samplers, likely))


def _draw_top(samplers: Sequence[Sampler], likely: Tensor) -> Tensor:
    """Ids from the smallest sets of tokens that hold top_p of the mass."""
    import torch

    probs = _probs(samplers, likely)
    falling, order = probs.sort(descending=True)
    top = probs.new_tensor([[s.sampling.top_p] for s in samplers])
    inside = falling.cumsum(-1) - falling < top
    inside[:, 0] = True  # the likeliest always stays
    # drawn in the order of ids: the sorted one hangs on the last bits of nearly equal tokens
    kept = torch.zeros_like(inside).scatter(-1, order, inside)
    return _quantile(probs * kept, _uniform(samplers, likely))


def _probs(samplers: Sequence[Sampler], likely: Tensor) -> Tensor:
    heat = likely.new_tensor([[s.sampling.temperature] for s in samplers])
    return (likely / heat).softmax(-1)


def _uniform(samplers: Sequence[Sampler], like: Tensor) -> Tensor:
    import torch

    drawn = [[s.uniform()] for s in samplers]
    return torch.tensor(drawn, dtype=torch.float64, device=like.device)


def _quantile(weights: Tensor, u: Tensor) -> Tensor:
    """Indices (B,) at fractions `u` (B, 1) in [0, 1) of the totals of `weights` (B, V).

    Never one of weight 0.
    """
    import torch

    upto = weights.double().cumsum(-1)
    index = (upto <= u * upto[:, -1:]).sum(-1)
    every = torch.arange(weights.shape[-1], device=weights.device)
    return torch.minimum(index, (every * (weights > 0)).amax(-1))
