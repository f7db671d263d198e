"""Rows whose step failed are tried again from where they were, whatever it had written by then."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_vlm import endless, question, sampled

from mm.engine.model_runner import ModelRunner
from mm.local.hf_vlm import HFVLM
from mm.types import Generation


def together(model: HFVLM) -> list[Generation]:
    return model.generate([question(s) for s in range(3)], sampled(3, 8))


class Failing:
    """Runs out of memory at the `bad`-th of its calls on one token of a row."""

    def __init__(self, bad: int) -> None:
        self.bad, self.calls = bad, 0

    def __call__(self, module: Any, given: tuple[torch.Tensor, ...]) -> None:
        # the head's have no axis of tokens; the first of them are prompts'
        if given[0].dim() < 3 or given[0].shape[1] == 1:
            self.calls += 1
            if self.calls == self.bad:
                raise torch.OutOfMemoryError("CUDA")


@pytest.mark.parametrize("batches", [True, False], ids=["one forward", "row by row"])
@pytest.mark.parametrize("where", ["before", "between layers", "logits"])
@pytest.mark.parametrize("bad", [4, 5, 6], ids=str)
def test_a_step_that_failed_leaves_nothing_behind(
    batches: bool, where: str, bad: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelRunner, "batches", batches)
    fresh = together(endless())
    model, fail = endless(), Failing(bad)
    runner = model.engine.runner
    _ = runner.kv_bytes
    layers = runner.model.get_decoder().layers
    at = {"before": layers[0], "between layers": layers[1], "logits": runner.head}[where]
    with at.register_forward_pre_hook(fail):
        replies = together(model)
    assert fail.calls > bad
    for mine, theirs in zip(replies, fresh, strict=True):
        assert mine.message.tokens == theirs.message.tokens
        assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
    entries = model.engine._loop._prefixes.entries
    for key in entries:
        kept = entries.get(key) or ()
        assert {keys.shape[2] for keys, _ in kept} == {len(key.ids)}
