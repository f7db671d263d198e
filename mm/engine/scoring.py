"""Log-probabilities of continuations of a computed prompt, several in one forward."""

from __future__ import annotations

from collections.abc import Sequence

from .model_runner import ModelRunner, dynamic_cache
from .prompt import Prompt
from .sampler import log_probs

ROWS = 16
"""How many continuations are scored in one forward."""


def score_continuations(
    runner: ModelRunner, prompt: Prompt, continuations: Sequence[Sequence[int]]
) -> list[list[float]]:
    """The log-probability of each id of each of `continuations` after `prompt`."""
    groups = (continuations[i : i + ROWS] for i in range(0, len(continuations), ROWS))
    return [scores for group in groups for scores in _score(runner, prompt, group)]


def _score(runner: ModelRunner, prompt: Prompt, rows: Sequence[Sequence[int]]) -> list[list[float]]:
    import torch

    count, longest = len(rows), max(map(len, rows))
    # padding stands after all that counts, where a causal mask hides it
    padded = [[*row, *[0] * (longest - len(row))] for row in rows]
    ids = torch.tensor(padded, device=runner.device)  # (B, T)
    logits = prompt.logits.expand(count, 1, -1)  # (B, 1, V)
    if longest > 1:
        cache = dynamic_cache(
            (k.expand(count, -1, -1, -1), v.expand(count, -1, -1, -1)) for k, v in prompt.layers
        )
        first = prompt.next_position
        at = torch.arange(first, first + longest - 1, device=runner.device)
        hidden = runner.forward(runner.embed(ids[:, :-1]), at.expand(count, -1), cache)
        logits = torch.cat([logits, runner.logits(hidden)], dim=1)  # (B, T, V)
    banned = torch.tensor(sorted(runner.builder.banned_ids))
    taken = log_probs(logits, banned).gather(-1, ids[..., None])[..., 0].tolist()
    return [scores[: len(row)] for scores, row in zip(taken, rows, strict=True)]
