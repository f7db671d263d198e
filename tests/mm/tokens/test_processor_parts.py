"""What a checkpoint's folder says beside its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import FAMILIES, template

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
        pytest.param({"do_sample": True, "top_k": -1}, Sampling(temperature=1.0), id="all tokens"),
        pytest.param(
            {"do_sample": True, "top_k": 20.0}, Sampling(temperature=1.0, top_k=20), id="20.0"
        ),
    ],
)
def test_the_authors_sampling_is_read(
    generation: dict[str, Any], sampling: object, caplog: pytest.LogCaptureFixture
) -> None:
    got = sampling_of(generation)
    assert got == sampling
    assert got is None or isinstance(got.top_k, int)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        pytest.param("top_p", 0.0, "top_p must be over 0, 1 or less, got 0.0", id="top_p of 0"),
        pytest.param("top_p", 1.05, "top_p must be over 0, 1 or less, got 1.05", id="top_p over 1"),
        pytest.param("top_k", 20.5, "top_k must be a whole number, got 20.5", id="half a token"),
        pytest.param("top_k", float("inf"), "whole number, got inf", id="no end of tokens"),
        pytest.param("min_p", float("nan"), "min_p must be 0 or more", id="no number"),
        pytest.param("temperature", -1, "temperature must be 0 or more, got -1", id="cold"),
        pytest.param("repetition_penalty", 0.0, "repetition_penalty must be over 0", id="penalty"),
    ],
)
def test_a_number_out_of_its_bounds_is_left_out(
    name: str, value: float, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert sampling_of({**QWEN, name: value}) == sampling_of(
        {k: v for k, v in QWEN.items() if k != name}
    )
    assert len(caplog.records) == 1
    assert told in caplog.text


STRINGS = (  # that of a language model, which a checkpoint's tokenizer may still bring
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def saved(folder: Path, **templates: str) -> str:
    """The folder of a checkpoint with these files of chat templates, "config" the tokenizer's."""
    tiny = FAMILIES["qwen3_vl"]()
    for part in (tiny.model.config, tiny.builder.tokenizer, tiny.builder.image_processor):
        part.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink()
    if "config" in templates:
        path = folder / "tokenizer_config.json"
        told = {**json.loads(path.read_text()), "chat_template": templates["config"]}
        path.write_text(json.dumps(told))
    if "json" in templates:
        told = json.dumps({"chat_template": templates["json"]})
        (folder / "chat_template.json").write_text(told)
    if "jinja" in templates:
        (folder / "chat_template.jinja").write_text(templates["jinja"])
    return str(folder)


@pytest.mark.parametrize(
    ("templates", "warned"),
    [
        pytest.param({"config": STRINGS}, False, id="takes strings alone"),
        pytest.param({"config": "{{ raise_exception('no') }}"}, True, id="takes nothing"),
        pytest.param({"config": "{{ messages"}, True, id="no template"),
        pytest.param({"config": "Hello"}, True, id="another"),
        pytest.param({"config": "Hello", "json": template("qwen3_vl")}, False, id="json is newer"),
        pytest.param(
            {"config": "Hello", "json": "Hello", "jinja": template("qwen3_vl")},
            False,
            id="jinja is newest",
        ),
        pytest.param(
            {"json": template("qwen3_vl"), "jinja": "Hello"}, True, id="jinja, though it is wrong"
        ),
    ],
)
def test_the_chat_template_is_the_newest_file_s(
    tmp_path: Path, templates: dict[str, str], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    builder = load_builder(saved(tmp_path, **templates))
    assert builder.template == builder.family.templates[0]
    assert ("unknown chat template" in caplog.text) == warned


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
