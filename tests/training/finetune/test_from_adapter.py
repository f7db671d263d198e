"""Training on from an adapter's folder: its changes are in what is written, which loads."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import PartialState

import mm
from mm.local.checkpoints import find
from mm.local.fingerprint import write_base
from mm.types import Sampling, user
from training.data import BadData
from training.finetune.output_folder import save_model
from training.finetune.plan import make_plan, prepare_model
from training.finetune.recipe import Recipe
from training.finetune.setup import load_trainable
from training.latents.recipe import LatentsRecipe
from training.latents.train import train_latents
from training.trainers.course import Rows
from training.trainers.lora import adapted

CPU = PartialState(cpu=True)


def moved(model: Any) -> Any:
    """`model` with an adapter that changes what it says."""
    adapter = adapted(model, 4)
    with torch.no_grad():
        for name, weights in adapter.named_parameters():
            if "lora_B" in name:
                weights.add_(0.02 * torch.sin(torch.arange(weights.numel())).view_as(weights))
    return adapter


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    vlm: Any = mm.load("tiny", device="cpu", dtype="float32")
    model = moved(vlm.engine.model)
    model.peft_config["default"].base_model_name_or_path = "tiny"
    model.save_pretrained(folder)
    write_base(folder, find("tiny"))
    (folder / "recipe.json").write_text("{}")
    return folder


def saved(model: Any, plan: Any, folder: Path) -> None:
    accelerator = SimpleNamespace(
        is_main_process=True, unwrap_model=lambda model, keep_fp32_wrapper: model
    )
    save_model(SimpleNamespace(model=model, accelerator=accelerator), plan, folder)


def scores(vlm: Any) -> torch.Tensor:
    return torch.tensor(vlm.next_logprobs((user("What letter is on the red square?"),)))


def test_an_adapter_is_merged_before_it_trains(adapter):
    begun = load_trainable(Recipe(data="x", output="y", model=str(adapter), device="cpu"), CPU)
    assert begun.adapters == ()
    torch.testing.assert_close(scores(begun), scores(mm.load(str(adapter))), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(scores(begun), scores(mm.load("tiny")), atol=1e-2)


@pytest.mark.parametrize("lora", [False, True])
def test_what_comes_of_an_adapter_is_a_whole_model(adapter, tmp_path, monkeypatch, lora):
    recipe = Recipe(data="x", output="y", model=str(adapter), device="cpu")
    begun = load_trainable(recipe, CPU)
    monkeypatch.setattr("training.finetune.plan.FULL_BYTES", 10**9 if lora else 1)
    plan = make_plan(recipe, begun.engine.model)
    assert plan.lora == lora
    built: Any = None
    told = plan.lines(Rows(built, [0], [1], [("a",)], [0]), None)[1]
    assert ("written as a whole model" in told) == lora
    model = prepare_model(begun.engine.model, plan)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_B" in name:
                weights.fill_(0.01)
    trained = scores(begun)
    saved(model, plan, tmp_path / "out")
    assert not (tmp_path / "out/adapter_config.json").exists()
    assert not (tmp_path / "out/recipe.json").exists()
    again = mm.load(str(tmp_path / "out"), dtype="float32")
    torch.testing.assert_close(scores(again), trained, atol=0.05, rtol=0.05)
    begun.engine.clear_caches()
    answer = begun.generate([(user("Hello"),)], Sampling(max_tokens=2))
    assert answer, "the model in training still answers after it was saved"


@pytest.mark.parametrize("flag", ["lora", "quantize"])
def test_another_adapter_on_an_adapter_is_refused_before_anything_is_loaded(adapter, flag):
    asked: dict[str, Any] = {flag: True if flag == "lora" else "4bit"}
    recipe = Recipe(data="x", output="y", model=str(adapter), **asked)
    with pytest.raises(BadData, match=rf"is an adapter: leave --{flag} out.*--model tiny"):
        load_trainable(recipe, CPU)


def test_shards_are_not_merged(adapter, monkeypatch):
    monkeypatch.setattr("training.finetune.plan.is_sharded", lambda: True)
    monkeypatch.setattr("training.finetune.plan.FULL_BYTES", 10**9)
    begun: Any = mm.load("tiny", device="cpu")
    with pytest.raises(BadData, match="FSDP cannot have an adapter on an adapter"):
        make_plan(Recipe(data="x", output="y", model=str(adapter)), begun.engine.model)


def test_the_second_stage_of_latents_wants_a_whole_model(adapter, tmp_path):
    with pytest.raises(BadData, match="and this trains another: give a whole model"):
        train_latents(LatentsRecipe(tmp_path, tmp_path / "out", stage=2, model=str(adapter)))


def test_what_a_training_says_of_itself_is_not_handed_on(tmp_path):
    """A training from an earlier output keeps its own recipe, and does not end before it began."""
    recipe = Recipe(data="x", output="y", device="cpu", lora=False)
    vlm: Any = mm.load("tiny", device="cpu", dtype="float32")
    plan = make_plan(recipe, vlm.engine.model)
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    for name in ("recipe.json", "run.json", "finished.json"):
        (first / name).write_text("{}")
    saved(vlm.engine.model, plan, first)
    second.mkdir()
    (second / "recipe.json").write_text(json.dumps({"data": "mine"}))
    later = make_plan(Recipe(data="x", output="y", model=str(first), lora=False), vlm.engine.model)
    saved(vlm.engine.model, later, second)
    assert json.loads((second / "recipe.json").read_text()) == {"data": "mine"}
    assert not (second / "finished.json").exists()
    assert {"config.json", "tokenizer.json"} <= {file.name for file in second.iterdir()}
