"""Continuations are scored as their words would be written, and few logits are held at a time."""

from __future__ import annotations

import pytest
import torch
from tiny_vlm import question, vlm

from mm.engine import scoring
from mm.engine.sampler import log_probs

ROWS = [[5, 9, 7, 30, 4], [8], [], list(range(3, 60)), [11, 12]]


def scored(rows: list[list[int]]) -> tuple[tuple[float, ...], ...]:
    model = vlm()
    return model.engine.score(model.builder.build(question()), rows).logprobs


@pytest.mark.parametrize("at_once", [1, 7, 57, 58], ids=str)
def test_slices_of_any_size_give_the_same_scores(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, held = scored(ROWS), []

    def watched(logits: torch.Tensor, banned: torch.Tensor) -> torch.Tensor:
        held.append(logits.numel() // logits.shape[-1])
        return log_probs(logits, banned)

    monkeypatch.setattr(scoring, "_AT_ONCE", at_once)
    monkeypatch.setattr(scoring, "log_probs", watched)
    for part, all_at_once in zip(scored(ROWS), whole, strict=True):
        assert part == pytest.approx(all_at_once, abs=1e-6)
    assert max(held) == at_once


def test_nothing_is_held_of_all_positions_of_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    model, held = vlm(), []
    logits = model.engine.runner.logits

    def watched(hidden: torch.Tensor) -> torch.Tensor:
        held.append(hidden.numel() // hidden.shape[-1])
        return logits(hidden)

    model.engine.runner.logits = watched  # type: ignore[method-assign]
    model.engine.score(model.builder.build(question()), [[5] * 40] * 16)
    assert sum(held) == 1 + 16 * 39
    assert max(held) <= 256


def test_nothing_to_score_scores_nothing() -> None:
    assert scored([[], []]) == ((), ())
