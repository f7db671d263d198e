"""The stages that make `tiny` go on from a kill as if nothing had happened, and what they write
loads."""

from __future__ import annotations

import random
from functools import partial

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen3VLForConditionalGeneration

from mm.local.hf_vlm import HFVLM
from training.bundle import (
    enlarged,
    extend_stage,
    full_stage,
    language_stage,
    memories,
    replay_stage,
    shards,
    vision_stage,
)
from training.bundle.assemble import export, parts
from training.bundle.full_stage import export_adapter
from training.bundle.memories import Memories, write_memories
from training.bundle.shards import Shards, draw_shards

pytestmark = pytest.mark.slow


@pytest.fixture
def few(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SCENES_PER_SHARD", 40)
    monkeypatch.setattr(vision_stage, "HELD_OUT", 10)
    for stage in (vision_stage, language_stage):
        monkeypatch.setattr(stage, "CHECKPOINT_EVERY", 2)
    for name in ("OVERVIEWS", "CROPS", "TILES"):
        monkeypatch.setattr(vision_stage, name, 2)
    for stage in (language_stage, replay_stage):
        monkeypatch.setattr(stage, "ROWS", 2)
        monkeypatch.setattr(stage, "VIEWS", 10)
    monkeypatch.setattr(replay_stage, "FULL_ROWS", 2)
    monkeypatch.setattr(memories, "SCENES_PER_FILE", 10)
    assert list(draw_shards(tmp_path / "shards", [0, 1], processes=1)) == [0, 1]
    return tmp_path


def test_shards_hold_what_their_scenes_say(few):
    drawn = Shards(few / "shards")
    assert len(drawn) == 80
    assert list(draw_shards(few / "shards", [0, 1], processes=1)) == []
    for index in (0, 39, 40, 79):
        views = drawn[index]
        assert views.scene == shards.training_scene(index)
        assert len(views.crops) == len(views.scene.things)
        assert len(views.tiles) == shards.TILES


class Killed(Exception):
    pass


TRAIN = {"replay": replay_stage.train_replay, "full": full_stage.train_full}


@pytest.mark.parametrize("stage", ["vision", "language", *TRAIN])
def test_a_killed_stage_resumes_with_the_same_weights(few, stage, monkeypatch):
    module = vision_stage if stage == "vision" else language_stage

    def train(folder):
        model, builder = parts()
        drawn = Shards(few / "shards")
        if stage == "vision":
            vision_stage.train_vision(model.model.visual, drawn, folder, steps=4)
        elif stage == "language":
            made = partial(language_stage.batches, drawn, builder)
            language_stage.train_language(model, made, folder, steps=4)
        else:
            remembered = few / "memories"
            list(write_memories(model.model.visual, remembered, 20))
            kept = Memories(remembered)
            TRAIN[stage](model, builder, drawn, kept, folder, steps=4)
        return model.state_dict()

    straight = train(few / "straight")
    save = module.saved

    def save_and_die(*args, **state):
        save(*args, **state)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, "saved", save_and_die)
        with pytest.raises(Killed):
            train(few / "killed")
    resumed = train(few / "killed")
    for name, weight in straight.items():
        assert torch.equal(weight, resumed[name]), name


def test_what_is_exported_loads_with_the_library_and_with_ours(few):
    from transformers import AutoModelForImageTextToText

    import mm

    model, builder = parts()
    export(model, builder, few / "tiny")
    theirs = AutoModelForImageTextToText.from_pretrained(few / "tiny")
    for name, weight in model.state_dict().items():
        assert torch.equal(weight.to(torch.bfloat16), theirs.state_dict()[name].to(torch.bfloat16))
    ours = mm.load(str(few / "tiny"))
    assert ours.traits.crop_rule == "square"
    assert ours.visual_tokens((768, 768)) == 16


def test_the_adapter_loads_on_the_model_that_it_names(tmp_path):
    from mm.local.checkpoints import find
    from mm.local.load import load

    model = Qwen3VLForConditionalGeneration.from_pretrained(find("tiny"))
    config = LoraConfig(r=1, target_modules=r".*language_model.*q_proj", init_lora_weights=False)
    export_adapter(get_peft_model(model, config), tmp_path / "adapter", "tiny")
    assert {p.name for p in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "base.json",
    }
    assert isinstance(loaded := load(str(tmp_path / "adapter")), HFVLM)
    assert loaded.adapter


@pytest.mark.parametrize(
    "make", dict.fromkeys(extend_stage.EXTEND.turn), ids=lambda make: make.__name__
)
def test_every_batch_of_the_extend_stage_teaches_something(few, make, monkeypatch):
    for name, rows in {"ROWS": 2, "DEPTH_ROWS": 1, "CLIP_ROWS": 1, "VERDICT_ROWS": 1}.items():
        monkeypatch.setattr(extend_stage, name, rows)
    monkeypatch.setattr(extend_stage, "VIEWS", 10)
    monkeypatch.setattr(extend_stage, "BUDGET_ROWS", dict.fromkeys(enlarged.SIDES, 1))
    model, builder = parts()
    list(write_memories(model.model.visual, few / "memories", 10))
    list(enlarged.write_enlarged(model.model.visual, few / "enlarged", 1))
    given = extend_stage.Material(
        Shards(few / "shards"),
        Memories(few / "memories"),
        enlarged.Enlarged(few / "enlarged"),
        builder,
    )
    batch = make(given, random.Random(0))
    with torch.no_grad():
        hidden = language_stage.decode(model, batch)
        logits, _, kinds = language_stage.trained_logits(model, hidden, batch)
    assert logits.isfinite().all()
    assert (kinds >= 0).all()  # each is named in the log
    same = make(given, random.Random(0))
    assert torch.equal(batch.ids, same.ids)
