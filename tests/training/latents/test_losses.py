"""What trains latents: which weights learn from which loss, and what a batch changes."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import PIL.Image
import pytest
import torch
from tiny_models import FAMILIES

from mm.engine.engine import Engine
from mm.local.hf_vlm import HFVLM
from mm.types import Image, assistant, user
from training.batching.collator import Collator
from training.batching.image_features import encode_images
from training.latents.losses import (
    answering_latents,
    answering_loss,
    distilling_loss,
    example_of,
    total,
)
from training.latents.rows import DepthRow
from training.trainers.lora import adapted
from vision.depth import depth_map
from vision.midi import Midi, MidiConfig, features_of


def row(
    seed: int, size=(64, 64), question="Which is near?", rationale="The red one is near."
) -> DepthRow:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), "uint8")
    image = Image(PIL.Image.fromarray(pixels))
    depth = depth_map(np.linspace(1, 3, size[0])[None].repeat(size[1], 0), "metric")
    return DepthRow(
        f"r{seed}", (user(image, question), assistant("red")), image, depth, question, rationale
    )


@pytest.fixture(scope="module")
def vlm() -> HFVLM:
    return vlm_of("qwen3_vl")


def vlm_of(family: str) -> HFVLM:
    made = FAMILIES[family]()
    return HFVLM(Engine(made.model, made.builder), name="random")


def midi_for(vlm: HFVLM, kind="midi") -> Midi:
    torch.manual_seed(0)
    table = vlm.engine.model.get_input_embeddings().weight
    (seen,) = features_of(vlm.engine, [row(0).image])
    return Midi(
        MidiConfig(
            seen.shape[-1],
            table.shape[1],
            table.shape[0],
            hidden=16,
            layers=2,
            state=4,
            latents=3,
            kind=kind,
        )
    )


def examples(vlm, midi, rows):
    return [
        example_of(each, vlm.builder, lambda i: features_of(vlm.engine, i), midi) for each in rows
    ]


def grown(module) -> set[str]:
    return {
        n for n, p in module.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_stage_one_trains_the_module_and_leaves_the_model_frozen(family):
    vlm = vlm_of(family)
    midi = midi_for(vlm)
    model = deepcopy(vlm.engine.model).requires_grad_(False)  # others share it
    losses = distilling_loss(model, midi, examples(vlm, midi, [row(1), row(2)]))
    assert set(losses) == {"mamba", "model"}
    losses["model"].backward()
    learned = grown(midi)
    for part in ("image_in", "depth_in", "slot", "out", "mamba.layers.0"):
        assert any(name.startswith(part) for name in learned), part
    assert not grown(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_stage_two_trains_the_module_and_the_adapter(family):
    vlm = vlm_of(family)
    midi = midi_for(vlm)
    model = adapted(deepcopy(vlm.engine.model).requires_grad_(False), 2)  # others share it
    rows = examples(vlm, midi, [row(1), row(2, size=(160, 64))])
    losses = answering_loss(model, midi, Collator(vlm.builder), rows, encode_images)
    total(losses).backward()
    learned = grown(midi)
    assert any(name.startswith("depth_in") for name in learned)
    assert any("lora" in name for name in grown(model))
    assert all("lora" in name for name in grown(model))


def test_company_in_a_batch_changes_no_latent(vlm):
    midi = midi_for(vlm)
    rows = [
        row(1),
        row(2, size=(96, 64), question="Which of all these things is the nearest?"),
        row(3),
    ]
    made = examples(vlm, midi, rows)
    together = answering_latents(midi, made)
    alone = torch.cat([answering_latents(midi, [each]) for each in made])
    assert torch.allclose(together, alone, atol=1e-5)


def test_losses_are_taken_where_the_module_is(vlm):
    """Rows are made ready on the CPU; "meta" stands for an accelerator, and mixes with none."""
    midi = midi_for(vlm, "constant")
    rows = examples(vlm, midi, [row(1), row(2, size=(96, 64))])
    model = deepcopy(vlm.engine.model).to("meta")
    losses = distilling_loss(model, midi.to("meta"), rows)
    found = [*losses.values(), answering_latents(midi, rows)]
    assert {each.device.type for each in found} == {"meta"}


@pytest.mark.parametrize(("kind", "sees"), [("midi", True), ("constant", False)])
def test_constant_latents_see_nothing(vlm, kind, sees):
    midi = midi_for(vlm, kind)
    first, second = answering_latents(midi, examples(vlm, midi, [row(1), row(2)]))
    assert torch.equal(first, second) is not sees


def test_no_latents_leave_the_conversation_as_it_is(vlm):
    midi = midi_for(vlm, "none")
    (made,) = examples(vlm, midi, [row(1)])
    assert all(span.encoded for span in made.answered.images)
