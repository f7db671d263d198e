"""`mm info` says what a report of a problem needs, without loading weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_models import FAMILIES
from unlisted_models import UNLISTED

import mm
from app.cli.info import box_line, model_facts, versions
from app.cli.main import run
from mm.families.image_budgets import ImageBudgets


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny = FAMILIES["qwen3_vl"]()
    tiny.model.save_pretrained(str(folder))
    tiny.builder.tokenizer.save_pretrained(folder)
    tiny.builder.image_processing._processor.save_pretrained(folder)
    return folder


def test_info_is_printed(checkpoint, capsys):
    assert run(["info", "--model", str(checkpoint)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    for expected in (f"torch                 {torch.__version__}", "threads", "visual tokens"):
        assert expected in printed.out


def test_facts_agree_with_the_model(checkpoint):
    tiny = FAMILIES["qwen3_vl"]()
    facts = model_facts(str(checkpoint))
    assert facts["architecture"] == "Qwen3VLForConditionalGeneration"
    assert facts["parameters"] == f"{sum(p.numel() for p in tiny.model.parameters()):,}"
    assert facts["boxes"] == '"bbox_2d": xyxy, 0 to 1000x1000'
    assert facts["crop rule"] == "vlm_r3"
    cost = tiny.builder.visual_tokens((1280, 720))
    width, height = tiny.builder.seen_size((1280, 720))
    assert facts["1280x720"] == f"seen as {width}x{height}, {cost} visual tokens"


def test_box_in_pixels_of_the_seen_picture():
    written = box_line(mm.BoxFormat(key="box_2d", order="yxyx", frame=None))
    assert written == '"box_2d": yxyx, pixels as the model saw it'


@pytest.mark.parametrize(
    ("budgets", "told"),
    [
        pytest.param(ImageBudgets(), None, id="none"),
        pytest.param(ImageBudgets(visual_tokens=70), "takes visual_tokens 70", id="taken"),
        pytest.param(ImageBudgets(look_visual_tokens=9), "its looks are shown as", id="not taken"),
    ],
)
def test_an_unlisted_models_sampling_and_budgets_are_told(tmp_path, budgets, told):
    UNLISTED["gemma4_e"]().save(tmp_path)
    warm = {"do_sample": True, "temperature": 0.7, "top_k": 20}
    (tmp_path / "generation_config.json").write_text(json.dumps(warm))
    facts = model_facts(str(tmp_path), budgets)
    assert facts["family"].startswith("not listed: ")
    assert facts["sampling"] == "temperature 0.7, top_k 20"
    assert ("budgets" in facts) == (told is not None)
    assert (told or "") in facts.get("budgets", "")


def test_package_that_is_absent_is_said(monkeypatch):
    monkeypatch.setattr("app.cli.info.PACKAGES", ["torch", "no-such-package-anywhere"])
    assert versions() == {
        "torch": torch.__version__,
        "no-such-package-anywhere": "not installed",
    }


def test_model_that_is_absent_is_one_line(capsys):
    assert run(["info", "--model", "tinny"]) == 2
    printed = capsys.readouterr()
    assert (printed.out, len(printed.err.splitlines())) == ("", 1)
