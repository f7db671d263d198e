"""Adapters load as peft loads them, or are refused with what does not fit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from images import noise
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_models import FAMILIES

import mm
from mm.engine.engine import Engine
from mm.errors import ModelUnavailable
from mm.local.adapters import ADAPTER, with_adapter
from mm.local.fingerprint import write_base
from mm.local.hf_vlm import HFVLM
from mm.types import user

torch.set_num_threads(1)

QUESTION = (user(noise(1), "what is it?"),)
DECODER = r".*language_model.*\.(q_proj|v_proj)"
WITH_HEAD = r"(.*language_model.*\.(q_proj|v_proj))|lm_head"

OLD_NAMES = {  # before transformers 4.52
    "qwen2_vl": ("model.language_model.", "model."),
    "qwen2_5_vl": ("model.language_model.", "model."),
    "llava_next": ("model.language_model.", "language_model.model."),
    "gemma3": ("model.language_model.", "language_model.model."),
    "internvl": ("model.language_model.", "language_model.model."),
}


def fresh(family: str) -> Any:
    tiny = FAMILIES[family]()
    model = type(tiny.model)(tiny.model.config).float().eval()
    model.load_state_dict(tiny.model.state_dict())
    return model


def saved(family: str, folder: Path, targets: str = DECODER) -> tuple[Path, torch.Tensor]:
    """An adapter's folder, and the next token's logits with it."""
    torch.manual_seed(1)
    config = LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    adapted = get_peft_model(fresh(family), config).eval()
    adapted.save_pretrained(str(folder))
    return folder, logits(family, adapted, "default")


def logits(family: str, model: Any, adapter: str) -> torch.Tensor:
    builder = FAMILIES[family]().builder
    return Engine(model, builder).next_logits(builder.build(QUESTION), adapter=adapter)


def renamed(folder: Path, change: Callable[[str], str]) -> None:
    """Write the adapter's weights under other keys; an empty one is left out."""
    path = folder / "adapter_model.safetensors"
    weights = {change(key): value for key, value in load_file(path).items()}
    weights.pop("", None)
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize("targets", [DECODER, WITH_HEAD], ids=["decoder", "with lm_head"])
@pytest.mark.parametrize("family", OLD_NAMES)
def test_older_names_load_with_equal_logits(family: str, targets: str, tmp_path: Path) -> None:
    folder, wanted = saved(family, tmp_path, targets)
    now, then = OLD_NAMES[family]
    prefix = "base_model.model."
    if then.startswith("language_model"):
        head = re.compile(rf"^{re.escape(prefix)}lm_head")
        renamed(folder, lambda key: head.sub(f"{prefix}language_model.lm_head", key))
    renamed(folder, lambda key: key.replace(prefix + now, prefix + then))
    assert (prefix + then) in " ".join(load_file(folder / "adapter_model.safetensors"))
    got = logits(family, with_adapter(fresh(family), str(folder)), ADAPTER)
    assert (got - wanted).abs().max() < 1e-5
    assert (
        got - logits(family, with_adapter(fresh(family), str(folder)), ADAPTER)
    ).abs().max() == 0
    plain = Engine(fresh(family), FAMILIES[family]().builder)
    tokens = plain.builder.build(QUESTION)
    assert (got - plain.next_logits(tokens)).abs().max() > 1e-3


@pytest.mark.parametrize("targets", [DECODER, WITH_HEAD], ids=["decoder", "with lm_head"])
@pytest.mark.parametrize("family", ["qwen3_vl", "gemma3"])
def test_an_adapter_is_added_to_a_model_that_runs(family: str, targets: str, tmp_path: Path):
    _, wanted = saved(family, tmp_path / "one", targets)
    saved(family, tmp_path / "two")
    vlm = HFVLM(Engine(fresh(family), FAMILIES[family]().builder))
    before = vlm.next_logprobs(QUESTION)
    for name in ("one", "two", "one"):
        other = vlm.with_adapter(str(tmp_path / name))
    assert len(vlm.adapters) == 2
    found = torch.tensor(other.next_logprobs(QUESTION))
    assert (found - wanted.log_softmax(-1)).abs().max() < 1e-5
    assert vlm.adapter is None
    assert vlm.next_logprobs(QUESTION) == pytest.approx(before, abs=1e-5)


def widened(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    weights = {key: torch.cat([value, value], 1) for key, value in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})


def on_norms_too(folder: Path) -> None:
    """peft finds what it cannot adapt once it has put layers in other places."""
    config_with(target_modules=r".*language_model.*(q_proj|input_layernorm)")(folder)


def structure(model: Any) -> list[tuple[str, type]]:
    return [(name, type(module)) for name, module in model.named_modules()]


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another"])
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda folder: renamed(folder, drop_one), id="missing"),
        pytest.param(widened, id="other widths"),
        pytest.param(on_norms_too, id="injected in part"),
    ],
)
def test_a_failed_load_leaves_a_running_model_as_it_was(
    spoil: Callable[[Path], None], beside: bool, tmp_path: Path
) -> None:
    good, wanted = saved("qwen3_vl", tmp_path / "good")
    bad, _ = saved("qwen3_vl", tmp_path / "bad", WITH_HEAD)
    spoil(bad)
    model = fresh("qwen3_vl")
    first = with_adapter(model, str(good), "first").eval() if beside else model
    vlm = HFVLM(Engine(first, FAMILIES["qwen3_vl"]().builder))
    tokens, parts = vlm.builder.build(QUESTION), structure(vlm.engine.model)
    before = [vlm.engine.next_logits(tokens, adapter=name) for name in (None, *vlm.adapters)]
    for _ in range(2):  # the second question is refused as the first was
        with pytest.raises(ModelUnavailable, match="does not fit the model"):
            vlm.with_adapter(str(bad))
    vlm.engine.clear_caches()
    assert (vlm.adapters, structure(vlm.engine.model)) == (("first",) * beside, parts)
    for name, logits in zip((None, *vlm.adapters), before, strict=True):
        assert torch.equal(vlm.engine.next_logits(tokens, adapter=name), logits)
    found = torch.tensor(vlm.with_adapter(str(good)).next_logprobs(QUESTION))
    assert (found - wanted.log_softmax(-1)).abs().max() < 1e-5


def test_a_folder_trained_anew_is_loaded_anew(tmp_path: Path) -> None:
    folder, _ = saved("qwen3_vl", tmp_path)
    vlm = HFVLM(Engine(fresh("qwen3_vl"), FAMILIES["qwen3_vl"]().builder))
    once = vlm.with_adapter(str(folder))
    before = once.next_logprobs(QUESTION)
    path = folder / "adapter_model.safetensors"
    trained = {key: value * 2 for key, value in load_file(path).items()}
    save_file(trained, path, metadata={"format": "pt"})
    anew = vlm.with_adapter(str(folder)).next_logprobs(QUESTION)
    assert anew != pytest.approx(before, abs=1e-3)
    assert once.next_logprobs(QUESTION) == pytest.approx(before, abs=1e-5)


def test_an_adapter_of_other_weights_is_not_added(tmp_path: Path) -> None:
    for number in (0.0, 1.0):
        base = tmp_path / f"base {number}"
        base.mkdir()
        save_file({"a": torch.full((4,), number)}, base / "model.safetensors")
    folder, _ = saved("qwen3_vl", tmp_path / "adapter")
    write_base(folder, tmp_path / "base 1.0")
    engine = Engine(fresh("qwen3_vl"), FAMILIES["qwen3_vl"]().builder)
    with pytest.raises(ModelUnavailable, match="was trained on other weights"):
        HFVLM(engine, folder=tmp_path / "base 0.0").base.with_adapter(str(folder))
    assert HFVLM(engine, folder=tmp_path / "base 1.0").with_adapter(str(folder)).adapters


@pytest.mark.parametrize("family", ["qwen3_vl", "smolvlm", "llava_onevision"])
def test_an_adapter_on_the_head_loads_as_peft_loads_it(family: str, tmp_path: Path) -> None:
    folder, wanted = saved(family, tmp_path, WITH_HEAD if family != "smolvlm" else r".*lm_head")
    theirs = PeftModel.from_pretrained(fresh(family), str(folder)).eval()
    assert (logits(family, theirs, "default") - wanted).abs().max() < 1e-5
    ours = with_adapter(fresh(family), str(folder))
    assert (logits(family, ours, ADAPTER) - wanted).abs().max() < 1e-5


MERGER = {  # the module beside the decoder that older adapters train whole, and its name then
    "qwen2_vl": ("model.visual.merger.", "visual.merger."),
    "qwen2_5_vl": ("model.visual.merger.", "visual.merger."),
    "llava_next": ("model.multi_modal_projector.", "multi_modal_projector."),
}


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another"])
@pytest.mark.parametrize("family", MERGER)
def test_modules_saved_whole_load_under_older_names(
    family: str, beside: bool, tmp_path: Path
) -> None:
    now, then = MERGER[family]
    torch.manual_seed(1)
    whole = [now.rstrip(".").rpartition(".")[2], "embed_tokens"]
    config = LoraConfig(r=2, target_modules=DECODER, modules_to_save=whole, init_lora_weights=False)
    adapted = get_peft_model(fresh(family), config).eval()
    for name, weight in adapted.named_parameters():
        if "modules_to_save" in name:
            torch.nn.init.normal_(weight, std=0.1)
    adapted.save_pretrained(str(tmp_path))
    wanted = logits(family, adapted, "default")
    decoder, once = OLD_NAMES[family]
    for new, old in ((decoder, once), (now, then)):
        renamed(tmp_path, lambda key, new=new, old=old: key.replace(f"model.{new}", f"model.{old}"))
    assert f"base_model.model.{then}" in " ".join(load_file(tmp_path / "adapter_model.safetensors"))
    model = with_adapter(fresh(family), str(tmp_path), "first" if beside else ADAPTER)
    model = with_adapter(model, str(tmp_path)) if beside else model
    assert (logits(family, model, ADAPTER) - wanted).abs().max() < 1e-5


def drop_one(key: str) -> str:
    return "" if "layers.0" in key and "q_proj.lora_A" in key else key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(drop_one, r"1 weights are missing, such as .*q_proj\.lora_A", id="missing"),
        pytest.param(
            lambda key: key.replace("layers.1", "layers.7"),
            r"4 weights have no place in it, such as .*layers\.7.*; 4 weights are missing",
            id="another layer",
        ),
        pytest.param(
            lambda key: key.replace("lora_A", "lora_C"), "have no place in it", id="another kind"
        ),
    ],
)
def test_what_does_not_fit_is_named(
    change: Callable[[str], str], message: str, tmp_path: Path
) -> None:
    folder, _ = saved("qwen3_vl", tmp_path)
    renamed(folder, change)
    with pytest.raises(ModelUnavailable, match=message) as refused:
        with_adapter(fresh("qwen3_vl"), str(folder))
    assert len(str(refused.value).splitlines()) == 1


def config_with(**changes: object) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return spoil


def cut(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(config_with(r=4), "does not fit the model", id="another rank"),
        pytest.param(config_with(peft_type="NEW"), "does not fit the model", id="unknown kind"),
        pytest.param(config_with(target_modules=7), "does not fit the model", id="bad targets"),
        pytest.param(cut, "is cut off", id="cut off"),
        pytest.param(
            lambda f: (f / "adapter_model.safetensors").write_bytes(b"\xff" * 99),
            "is not a safetensors file|is cut off",
            id="noise",
        ),
        pytest.param(
            lambda f: (f / "adapter_model.safetensors").unlink(), "has no adapter_model", id="none"
        ),
        pytest.param(
            lambda f: (f / "adapter_config.json").write_text("["), "cannot be read", id="no JSON"
        ),
    ],
)
def test_a_spoilt_adapter_is_one_line(
    spoil: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    folder, _ = saved("qwen3_vl", tmp_path)
    spoil(folder)
    with pytest.raises(mm.ModelUnavailable, match=message) as refused:
        with_adapter(fresh("qwen3_vl"), str(folder))
    assert len(str(refused.value).splitlines()) == 1
