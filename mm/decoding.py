"""From logits to the next token, and from tokens to the text a person reads as it comes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from .types import Sampling

if TYPE_CHECKING:
    from torch import Tensor


class Sampler:
    """Draws one reply's tokens, with a seed of its own that no other request can disturb."""

    def __init__(self, sampling: Sampling, banned: Collection[int]) -> None:
        import torch

        self._sampling = sampling
        self._banned = torch.tensor(sorted(banned), dtype=torch.long)
        # on the processor: the same seed draws the same numbers on every device
        self._random = torch.Generator().manual_seed(sampling.seed)

    def pick(self, logits: Tensor) -> tuple[int, float]:
        """The next id and its log-probability at temperature 1, from `logits` (V,)."""
        likely = log_probs(logits, self._banned)
        id = int(likely.argmax()) if self._sampling.temperature == 0 else self._draw(likely)
        return id, float(likely[id])

    def _draw(self, likely: Tensor) -> int:
        import torch

        probs = (likely / self._sampling.temperature).softmax(-1)
        u = torch.rand((), generator=self._random, dtype=torch.float64).item()
        if self._sampling.top_p >= 1:
            return _quantile(probs, u)
        probs, order = probs.sort(descending=True)
        # the smallest set of tokens that holds top_p of the mass; the likeliest always stays
        inside = probs.cumsum(-1) - probs < self._sampling.top_p
        inside[0] = True
        return int(order[_quantile(probs * inside, u)])


def log_probs(logits: Tensor, banned: Tensor) -> Tensor:
    """Log-probabilities (..., V) at temperature 1, with no mass on the `banned` ids."""
    banned = banned.to(logits.device)
    return logits.float().index_fill(-1, banned, float("-inf")).log_softmax(-1)


def _quantile(weights: Tensor, u: float) -> int:
    """The index at fraction `u` in [0, 1) of the total of `weights` (V,); never one of weight 0."""
    upto = weights.double().cumsum(-1)
    index = int((upto <= u * upto[-1]).sum())
    return min(index, int(weights.nonzero()[-1]))


class TextStream:
    """The text of a growing reply, in pieces that split no character; watches for stop strings."""

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        stop: Sequence[str] = (),
        on_text: Callable[[str], None] | None = None,
    ) -> None:
        self._decode = decode
        self._stop = stop
        self._on_text = on_text
        self._ids: list[int] = []
        # a token's text can depend on the one before it (spaces, bytes of one character), so each
        # piece is the difference between two decodings that start at the same place
        self._from = 0
        self._upto = 0
        self._tail = ""

    def push(self, id: int) -> bool:
        """Take the next token; True when the text now holds a stop string."""
        self._ids.append(id)
        if not (self._stop or self._on_text):
            return False
        piece = self._piece()
        return False if piece.endswith("\ufffd") else self._emit(piece)

    def end(self) -> None:
        """Let out what was held back as the beginning of a character."""
        if self._on_text and self._upto < len(self._ids):
            self._emit(self._piece())

    def _piece(self) -> str:
        known = self._decode(self._ids[self._from : self._upto])
        return self._decode(self._ids[self._from :])[len(known) :]

    def _emit(self, piece: str) -> bool:
        self._from, self._upto = self._upto, len(self._ids)
        if piece and self._on_text:
            self._on_text(piece)
        self._tail += piece
        found = any(s in self._tail for s in self._stop)
        longest = max(map(len, self._stop), default=0)
        self._tail = self._tail[-longest:] if longest else ""
        return found
