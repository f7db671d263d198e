"""Latents of depth: where they stand, what they are read from, and that a context takes them as
it takes words."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from tiny_models import FAMILIES

import mm
from mm.engine.engine import Engine
from mm.errors import ModelError
from mm.local.hf_vlm import HFVLM
from mm.scripted import ScriptedVLM
from mm.trace_store import load_traces, save_traces
from mm.types import Image, Latents, Text, user
from vision import depth_latent
from vision.depth import DepthMap, Kind, depth_map
from vision.latent_reader import LatentReader, features_of, latents_of
from vision.midi import (
    SLOT,
    Midi,
    MidiConfig,
    encoder_image,
    is_marked,
    load_midi,
    mark_of,
    save_midi,
    slots,
    with_slots,
)

IMAGE = Image(PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 96, 3), "uint8")))


def ramp(near: float, far: float, kind: Kind = "metric") -> DepthMap:
    return depth_map(np.linspace(near, far, 96)[None].repeat(96, 0), kind)


def vlm_of(family: str) -> HFVLM:
    made = FAMILIES[family]()
    return HFVLM(Engine(made.model, made.builder), name=family)


def midi_for(vlm: HFVLM, **changes) -> Midi:
    torch.manual_seed(0)
    table = vlm.engine.model.get_input_embeddings().weight
    (seen,) = features_of(vlm.engine, [IMAGE])
    config = MidiConfig(
        seen.shape[-1],
        table.shape[1],
        table.shape[0],
        hidden=16,
        layers=2,
        state=4,
        latents=3,
        base=mark_of(vlm.engine.model),
    )
    return Midi(replace(config, **changes))


@pytest.mark.parametrize(
    ("words", "places"),
    [
        pytest.param(18, [0, 2, 4, 6, 8, 10, 12, 14, 16, 18], id="even"),
        pytest.param(5, [0, 1, 1, 2, 2, 3, 3, 4, 4, 5], id="half to even"),
        pytest.param(0, [0] * 10, id="no words"),
    ],
)
def test_ten_latents_are_spread_as_in_the_paper(words, places):
    assert slots(words, 10) == places
    ids = with_slots([[7]] * words, 10)
    assert (ids.count(SLOT), ids.count(7)) == (10, words)
    assert ids[0] == SLOT


def test_one_latent_stands_behind_all_words():
    assert with_slots([[1, 2], [3]], 1) == [1, 2, 3, SLOT]


def test_metres_look_the_same_in_every_image():
    one, other = (
        np.asarray(encoder_image(ramp(1.0, far), IMAGE).pixels)[0, 0] for far in (2.0, 8.0)
    )
    assert (one == other).all()
    near, far = np.asarray(encoder_image(ramp(1.0, 8.0), IMAGE).pixels)[0, [0, -1], 0]
    assert far > near  # red rises with the distance


def test_nearer_is_the_same_colour_whatever_the_kind():
    relative = np.asarray(encoder_image(ramp(0.1, 0.9, "relative"), IMAGE).pixels)
    inverse = np.asarray(encoder_image(ramp(0.9, 0.1, "inverse"), IMAGE).pixels)
    assert np.abs(relative.astype(int) - inverse).max() <= 1


@pytest.mark.parametrize("family", ["qwen3_vl", "llava_next", "gemma3", "internvl"])
def test_the_embeddings_of_words_in_place_of_the_words_change_nothing(family):
    vlm = vlm_of(family)
    builder, table = vlm.builder, vlm.engine.model.get_input_embeddings()
    word = "abcdef"
    written = builder.build((user(IMAGE, Text("?"), Text(word)),))
    width = table.weight.shape[1]
    empty = latents_of(IMAGE, np.zeros((1, width), "float32"))
    around = builder.build((user(IMAGE, Text("?"), empty),)).ids
    count = len(written.ids) - len(around) + 1
    start = next(i for i, (a, b) in enumerate(zip(written.ids, around, strict=False)) if a != b)
    ids = torch.tensor(written.ids[start : start + count])
    vectors = table(ids).detach().numpy()
    given = builder.build((user(IMAGE, Text("?"), latents_of(IMAGE, vectors)),))
    assert len(given.ids) == len(written.ids)
    assert sum(a != b for a, b in zip(given.ids, written.ids, strict=True)) == count
    said, read = (vlm.engine.next_logits(tokens) for tokens in (written, given))
    assert torch.allclose(said, read, atol=2e-4)


def test_latents_of_another_width_are_refused():
    vlm = vlm_of("qwen3_vl")
    narrow = latents_of(IMAGE, np.zeros((2, 3), "float32"))
    with pytest.raises(ModelError, match="latents are 3 wide, the model's embeddings"):
        vlm.generate([(user(IMAGE, narrow, "?"),)], mm.Sampling(max_tokens=2))


def test_exactly_as_many_as_promised_enter_the_context():
    vlm = vlm_of("qwen3_vl")
    read = LatentReader(midi_for(vlm), "here")
    asked = mm.question("What is near?", IMAGE)
    trace = mm.run(
        lambda session: depth_latent(session, depth=lambda s, i: ramp(1, 3), midi=read),
        asked,
        vlm,
        sampling=mm.Sampling(max_tokens=3),
    )
    assert trace.error is None
    (latents,) = [p for m in trace.sample.prompt for p in m.parts if isinstance(p, Latents)]
    assert latents.vectors.shape == (3, vlm.engine.model.get_input_embeddings().weight.shape[1])
    plain = vlm.builder.build(asked.prompt)
    full = vlm.builder.build(trace.sample.prompt)
    assert sum(span.tokens for span in full.images if not span.encoded) == 3
    assert len(full.ids) >= len(plain.ids) + 3
    assert trace.images == ()  # nothing was looked at again


def test_another_depth_gives_other_latents_and_the_same_the_same():
    vlm = vlm_of("qwen3_vl")
    read = LatentReader(midi_for(vlm), "here")
    made = [read(vlm, IMAGE, ramp(1, far), "What is near?") for far in (3, 3, 2)]
    keys = [latents.key for latents in made if latents]
    assert keys[0] == keys[1] != keys[2]


def test_latents_are_read_where_the_model_is(monkeypatch):
    vlm, there = vlm_of("qwen3_vl"), []
    read = LatentReader(midi_for(vlm), "here")
    monkeypatch.setattr(Midi, "to", lambda midi, device: there.append(device) or midi)
    assert read(vlm, IMAGE, ramp(1, 3), "What is near?")
    assert there == [vlm.engine.model.device]


def test_a_module_for_other_weights_is_refused():
    vlm = vlm_of("qwen3_vl")
    read = LatentReader(midi_for(vlm, base="0" * 16), "here")
    with pytest.raises(ModelError, match="here was trained for other weights"):
        read(vlm, IMAGE, ramp(1, 3), "?")


@pytest.mark.parametrize("trained", ["metric", ""], ids=["the same", "a module of before"])
def test_a_map_of_the_kind_it_was_trained_on_is_read(trained):
    vlm = vlm_of("qwen3_vl")
    assert LatentReader(midi_for(vlm, depth_kind=trained), "here")(vlm, IMAGE, ramp(1, 3), "?")


def test_a_map_of_another_kind_than_it_was_trained_on_is_refused():
    vlm = vlm_of("qwen3_vl")
    read = LatentReader(midi_for(vlm, depth_kind="inverse"), "here")
    with pytest.raises(ModelError, match="here was trained on inverse depth, and the map is"):
        read(vlm, IMAGE, ramp(1, 3), "?")


def test_a_module_that_names_no_weights_reads_for_any():
    vlm = vlm_of("qwen3_vl")
    assert LatentReader(midi_for(vlm, base=""), "here")(vlm, IMAGE, ramp(1, 3), "?")
    assert not is_marked(vlm.engine.model, "")  # training does not go on from it


@pytest.mark.parametrize("kept", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("loaded", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_known_again_in_any_precision(kept, loaded):
    model, other = embeddings(0, kept), embeddings(1, kept)
    mark = mark_of(model)
    assert is_marked(embeddings(0, kept).to(loaded), mark)
    assert not is_marked(other, mark)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("rows", [slice(None), slice(32, None)], ids=["all", "beyond the first"])
def test_weights_that_moved_by_one_per_cent_are_others(rows: slice, seed: int):
    model, moved = embeddings(0, torch.float32), embeddings(0, torch.float32)
    table = moved.get_input_embeddings().weight.data
    torch.manual_seed(seed)
    table[rows] += 0.01 * table.std() * torch.randn_like(table[rows])
    assert not is_marked(moved, mark_of(model))


def test_a_table_of_another_length_is_of_other_weights():
    model, longer = embeddings(0, torch.float32), embeddings(0, torch.float32, rows=164)
    assert not is_marked(longer, mark_of(model))


def test_modules_of_before_know_their_weights():
    """They hold a hash of 64 rows in bfloat16."""
    model = embeddings(0, torch.bfloat16)
    rows = model.get_input_embeddings().weight.detach()[:64].float().numpy()
    mark = hashlib.blake2b(rows.tobytes(), digest_size=8).hexdigest()
    assert is_marked(model, mark)
    assert is_marked(model.to(torch.float32), mark)
    assert not is_marked(embeddings(1, torch.bfloat16), mark)


def embeddings(seed: int, dtype: torch.dtype, rows: int = 100) -> Any:
    """A model of embeddings alone: a row of nothing, and numbers that float16 only just holds."""
    torch.manual_seed(seed)
    table = torch.nn.Embedding(rows, 256)
    table.weight.data *= 0.02
    table.weight.data[0] = 0
    table.weight.data[1:, ::3] *= 1e-4
    model: Any = torch.nn.Sequential(table).to(dtype)
    model.get_input_embeddings = lambda: table
    return model


def test_a_model_over_a_server_is_refused():
    read = LatentReader(midi_for(vlm_of("qwen3_vl")), "here")
    with pytest.raises(ModelError, match="that runs here, over no server: use depth-text"):
        read(ScriptedVLM([]), IMAGE, ramp(1, 3), "?")


def test_what_is_saved_is_what_is_loaded(tmp_path):
    midi = midi_for(vlm_of("qwen3_vl"))
    save_midi(midi, tmp_path)
    again = load_midi(str(tmp_path))
    assert again.config == midi.config
    both = zip(midi.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in both)


def test_traces_keep_latents(tmp_path):
    vectors = np.arange(6, dtype="float32").reshape(2, 3)
    sample = mm.question("?", IMAGE)
    said = replace(sample.prompt[0], parts=(*sample.prompt[0].parts, latents_of(IMAGE, vectors)))
    trace = mm.run(mm.direct, replace(sample, prompt=(said,)), ScriptedVLM(["x"]))
    save_traces([trace], tmp_path)
    (read,) = load_traces(tmp_path)
    (latents,) = [p for p in read.sample.prompt[0].parts if isinstance(p, Latents)]
    assert (latents.vectors == vectors).all()
    assert latents == said.parts[-1]
