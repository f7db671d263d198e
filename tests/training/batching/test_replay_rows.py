"""Rows that point: what a model reads in training is what it reads when it answers by `replay`."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import PIL.Image
import pytest
import torch
from tiny_models import FAMILIES
from training_rows import given
from trl.trainer.sft_config import SFTConfig

from mm.engine.model_runner import ModelRunner
from mm.geometry import Region
from mm.scripted import ScriptedVLM
from mm.session import run
from mm.trace import Sample
from mm.types import Features, Image, Text, Thinking, assistant, user
from training.batching.collator import IGNORED, Collator, PairCollator, forward_inputs
from training.batching.image_features import FrozenFeatureCache, encode_images
from training.batching.replay_rows import memory_of, replayed
from training.data import BadData, Row
from training.trainers.box_loss import box_loss, centres
from training.trainers.course import Course
from training.trainers.schedule import Pace
from training.trainers.sft import SFT
from vision.replay import INSTRUCTION, replay

REMEMBERING = ("qwen3_vl", "llava_next")
PICTURE = Image(PIL.Image.linear_gradient("L").convert("RGB").resize((128, 96)))
FIRST, SECOND = "It is here <sot>[0.10, 0.10, 0.50, 0.50]<eot>", "It is K.\nFinal answer: K"
ROW = Row("a", (user(PICTURE, "What letter?"), assistant(FIRST + SECOND)))


def regions(row: Row) -> list[Region]:
    return [part.region for part in row.messages[-1].parts if isinstance(part, Features)]


@pytest.mark.parametrize("family", REMEMBERING)
def test_a_row_reads_like_the_answer_it_teaches(family):
    builder = FAMILIES[family]().builder
    vlm = ScriptedVLM([FIRST, SECOND], traits=builder.traits)
    sample = Sample("a", (user(PICTURE, "What letter?"),))
    trace = run(partial(replay, protocol="sot"), sample, vlm)
    answered = [replace(message, tokens=None) for message in trace.best.messages]
    row = replayed(builder, ROW)
    ours, theirs = (builder.build(said, open_turn=False) for said in (row.messages, answered))
    assert ours.ids == theirs.ids
    assert [s.content for s in ours.images] == [s.content for s in theirs.images]


@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        pytest.param("A <sot>[0.1, 0.2, 0.5, 0.6]<eot> b.", [(0.1, 0.2, 0.5, 0.6)], id="one"),
        pytest.param("<sot>[0.5, 0.2, 0.1, 0.6]<eot> b.", [], id="inside out"),
        pytest.param("<sot>[0, 0, 1, 1]<eot> <sot>[0, 0, 1, 1]<eot>", [(0, 0, 1, 1)], id="again"),
        pytest.param("No look.", [], id="none"),
    ],
)
def test_each_region_stands_behind_its_signal(reply, shown):
    row = Row("a", (user(PICTURE, "?"), assistant(Thinking(reply), Text("Done."))))
    found = replayed(FAMILIES["qwen3_vl"]().builder, row)
    assert regions(found) == [Region(*box) for box in shown]
    words = "".join(p.text for p in found.messages[-1].parts if isinstance(p, Text | Thinking))
    assert words.replace("<think>", "").replace("</think>", "") == reply + "Done."


def test_who_says_how_to_point_is_not_told_again():
    builder = FAMILIES["qwen3_vl"]().builder
    told = replace(ROW, messages=(user(PICTURE, "Point: <sot>[..]<eot>"), ROW.messages[-1]))
    assert [user(INSTRUCTION) in replayed(builder, row).messages for row in (ROW, told)] == [1, 0]
    late = replace(ROW, messages=(*TALK, *ROW.messages), untrained=frozenset({1}))
    assert replayed(builder, late).untrained == {1}
    early = replace(ROW, messages=(*ROW.messages, *TALK), untrained=frozenset({3}))
    assert replayed(builder, early).untrained == {4}


TALK = (user("Hello?"), assistant("Hello."))


@pytest.mark.parametrize("family", REMEMBERING)
def test_both_sides_of_a_pair_read_like_the_answers_they_are(family):
    builder = FAMILIES[family]().builder
    bad = FIRST.replace("0.50, 0.50", "0.90, 0.90") + SECOND
    pair = Row("a", ROW.messages[:1], chosen=ROW.messages[1:], rejected=(assistant(bad),))
    sides = PairCollator(Collator(builder)).build(replayed(builder, pair))
    alone = [Row("a", (*pair.messages, *side)) for side in (pair.chosen, pair.rejected)]
    wanted = [builder.build(replayed(builder, row).messages, open_turn=False) for row in alone]
    assert [side.ids for side in sides] == [side.ids for side in wanted]
    seen, meant = ([[s.visual for s in side.images] for side in each] for each in (sides, wanted))
    assert seen == meant
    once = replace(pair, rejected=(assistant("It is K."),))  # one side that points is enough
    assert replayed(builder, once).messages[-1] == user(INSTRUCTION)


def test_a_family_that_remembers_nothing_is_refused():
    with pytest.raises(BadData, match="cannot replay what it saw"):
        memory_of(FAMILIES["gemma3"]().builder)


@pytest.mark.parametrize("family", REMEMBERING)
def test_the_loss_of_a_replayed_row_is_what_the_engine_computes(family):
    tiny = FAMILIES[family]()
    row = replayed(tiny.builder, ROW)
    batch = Collator(tiny.builder)([row, *TEXT])
    tokens = tiny.builder.build(row.messages, open_turn=False)
    weights = ModelRunner(tiny.model, tiny.builder)
    with torch.no_grad():
        seen = weights.encode_images(tokens.images)
        parts = [
            s.block(span.block) if span.block else s
            for s, span in zip(seen, tokens.images, strict=True)
        ]
        embeds, extra = weights.inputs(tokens.ids, 0, parts)
        wanted = weights.logits(weights.forward(embeds, weights.positions(tokens), None, **extra))
        for way in (encode_images, FrozenFeatureCache(10**8)):
            logits = tiny.model(**forward_inputs(tiny.model, batch, way)).logits
            torch.testing.assert_close(logits[:1, : len(tokens.ids)], wanted, atol=1e-4, rtol=0)


TEXT = [Row("b", (user("And?"), assistant("No.")))]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_box_is_predicted_where_its_signal_ends(side):
    builder = FAMILIES["qwen3_vl"]().builder
    batch = Collator(builder, side=side)([*TEXT, replayed(builder, ROW)])
    (pointed,) = batch.pointed
    assert (pointed.row, pointed.region) == (1, Region(0.1, 0.1, 0.5, 0.5))
    said = batch.inputs["input_ids"][1, : pointed.at + 1]
    assert builder.decode(said.tolist()).endswith("<eot>")
    assert batch.labels[1, pointed.at] != IGNORED
    assert Collator(builder)(TEXT).pointed == ()


def test_the_box_loss_is_added_in_training_and_only_there(tmp_path):
    tiny = FAMILIES["qwen3_vl"]()
    rows = [replayed(tiny.builder, ROW), *TEXT]
    collator = Collator(tiny.builder)
    course = Course(
        given(rows, collator.build), None, collator, encode_images, Pace(), 4096, box_loss=0.5
    )
    args = SFTConfig(
        str(tmp_path), bf16=False, use_cpu=True, report_to=[], remove_unused_columns=False,
        max_length=None, gradient_checkpointing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )  # fmt: skip
    model = copy.deepcopy(tiny.model)
    trainer = SFT(model, args, course, tiny.builder.tokenizer)
    trainer.current_gradient_accumulation_steps = 1  # as `train` sets it
    batch = next(iter(trainer.get_train_dataloader()))
    without = trainer.compute_loss(model.eval(), dict(batch))
    with_boxes = trainer.compute_loss(model.train(), dict(batch))
    (pointed,) = batch["pointed"]
    made = forward_inputs(model, collator([rows[0]]))
    hidden = model.model(**{k: v for k, v in made.items() if k != "labels"}).last_hidden_state
    predicted = model.box_head(hidden[:, pointed.at])
    wanted = box_loss(predicted, centres(torch.tensor([[0.1, 0.1, 0.5, 0.5]])))
    torch.testing.assert_close(with_boxes - without, 0.5 * wanted, atol=1e-5, rtol=0)
    with_boxes.backward()
    learning = {n for n, p in model.named_parameters() if p.grad is not None}
    assert any(n.startswith("box_head") for n in learning)
    trainer.create_optimizer()
    held = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in model.box_head.parameters()} <= held
