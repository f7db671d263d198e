"""What trains latents: which weights learn from which loss, and what a batch changes."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from tiny_models import FAMILIES

from mm.engine.engine import Engine
from mm.local.hf_vlm import HFVLM
from mm.types import Image, assistant, user
from training.batching.collator import Collator
from training.batching.image_features import FrozenFeatureCache, encode_images
from training.latents.example import example_of
from training.latents.losses import answering_latents, answering_loss, distilling_loss, total
from training.latents.parts import backward, parts_of
from training.latents.reading import ReadRows, read_features, read_through
from training.latents.rows import DepthRow
from training.trainers.lora import adapted, let_learn
from vision.depth import depth_map
from vision.latent_reader import LatentReader, features_of
from vision.midi import READER, SLOT, Midi, MidiConfig, places


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


def midi_for(vlm: HFVLM, kind="midi", reads: Any = "features", stage=2, latents=3) -> Midi:
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
            latents=latents,
            kind=kind,
            reads=reads,
            stage=stage,
        )
    )


def reader(vlm: HFVLM, midi: Midi, model=None) -> ReadRows:
    if midi.config.reads == "features":
        return read_features
    reads = model or adapted(deepcopy(vlm.engine.model), 2, READER)  # which changes nothing yet
    return partial(read_through, reads, Collator(vlm.builder), FrozenFeatureCache(2**20))


def examples(vlm, midi, rows):
    return [
        example_of(each, vlm.builder, lambda i: features_of(vlm.engine, i), midi) for each in rows
    ]


def grown(module) -> set[str]:
    return {
        n for n, p in module.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }


@pytest.mark.parametrize("reads", ["features", "model"])
@pytest.mark.parametrize("family", FAMILIES)
def test_stage_one_trains_the_module_and_leaves_the_model_frozen(family, reads):
    vlm = vlm_of(family)
    midi = told_depth(midi_for(vlm, reads=reads))
    model = deepcopy(vlm.engine.model).requires_grad_(False)  # others share it
    if reads == "model":
        model = let_learn(adapted(model, 2, READER))
    read = reader(vlm, midi, model)
    losses = distilling_loss(model, midi, read, examples(vlm, midi, [row(1), row(2)]))
    assert set(losses) == {"read", "model"}
    losses["model"].backward()
    learned = grown(midi)
    seen = {"features": "image_in", "model": "states_in"}[reads]
    for part in (seen, "depth_in", "slot", "out", "mamba.layers.0"):
        assert any(name.startswith(part) for name in learned), part
    assert all("lora" in name for name in grown(model))


@pytest.mark.parametrize("reads", ["features", "model"])
@pytest.mark.parametrize("family", FAMILIES)
def test_stage_two_trains_the_module_and_the_adapter(family, reads):
    vlm = vlm_of(family)
    midi = midi_for(vlm, reads=reads)
    model = adapted(deepcopy(vlm.engine.model).requires_grad_(False), 2, READER)  # others share it
    model = adapted(model, 2)
    rows = examples(vlm, midi, [row(1), row(2, size=(160, 64))])
    read = reader(vlm, midi, model)
    losses = answering_loss(model, midi, read, Collator(vlm.builder), rows, encode_images)
    total(losses).backward()
    learned = grown(midi)
    assert any(name.startswith("depth_in") for name in learned)
    assert any("lora" in name for name in grown(model))
    assert all("lora" in name for name in grown(model))


LONG = "The red one, far to the left of all that stands here, is near, and the blue one is not."


@pytest.mark.parametrize("latents", [1, 3])
@pytest.mark.parametrize("reads", ["features", "model"])
@pytest.mark.parametrize("stage", [1, 2])
def test_a_batch_in_parts_trains_as_the_whole_one(vlm, stage, reads, latents, monkeypatch):
    midi = told_depth(midi_for(vlm, reads=reads, stage=stage, latents=latents))
    model = adapted(deepcopy(vlm.engine.model).requires_grad_(False), 2, READER)  # others share it
    model = let_learn(adapted(model, 2))
    read = reader(vlm, midi, model)
    rows = [row(1), row(2, rationale=LONG), row(3, size=(96, 64), rationale="Red."), row(4)]
    made = examples(vlm, midi, [replace(rows[3], messages=(rows[3].messages[0], SAID)), *rows[:3]])
    losses_of = partial(distilling_loss, model, midi, read)
    if stage == 2:
        losses_of = partial(
            answering_loss, model, midi, read, Collator(vlm.builder), encode=encode_images
        )
    found = []
    for room in (2**40, 1):
        monkeypatch.setattr("training.latents.parts.CPU_ROOM", room)
        assert len(parts_of(made, midi.config, midi.device)) == (1 if room > 1 else 4)
        midi.zero_grad()
        model.zero_grad()
        losses = backward(losses_of, made, midi.config, midi.device)
        named = [*midi.named_parameters(), *model.named_parameters()]
        found.append((losses, {n: p.grad for n, p in named if p.grad is not None}))
    (whole, gradients), (parts, summed) = found
    assert whole.keys() == parts.keys()
    assert all(torch.allclose(whole[name], parts[name], rtol=1e-5) for name in whole)
    assert whole.keys() == losses_of(made).keys()
    assert all(torch.allclose(loss, whole[name]) for name, loss in losses_of(made).items())
    assert gradients.keys() == summed.keys()
    most = max(each.abs().max() for each in gradients.values())
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, summed[name], rtol=1e-3, atol=1e-5 * float(most)), name


SAID = assistant("The red one, which is much nearer than the blue one.")


@pytest.mark.parametrize(
    ("kind", "room", "sizes"),
    [
        pytest.param("midi", 2**40, [3], id="room for all"),
        pytest.param("midi", 2**20, [2, 1], id="the long one apart"),
        pytest.param("midi", 1, [1, 1, 1], id="room for none"),
        pytest.param("constant", 1, [3], id="no Mamba runs"),
    ],
)
def test_the_longest_are_apart(vlm, kind, room, sizes, monkeypatch):
    midi = midi_for(vlm, kind, reads="model", stage=1)
    made = examples(vlm, midi, [row(1, rationale=LONG), row(2), row(3)])
    monkeypatch.setattr("training.latents.parts.CPU_ROOM", room)
    parts = parts_of(made, midi.config, midi.device)
    assert list(map(len, parts)) == sizes
    assert {id(each) for part in parts for each in part} == set(map(id, made))
    if sizes == [2, 1]:
        assert parts[-1][0] is made[0]


def test_a_row_in_which_nothing_trains_is_in_no_part(vlm):
    midi = midi_for(vlm, reads="model", stage=1, latents=1)  # which stands behind the words
    made = examples(vlm, midi, [row(1), replace(row(2), rationale="a")])
    assert parts_of(made, midi.config, midi.device) == [[made[0]]]
    assert parts_of(made[1:], midi.config, midi.device) == []


@pytest.mark.parametrize("reads", ["features", "model"])
def test_company_in_a_batch_changes_no_latent(vlm, reads):
    midi = told_depth(midi_for(vlm, reads=reads))
    rows = [
        row(1),
        row(2, size=(96, 64), question="Which of all these things is the nearest?"),
        row(3),
    ]
    made, read = examples(vlm, midi, rows), reader(vlm, midi)
    together = answering_latents(midi, read, made)
    alone = torch.cat([answering_latents(midi, read, [each]) for each in made])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("reads", ["features", "model"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_question_is_read_as_it_was_in_training(family, reads):
    vlm = vlm_of(family)
    midi = told_depth(midi_for(vlm, reads=reads))
    asked = row(1, size=(96, 64))
    trained = answering_latents(midi, reader(vlm, midi), examples(vlm, midi, [asked]))
    read = LatentReader(midi, "midi")(vlm, asked.image, asked.depth, asked.question)
    assert read is not None
    assert torch.allclose(trained[0], torch.as_tensor(read.vectors), atol=1e-4)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param([SLOT] * 3, [7, 8, 9], id="a question's last ids"),
        pytest.param([SLOT, 5, SLOT, 6, 6, SLOT], [9, 10, 10, 11, 12, 12], id="among words"),
        pytest.param([5, SLOT, SLOT, 6], [10, 9, 10, 11], id="two side by side"),
        pytest.param([SLOT] * 12, [0, 0, *range(10)], id="more than there are"),
        pytest.param([], [], id="none"),
    ],
)
def test_a_latent_has_the_state_of_what_stands_before_it(text, found):
    assert places(10, text) == found


def told_depth(midi: Midi) -> Midi:
    """`midi` as if it had learnt to pass on depth, and what the Mamba reads."""
    for parameter in (*midi.depth_in.parameters(), *midi.out.parameters()):
        torch.nn.init.normal_(parameter, std=0.1)
    return midi


def test_at_the_start_depth_changes_nothing_that_the_model_reads(vlm):
    midi = midi_for(vlm, reads="model")
    other = replace(row(1), depth=depth_map(np.linspace(5, 2, 64)[None].repeat(64, 0), "metric"))
    first, second = examples(vlm, midi, [row(1), other])
    read = reader(vlm, midi)
    assert not torch.equal(first.depth, second.depth)
    one, two = (answering_latents(midi, read, [each]) for each in (first, second))
    assert torch.equal(one, two)


def test_losses_are_taken_where_the_module_is(vlm):
    """Rows are made ready on the CPU; "meta" stands for an accelerator, and mixes with none."""
    midi = midi_for(vlm, "constant")
    rows = examples(vlm, midi, [row(1), row(2, size=(96, 64))])
    model = deepcopy(vlm.engine.model).to("meta")
    losses = distilling_loss(model, midi.to("meta"), read_features, rows)
    found = [*losses.values(), answering_latents(midi, read_features, rows)]
    assert {each.device.type for each in found} == {"meta"}


@pytest.mark.parametrize(("kind", "sees"), [("midi", True), ("constant", False)])
def test_constant_latents_see_nothing(vlm, kind, sees):
    midi = midi_for(vlm, kind)
    made = examples(vlm, midi, [row(1), row(2)])
    first, second = answering_latents(midi, read_features, made)
    assert torch.equal(first, second) is not sees


def test_no_latents_leave_the_conversation_as_it_is(vlm):
    midi = midi_for(vlm, "none")
    (made,) = examples(vlm, midi, [row(1)])
    assert all(span.encoded for span in made.answered.images)
