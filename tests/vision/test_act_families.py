"""Acting with a tiny random model of every family: an answer, or an error that names what lacks."""

from __future__ import annotations

from functools import partial

import pytest
from images import noise
from tiny_models import FAMILIES
from tiny_vlm import vlm

from mm.samples import question
from mm.session import run
from mm.types import Sampling
from vision.act import act

QUESTION = question("What letter is on the red square?", noise(3))


@pytest.mark.parametrize("family", FAMILIES)
def test_acting_ends_in_a_reply_or_a_named_error(family: str) -> None:
    model = vlm(family)
    trace = run(partial(act, max_steps=2), QUESTION, model, sampling=Sampling(max_tokens=8))
    if model.traits.calls_tools:
        assert trace.error is None
        assert trace.cost.generated_tokens > 0
    else:
        assert "writes no tool calls, which act needs" in str(trace.error)
