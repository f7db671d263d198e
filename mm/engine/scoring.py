"""Log-probabilities of continuations of a computed prompt, several in one forward."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mm.types import Cost, Scores

from .model_runner import ModelRunner, dynamic_cache
from .prompt import Prompt
from .sampler import log_probs

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 16
"""How many continuations are scored in one forward."""

# positions whose logits are held together, in all rows: those of 16 long continuations over a
# vocabulary of 152,000 are gigabytes, which no request reserves
_AT_ONCE = 128


def scores(runner: ModelRunner, prompt: Prompt, continuations: Sequence[Sequence[int]]) -> Scores:
    """The scores of `continuations` after `prompt`, under its adapter, with what they cost."""
    with runner.using(prompt.prefix.adapter):
        logprobs = score_continuations(runner, prompt, continuations)
    computed = sum(max(len(ids) - 1, 0) for ids in continuations)  # the last id's logits are not
    seconds = time.perf_counter() - prompt.requests[0].began
    cost = prompt.cost(0) + Cost(computed_tokens=computed, calls=1, seconds=seconds)
    return Scores(tuple(map(tuple, logprobs)), cost)


def score_continuations(
    runner: ModelRunner, prompt: Prompt, continuations: Sequence[Sequence[int]]
) -> list[list[float]]:
    """The log-probability of each id of each of `continuations` after `prompt`."""
    groups = (continuations[i : i + ROWS] for i in range(0, len(continuations), ROWS))
    return [scores for group in groups for scores in _score(runner, prompt, group)]


def _score(runner: ModelRunner, prompt: Prompt, rows: Sequence[Sequence[int]]) -> list[list[float]]:
    import torch

    longest = max(map(len, rows))
    # padding stands after all that counts, where a causal mask hides it
    padded = [[*row, *[0] * (longest - len(row))] for row in rows]
    ids = torch.tensor(padded, dtype=torch.long, device=runner.device)  # (B, T)
    banned = torch.tensor(sorted(runner.builder.banned_ids))
    taken = log_probs(prompt.logits, banned)[ids[:, :1]]  # (B, 1)
    if longest > 1:
        hidden = _hidden(runner, prompt, ids[:, :-1])
        taken = torch.cat([taken, _taken(runner, hidden, ids[:, 1:], banned)], dim=1)
    return [scores[: len(row)] for scores, row in zip(taken.tolist(), rows, strict=True)]


def _hidden(runner: ModelRunner, prompt: Prompt, ids: Tensor) -> Tensor:
    """Hidden states (B, T, D) of `ids` (B, T) after `prompt`, each row by itself."""
    import torch

    count, length = ids.shape
    cache = dynamic_cache(
        (k.expand(count, -1, -1, -1), v.expand(count, -1, -1, -1)) for k, v in prompt.layers
    )
    first = prompt.next_position
    at = torch.arange(first, first + length, device=runner.device)
    return runner.forward(runner.embed(ids), at.expand(count, -1), cache)


def _taken(runner: ModelRunner, hidden: Tensor, ids: Tensor, banned: Tensor) -> Tensor:
    """Log-probabilities (B, T) of `ids` (B, T), each after the token of `hidden` (B, T, D)."""
    import torch

    parts = zip(hidden.flatten(0, 1).split(_AT_ONCE), ids.flatten().split(_AT_ONCE), strict=True)
    taken = [
        log_probs(runner.logits(part), banned).gather(-1, wanted[:, None])[:, 0]
        for part, wanted in parts
    ]
    return torch.cat(taken).view(ids.shape)
