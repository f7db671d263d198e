"""Who answers behind latents, and which module reads them."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import FAMILIES

import mm
from mm.engine.engine import Engine
from mm.errors import ModelError
from mm.local.hf_vlm import HFVLM
from mm.session import run
from mm.types import Image
from training.trainers.lora import TARGET
from vision import depth_latent
from vision.depth import depth_map
from vision.latent_reader import load_reader
from vision.midi import Midi, MidiConfig, save_midi

IMAGE = Image(PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), "uint8")))
DEPTH = depth_map(np.linspace(1, 3, 64)[None].repeat(64, 0), "metric")
CHOICES = ("red", "blue", "left", "right", "near", "far", "one", "two")


def fresh() -> Any:
    made = FAMILIES["qwen3_vl"]()
    model = type(made.model)(made.model.config).float().eval()
    model.load_state_dict(made.model.state_dict())
    return model


@pytest.fixture
def vlm() -> HFVLM:
    return HFVLM(Engine(fresh(), FAMILIES["qwen3_vl"]().builder), name="random")


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A module without latents, with an adapter that answers quite unlike the model."""
    torch.manual_seed(3)
    config = LoraConfig(r=4, lora_alpha=64, target_modules=TARGET, init_lora_weights=False)
    get_peft_model(fresh(), config).save_pretrained(str(tmp_path))
    save_midi(Midi(MidiConfig(8, 8, 8, hidden=8, layers=1, kind="none")), tmp_path)
    return tmp_path


def likeliest(vlm: Any, sample: mm.Sample) -> str:
    scores = vlm.score(sample.prompt, sample.choices).logprobs
    means = [sum(each) / len(each) for each in scores]
    return sample.choices[means.index(max(means))]


@pytest.mark.parametrize("told", [DEPTH, None], ids=["depth", "blind"])
def test_the_adapter_of_the_module_answers_and_chooses(vlm, module, told) -> None:
    sample = mm.question("Which?", IMAGE, choices=CHOICES)
    adapted = vlm.with_adapter(str(module))
    assert likeliest(adapted, sample) != likeliest(vlm, sample)
    strategy = partial(depth_latent, midi=str(module), depth=lambda *_: told)
    trace = run(mm.insist(strategy), sample, vlm, sampling=mm.Sampling(max_tokens=1))
    assert (trace.error, trace.answer) == (None, likeliest(adapted, sample))
    plain = run(mm.insist(mm.direct), sample, vlm, sampling=mm.Sampling(max_tokens=1))
    assert plain.answer == likeliest(vlm, sample)


def test_an_adapter_of_ones_own_is_not_put_aside(vlm, module, tmp_path) -> None:
    other = tmp_path / "other"
    torch.manual_seed(4)
    config = LoraConfig(r=2, target_modules=TARGET, init_lora_weights=False)
    get_peft_model(fresh(), config).save_pretrained(str(other))
    reader = load_reader(str(module))
    with pytest.raises(ModelError, match=r"an adapter of its own.*leave --adapter out"):
        reader.answering(vlm.with_adapter(str(other)))
    mine = vlm.with_adapter(str(module))
    answering: Any = reader.answering(mine)
    assert answering.adapter == mine.adapter


def test_a_module_without_latents_is_refused_on_other_weights_too(vlm, module) -> None:
    reader = load_reader(str(module))
    reader.midi.config = replace(reader.midi.config, base="00" * 512)
    for ask in (lambda: reader.answering(vlm), lambda: reader(vlm, IMAGE, DEPTH, "Which?")):
        with pytest.raises(ModelError, match="was trained for other weights than those of random"):
            ask()


def test_a_module_trained_anew_is_loaded_anew(module) -> None:
    first = load_reader(str(module))
    assert load_reader(str(module)) is first
    torch.manual_seed(5)
    save_midi(Midi(first.midi.config), module)
    os.utime(module / "midi.safetensors", ns=(0, 1))
    second = load_reader(str(module))
    assert not torch.equal(second.midi.slot, first.midi.slot)
