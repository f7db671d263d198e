"""A model is loaded by name, or refused in one line that says what to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import PIL.Image
import pytest
import torch
from tiny_models import FAMILIES

from mm.engine.engine import Engine
from mm.errors import ModelUnavailable
from mm.local.checkpoints import find, inspect
from mm.local.hf_vlm import HFVLM
from mm.local.load import load as load_any
from mm.types import Image, Sampling, user

QUESTION = (user(Image(PIL.Image.new("RGB", (96, 80), "red")), "what is it?"),)


def load(name: str, **options: Any) -> HFVLM:
    """A model of a listed family."""
    model = load_any(name, **options)
    assert isinstance(model, HFVLM)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint's folder as `save_pretrained` writes it, with the config key of ours."""
    folder = tmp_path_factory.mktemp("saved")
    tiny = FAMILIES["qwen3_vl"]()
    tiny.model.save_pretrained(str(folder))
    tiny.builder.tokenizer.save_pretrained(folder)
    tiny.builder.image_processing._processor.save_pretrained(folder)
    edit(folder, crop_rule="square")
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of `saved` to spoil."""
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def adapter(tmp_path: Path, base: str, *, family: str = "qwen3_vl", **options: object) -> Path:
    """The folder of an adapter that changes what the model says."""
    from peft import LoraConfig, get_peft_model

    model = type(FAMILIES[family]().model)(FAMILIES[family]().model.config)
    config = LoraConfig(r=2, target_modules=r".*language_model.*\.(q_proj|v_proj)", **options)  # pyright: ignore[reportArgumentType]
    adapted = get_peft_model(model, config)
    torch.manual_seed(1)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight)
    folder = tmp_path / "adapter"
    adapted.save_pretrained(str(folder))
    path = folder / "adapter_config.json"
    saved = json.loads(path.read_text())
    path.write_text(json.dumps({**saved, "base_model_name_or_path": base}))
    return folder


def test_a_folder_answers_as_the_model_that_was_saved(saved: Path) -> None:
    tiny = FAMILIES["qwen3_vl"]()
    model = load(str(saved))
    tokens = tiny.builder.build(QUESTION)
    assert model.builder.build(QUESTION).ids == tokens.ids
    reply = model.generate([QUESTION], Sampling(max_tokens=4))[0]
    logits = Engine(tiny.model, tiny.builder).next_logits(tokens)
    assert (model.engine.next_logits(tokens) - logits).abs().max() < 1e-5
    assert reply.cost.generated_tokens == 4
    assert (model.name, model.traits.crop_rule) == (str(saved), "square")
    assert model.engine.model.dtype == torch.float32


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtype_is_the_callers_choice(saved: Path, dtype: str) -> None:
    assert load(str(saved), dtype=dtype).engine.model.dtype == getattr(torch, dtype)


def test_an_unknown_dtype_is_the_callers_mistake(saved: Path) -> None:
    with pytest.raises(ValueError, match="got 'int3'"):
        load(str(saved), dtype="int3")


def test_an_adapter_changes_the_answer_and_its_base_does_not_change(
    saved: Path, tmp_path: Path
) -> None:
    with_adapter = load(str(saved), adapter=str(adapter(tmp_path, "")))
    plain = load(str(saved))
    tokens = plain.builder.build(QUESTION)

    def logits(model: HFVLM) -> torch.Tensor:
        return model.engine.next_logits(tokens, adapter=model.adapter)

    first, base, again = logits(with_adapter), logits(with_adapter.base), logits(with_adapter)
    assert (base - logits(plain)).abs().max() < 1e-5
    assert (first - base).abs().max() > 1e-3
    assert (first - again).abs().max() < 1e-5


def test_an_adapters_folder_loads_its_base(saved: Path, tmp_path: Path) -> None:
    folder = adapter(tmp_path, str(saved))
    model, given = load(str(folder)), load(str(saved), adapter=str(folder))
    sampling = Sampling(max_tokens=6, temperature=1.0)
    replies = [m.generate([QUESTION], sampling)[0].message.tokens for m in (model, given)]
    assert replies[0] == replies[1]
    with pytest.raises(ModelUnavailable, match="is an adapter itself"):
        load(str(folder), adapter=str(folder))


def wider(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] += 1
    edit(folder, **config)


def cut_off(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def sharded(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001.safetensors")
    index = {"weight_map": {"a": "model-00001.safetensors", "b": "model-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda f: (f / "config.json").unlink(), "has no config.json", id="no config"),
        pytest.param(
            lambda f: (f / "config.json").write_text("{"), "cannot be read", id="half a config"
        ),
        pytest.param(pickled, "pickled weights only.*save_pretrained", id="pickles"),
        pytest.param(lambda f: (f / "model.safetensors").unlink(), "no weights", id="no weights"),
        pytest.param(cut_off, "is cut off", id="cut off"),
        pytest.param(
            lambda f: (f / "model.safetensors").write_bytes(b"version https://git-lfs"),
            "is not a safetensors file|is cut off",
            id="a pointer file",
        ),
        pytest.param(sharded, "lacks model-00002.safetensors", id="a shard missing"),
        pytest.param(wider, "lacks 11 of its model's weights", id="a layer missing"),
        pytest.param(
            lambda f: edit(f, model_type="bert"),
            "'bert' is not supported.*Qwen3-VL",
            id="not a VLM",
        ),
        pytest.param(
            lambda f: edit(f, crop_rule="round"),
            "crop_rule in config.json must be .* got 'round'",
            id="crop rule",
        ),
        pytest.param(lambda f: (f / "tokenizer.json").unlink(), "checkpoint", id="no tokenizer"),
    ],
)
def test_a_spoilt_folder_is_refused(
    folder: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(folder)
    with pytest.raises(ModelUnavailable, match=message) as refused:
        load(str(folder))
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("no-such", "no model 'no-such': give a bundled one", id="a word"),
        pytest.param("./no/such", "no model './no/such'", id="a path"),
        pytest.param(__file__, "is a file", id="a file"),
    ],
)
def test_a_name_that_means_nothing_is_refused(name: str, message: str) -> None:
    with pytest.raises(ModelUnavailable, match=message):
        load(name)


def test_a_hub_id_without_a_network_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelUnavailable, match="owner/name is not on this machine"):
        load("owner/name")


def test_a_model_too_large_for_the_memory_is_refused(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
    with pytest.raises(ModelUnavailable, match=r"GiB in float32; cpu has 0\.0 GiB free"):
        load(str(saved))


def test_a_device_that_is_not_there_is_refused(saved: Path) -> None:
    with pytest.raises(ModelUnavailable, match="device 'cuda:99' is not available"):
        load(str(saved), device="cuda:99")


def test_an_adapter_of_another_model_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = adapter(tmp_path, "", family="gemma3")
    with pytest.raises(ModelUnavailable, match="does not fit the model"):
        load(str(saved), adapter=str(folder))


def test_a_folder_without_an_adapter_is_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"is not an adapter.*adapter_config.json"):
        load(str(saved), adapter=str(tmp_path))


def test_parameters_are_counted_without_loading(saved: Path) -> None:
    count = sum(p.numel() for p in FAMILIES["qwen3_vl"]().model.parameters())
    assert inspect(find(str(saved))).parameters == count


def test_importing_mm_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'peft', 'numpy'} & set(sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", f"import sys, mm; print({heavy})"], capture_output=True, text=True
    )
    assert run.stdout.strip() == "set()", run.stderr


def test_functions_of_a_number_are_called_once_by_one_thread_before_there_are_weights(monkeypatch):
    called, cos = [], torch.cos
    monkeypatch.setattr(torch, "cos", lambda x: called.append((x.dtype, x.numel())) or cos(x))

    def weights(*_: object, **__: object) -> None:
        assert called == [(torch.float32, 1), (torch.float64, 1)]
        raise ModelUnavailable("seen")

    monkeypatch.setattr(sys.modules["mm.local.load"], "read_weights", weights)
    with pytest.raises(ModelUnavailable, match="seen"):
        load_any("tiny")
