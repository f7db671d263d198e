"""Held-out rows that cannot be judged are counted and said; they end no training."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from tiny_models import FAMILIES

from mm.engine.engine import Engine
from mm.local.hf_vlm import HFVLM
from mm.scripted import ScriptedVLM
from mm.strategies.single import direct
from training.evaluation.intervals import wilson
from training.finetune.held_out import HeldOut, accuracy, held_out_questions, sample_replies
from training.finetune.methods import method_of
from training.finetune.plan import make_plan
from training.finetune.recipe import Recipe
from training.finetune.run import Training
from training.finetune.setup import read_rows
from training.trainers.row_builders import build_question

LONG = "The image shows " + " ".join(f"thing {n}" for n in range(25)) + "."


def rows_in(folder: Path, replies: list[str]) -> Path:
    """Rows as LLaVA's: a reply each, whatever its length; "Red." is none of its row's choices."""
    PIL.Image.new("RGB", (64, 64), "red").save(folder / "a.png")
    rows = [
        {
            "image": "a.png",
            "conversations": [
                {"from": "human", "value": "<image>\nWhat is here?"},
                {"from": "gpt", "value": reply},
            ],
            **({"choices": ["blue", "green"]} if reply == "Red." else {}),
        }
        for reply in replies
    ]
    path = folder / "rows.json"
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize(
    ("replies", "judged"),
    [
        pytest.param(["Red.", LONG, "Blue."], 1, id="neither prose nor what is no choice"),
        pytest.param(["Red.", "Red."], 0, id="none can"),
    ],
)
def test_rows_that_cannot_be_judged_are_counted(tmp_path, replies, judged):
    tiny = FAMILIES["qwen3_vl"]()
    vlm = HFVLM(Engine(tiny.model, tiny.builder))
    plan = make_plan(Recipe(data="x", output="y"), tiny.model)
    method = method_of(plan, vlm, direct)
    rows = read_rows(plan, str(rows_in(tmp_path, replies)), vlm, method.build)
    found = held_out_questions(plan, rows)
    assert (len(found), found.unjudged) == (judged, len(replies) - judged)
    assert len(list(found.questions)) == judged
    training = Training(plan, vlm, method, rows, rows, found, tmp_path)
    assert training.lines()[-1].startswith(
        f"held out: {len(replies) - judged} rows have no answer that can be judged"
    )


def test_questions_asked_on_the_way_leave_nothing_cached_and_train_on(tmp_path):
    tiny = FAMILIES["qwen3_vl"]()
    vlm: Any = HFVLM(Engine(copy.deepcopy(tiny.model), tiny.builder))
    plan = make_plan(Recipe("grpo", data="x", output="y", max_tokens=3), tiny.model)
    rows = read_rows(plan, str(rows_in(tmp_path, ["Blue."])), vlm, build_question(vlm.builder))
    found = held_out_questions(plan, rows)
    model = vlm.engine.model.train()
    for ask in (accuracy, sample_replies):
        ask(vlm, found, direct)
        engine = vlm.engine
        assert engine._loop._prefixes.entries.bytes + engine._encoder._features.bytes == 0
        assert model.training


@pytest.mark.parametrize(
    ("method", "told", "limits"),
    [
        pytest.param("grpo", {"system": "Be brief.", "max_tokens": 5}, (5, 5), id="as sampled"),
        pytest.param(
            "grpo",
            {"system": "Be brief.", "max_tokens": 5, "max_thought_tokens": 2},
            (2, 2),
            id="thoughts bounded as sampled",
        ),
        pytest.param("sft", {}, (512, 64), id="what is learnt from rows"),
    ],
)
def test_held_out_questions_are_asked_as_the_training_asks(
    tmp_path, monkeypatch, method, told, limits
):
    tiny = FAMILIES["qwen3_vl"]()
    vlm = HFVLM(Engine(tiny.model, tiny.builder))
    recipe = Recipe(method, data="x", output="y", **told)
    plan = make_plan(recipe, tiny.model)
    rows = read_rows(plan, str(rows_in(tmp_path, ["Blue."])), vlm, build_question(vlm.builder))
    found: HeldOut = held_out_questions(plan, rows)
    asked = []

    def generate(conversations, sampling, **kw):
        asked.append(([m.role for m in conversations[0]], sampling.max_tokens))
        return ScriptedVLM(["blue"]).generate(conversations, sampling, **kw)

    monkeypatch.setattr(vlm, "generate", generate)
    accuracy(vlm, found, direct)
    sample_replies(vlm, found, direct)
    roles = ["system", "user"] if told else ["user"]
    begun = [each for each in asked if each[0][-1] == "user"]  # a bounded thought goes on
    assert begun == [(roles, limits[0]), (roles, limits[1])]


def test_rows_of_one_image_count_for_less(tmp_path, monkeypatch):
    tiny = FAMILIES["qwen3_vl"]()
    vlm = HFVLM(Engine(tiny.model, tiny.builder))
    plan = make_plan(Recipe(data="x", output="y"), tiny.model)
    path = rows_in(tmp_path, ["Blue."] * 4)
    rows = read_rows(plan, str(path), vlm, build_question(vlm.builder))
    monkeypatch.setattr(vlm, "generate", ScriptedVLM(["blue"] * 4).generate)
    assert accuracy(vlm, held_out_questions(plan, rows), direct) == wilson(1, 1)
