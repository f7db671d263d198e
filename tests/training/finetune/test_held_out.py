"""Held-out rows that cannot be judged are counted and said; they end no training."""

from __future__ import annotations

import json
from pathlib import Path

import PIL.Image
import pytest
from tiny_models import FAMILIES

from mm.engine.engine import Engine
from mm.local.hf_vlm import HFVLM
from mm.strategies.single import direct
from training.finetune.held_out import held_out_questions
from training.finetune.methods import method_of
from training.finetune.plan import make_plan
from training.finetune.recipe import Recipe
from training.finetune.run import Training
from training.finetune.setup import read_rows

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
