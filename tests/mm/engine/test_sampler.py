"""Penalties and cuts are transformers' own; seeded draws come only from what they leave."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from fresh_runs import fresh_inputs
from images import noise
from tiny_models import FAMILIES
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from mm.engine.engine import Engine
from mm.engine.sampler import Sampler, _draw, log_probs, pick_rows
from mm.local.hf_vlm import HFVLM
from mm.types import Sampling, user

NONE: Any = torch.tensor([], dtype=torch.long)


def theirs(sampling: Sampling) -> LogitsProcessorList:
    """transformers' warpers in the order of its `generate`."""
    made = [TemperatureLogitsWarper(sampling.temperature)]
    made += [TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []
    made += [TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []
    made += [MinPLogitsWarper(sampling.min_p)] if sampling.min_p else []
    return LogitsProcessorList(made)


@pytest.mark.parametrize(
    "sampling",
    [
        pytest.param(Sampling(temperature=1.0, top_k=5), id="top_k"),
        pytest.param(Sampling(temperature=1.0, top_k=1000), id="top_k above the vocabulary"),
        pytest.param(Sampling(temperature=0.7, top_p=0.8), id="top_p"),
        pytest.param(Sampling(temperature=1.3, min_p=0.2), id="min_p"),
        pytest.param(Sampling(temperature=0.7, top_p=0.8, top_k=20), id="Qwen3.5"),
        pytest.param(Sampling(temperature=1.5, top_p=0.95, top_k=12, min_p=0.1), id="all"),
    ],
)
def test_tokens_are_drawn_from_what_transformers_leaves(sampling):
    torch.manual_seed(0)
    for seed in range(4):
        logits = torch.randn(1, 50) * 3
        allowed = theirs(sampling)(NONE[None], log_probs(logits, NONE)).softmax(-1)[0]
        sampler = Sampler(replace(sampling, seed=seed))
        drawn = torch.tensor([sampler.pick(logits[0])[0] for _ in range(1500)])
        shares = torch.bincount(drawn, minlength=50) / len(drawn)
        assert shares[allowed == 0].sum() == 0
        assert (shares - allowed).abs().max() < 0.05


class OnMPS(torch.Tensor):
    """Says that it lies on an Apple GPU, and like one there has no float64."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("mps")

    def double(self) -> torch.Tensor:
        raise TypeError("the MPS framework doesn't support float64")

    def cpu(self, memory_format: Any = None) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)


def test_a_device_without_float64_draws_the_same():
    torch.manual_seed(0)
    likely = torch.randn(3, 20).log_softmax(-1)
    kinds = [Sampling(temperature=1.0, seed=seed) for seed in range(3)]
    expected = _draw([Sampler(kind) for kind in kinds], likely)
    drawn = _draw([Sampler(kind) for kind in kinds], likely.as_subclass(OnMPS))
    assert drawn.tolist() == expected.tolist()


@pytest.mark.parametrize("penalty", [0.8, 1.05, 1.7])
def test_repetition_penalty_is_transformers_own(penalty):
    torch.manual_seed(0)
    logits, prompt = torch.randn(1, 30) * 4, [3, 3, 7, 29]
    sampler = Sampler(Sampling(repetition_penalty=penalty), prompt=prompt)
    for id in (5, 7):
        sampler.take(id)
    seen: Any = torch.tensor([[*prompt, 5, 7]])
    expected = RepetitionPenaltyLogitsProcessor(penalty)(seen, logits.clone())
    torch.testing.assert_close(sampler.penalised(logits[0]), expected[0])


def test_presence_and_frequency_count_the_reply_alone():
    """As OpenAI documents them: taken off the logits, once and for each time."""
    sampler = Sampler(Sampling(presence_penalty=1.5, frequency_penalty=0.25), prompt=[1, 2])
    for id in (4, 4, 6):
        sampler.take(id)
    expected = torch.zeros(8)
    expected[4], expected[6] = -1.5 - 0.5, -1.5 - 0.25
    torch.testing.assert_close(sampler.penalised(torch.zeros(8)), expected)


def test_the_log_probability_stays_the_models_own():
    logits = torch.tensor([[2.0, 1.9, 0.0]])
    sampler = Sampler(Sampling(repetition_penalty=2.0), prompt=[0])
    ((id, logprob),) = pick_rows([sampler], logits, NONE)
    assert (id, logprob) == (1, pytest.approx(logits.log_softmax(-1)[0, 1].item()))


def test_rows_with_and_without_penalties_are_picked_together():
    logits = torch.tensor([[2.0, 1.9, 0.0]] * 2)
    samplers = [Sampler(Sampling(repetition_penalty=2.0), prompt=[0]), Sampler(Sampling())]
    assert [id for id, _ in pick_rows(samplers, logits, NONE)] == [1, 0]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_replies_with_a_penalty_are_those_of_generate(family):
    tiny = FAMILIES[family]()
    vlm = HFVLM(Engine(tiny.model, tiny.builder))
    asked = (user(noise(1), "what letter is here, is here, is here?"),)
    (reply,) = vlm.generate([asked], Sampling(max_tokens=12, repetition_penalty=1.3))
    inputs = fresh_inputs(tiny, tiny.builder.build(asked))
    written = tiny.model.generate(
        **inputs,
        max_new_tokens=12,
        do_sample=False,
        repetition_penalty=1.3,
        suppress_tokens=sorted(tiny.builder.banned_ids),
        eos_token_id=sorted(tiny.builder.end_ids),
    )
    assert list(reply.message.tokens or ()) == written[0, inputs["input_ids"].shape[1] :].tolist()
