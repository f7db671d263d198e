"""From logits to the next token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from mm.types import Sampling

if TYPE_CHECKING:
    from torch import Tensor


class Sampler:
    """Draws one reply's tokens, with a seed of its own that no other request can disturb.

    Args:
        banned: ids that `pick` never gives.
        prompt: ids before the reply, which a repetition penalty counts too.
    """

    def __init__(
        self, sampling: Sampling, banned: Collection[int] = (), *, prompt: Sequence[int] = ()
    ) -> None:
        import torch

        self.sampling = sampling
        self._banned = torch.tensor(sorted(banned), dtype=torch.long)
        self._prompt = prompt if sampling.repetition_penalty != 1 else ()
        self._written: Counter[int] = Counter()
        # on the processor: the same seed draws the same numbers on every device
        self._random = torch.Generator().manual_seed(sampling.seed)

    def pick(self, logits: Tensor) -> tuple[int, float]:
        """The next id and its log-probability at temperature 1, from `logits` (V,)."""
        return pick_rows([self], logits[None], self._banned)[0]

    @property
    def draws(self) -> bool:
        """Whether tokens are drawn; else the likeliest is taken."""
        return self.sampling.temperature != 0

    @property
    def cuts(self) -> bool:
        """Whether only some tokens may be drawn."""
        s = self.sampling
        return self.draws and (s.top_p < 1 or s.top_k > 0 or s.min_p > 0)

    @property
    def penalises(self) -> bool:
        s = self.sampling
        return s.repetition_penalty != 1 or bool(s.presence_penalty or s.frequency_penalty)

    def penalised(self, logits: Tensor) -> Tensor:
        """`logits` (V,) with what the prompt and the reply hold made less likely."""
        import torch

        s, logits = self.sampling, logits.clone()
        if s.repetition_penalty != 1 and (seen := sorted({*self._prompt, *self._written})):
            ids = torch.tensor(seen, device=logits.device)
            ids = ids[ids < len(logits)]  # placeholders of images may lie outside the vocabulary
            old, by = logits[ids], s.repetition_penalty
            logits[ids] = torch.where(old < 0, old * by, old / by)
        if self._written:
            ids = torch.tensor(list(self._written), device=logits.device)
            counts = logits.new_tensor(list(self._written.values()))
            logits[ids] -= s.presence_penalty + s.frequency_penalty * counts
        return logits

    def take(self, id: int) -> None:
        """Count a token as written."""
        if self.penalises:
            self._written[id] += 1

    def uniform(self) -> float:
        """The reply's next random number, in [0, 1)."""
        import torch

        return torch.rand((), generator=self._random, dtype=torch.float64).item()


def log_probs(logits: Tensor, banned: Tensor) -> Tensor:
    """Log-probabilities (..., V) at temperature 1, with no mass on the `banned` ids.

    Mllama's placeholder, for one, has no logit, so nothing could give it anyway.
    """
    banned = banned[banned < logits.shape[-1]].to(logits.device)
    return logits.float().index_fill(-1, banned, float("-inf")).log_softmax(-1)


def pick_rows(
    samplers: Sequence[Sampler], logits: Tensor, banned: Tensor
) -> list[tuple[int, float]]:
    """Each sampler's next id and its log-probability, from logits (B, V); `banned` never come.

    A row's pick depends on nothing but its own row and its own sampler. The log-probability is the
    model's own: at temperature 1, before penalties and cuts.
    """
    import torch

    likely = log_probs(logits, banned)
    scores = likely
    if penal := [i for i, s in enumerate(samplers) if s.penalises]:
        rows = [samplers[i].penalised(logits[i].float()) for i in penal]
        scores = likely.clone()
        scores[penal] = log_probs(torch.stack(rows), banned)
    ids = scores.argmax(-1)
    whole = [i for i, s in enumerate(samplers) if s.draws and not s.cuts]
    cut = [i for i, s in enumerate(samplers) if s.cuts]
    for rows, draw in ((whole, _draw), (cut, _draw_some)):
        if rows:
            ids[rows] = draw([samplers[i] for i in rows], scores[rows]).to(ids.device)
    taken = likely.gather(-1, ids[:, None])[:, 0]
    picked = list(zip(ids.tolist(), taken.tolist(), strict=True))
    for sampler, (id, _) in zip(samplers, picked, strict=True):
        sampler.take(id)
    return picked


def _draw(samplers: Sequence[Sampler], likely: Tensor) -> Tensor:
    return _quantile(_probs(samplers, likely), _uniform(samplers))


def _draw_some(samplers: Sequence[Sampler], likely: Tensor) -> Tensor:
    """Ids from the tokens that top_k, then top_p, then min_p leave: the order of transformers."""
    import torch

    probs = _probs(samplers, likely)
    falling, order = probs.sort(descending=True)  # (B, V)
    width = falling.shape[-1]
    last = torch.tensor([min(s.sampling.top_k or width, width) - 1 for s in samplers])
    among = falling >= falling.gather(-1, last[:, None].to(order.device))
    falling = falling * among / (falling * among).sum(-1, keepdim=True)
    top = probs.new_tensor([[s.sampling.top_p] for s in samplers])
    least = probs.new_tensor([[s.sampling.min_p] for s in samplers])
    inside = among & (falling.cumsum(-1) - falling < top) & (falling >= least * falling[:, :1])
    inside[:, 0] = True  # the likeliest always stays
    # drawn in the order of ids: sorted order would depend on rounding between near-equal tokens
    allowed = torch.zeros_like(inside).scatter(-1, order, inside)
    return _quantile(probs * allowed, _uniform(samplers))


def _probs(samplers: Sequence[Sampler], likely: Tensor) -> Tensor:
    heat = likely.new_tensor([[s.sampling.temperature] for s in samplers])
    return (likely / heat).softmax(-1)


def _uniform(samplers: Sequence[Sampler]) -> Tensor:
    import torch

    return torch.tensor([[s.uniform()] for s in samplers], dtype=torch.float64)


def _quantile(weights: Tensor, u: Tensor) -> Tensor:
    """Indices (B,) at fractions `u` (B, 1) in [0, 1) of the totals of `weights` (B, V).

    Never one of weight 0.
    """
    import torch

    if weights.device.type == "mps":  # which has no float64
        weights = weights.cpu()
    upto = weights.double().cumsum(-1)
    index = (upto <= u.to(upto.device) * upto[:, -1:]).sum(-1)
    every = torch.arange(weights.shape[-1], device=weights.device)
    return torch.minimum(index, (every * (weights > 0)).amax(-1))
