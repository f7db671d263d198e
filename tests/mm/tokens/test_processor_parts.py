"""What a checkpoint's folder says beside its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import FAMILIES

from mm.tokens.loading import load_builder
from mm.tokens.processor_parts import sampling_of
from mm.types import Sampling

QWEN = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20}


@pytest.mark.parametrize(
    ("generation", "sampling"),
    [
        pytest.param(QWEN, Sampling(temperature=0.7, top_p=0.8, top_k=20), id="Qwen's"),
        pytest.param({"do_sample": True}, Sampling(temperature=1.0), id="samples, no more said"),
        pytest.param(
            {"do_sample": True, "temperature": 0.1, "min_p": 0.15, "repetition_penalty": 1.05},
            Sampling(temperature=0.1, min_p=0.15, repetition_penalty=1.05),
            id="LFM2-VL's",
        ),
        pytest.param({"do_sample": False, "temperature": 0.7}, Sampling(), id="greedy"),
        pytest.param({"temperature": 0.7}, Sampling(), id="a temperature without sampling"),
        pytest.param(
            {"repetition_penalty": 1.1}, Sampling(repetition_penalty=1.1), id="greedy, penalised"
        ),
        pytest.param({"eos_token_id": 3, "max_length": 20}, None, id="nothing of it"),
        pytest.param({"temperature": "warm", "top_p": None}, None, id="no numbers"),
    ],
)
def test_the_authors_sampling_is_read(generation: dict[str, Any], sampling: object) -> None:
    assert sampling_of(generation) == sampling


@pytest.mark.parametrize("written", [True, False])
def test_a_builder_knows_it(tmp_path: Path, written: bool) -> None:
    tiny = FAMILIES["qwen2_5_vl"]()
    for part in (tiny.model.config, tiny.builder.tokenizer, tiny.builder.image_processor):
        part.save_pretrained(tmp_path)
    if written:
        (tmp_path / "generation_config.json").write_text(json.dumps({**QWEN, "eos_token_id": [7]}))
    builder = load_builder(str(tmp_path))
    wanted = Sampling(temperature=0.7, top_p=0.8, top_k=20) if written else None
    assert builder.traits.sampling == wanted
    assert (7 in builder.end_ids) == written
