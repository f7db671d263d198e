"""Budgets of images for unlisted classes: by their own processors' options, or a line says none."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
from images import plain
from unlisted_models import UNLISTED

import mm
from mm.local.generic_vlm import GenericVLM

IMAGE = plain("white", (400, 300))
COUNTS = {  # of a 4:3 image: what each class makes of 64 and of 256 visual tokens
    "qwen3_5": (63, 252),
    "glm4v": (63, 252),
    "gemma4_31b": (63, 266),
    "gemma4_e": (63, 266),
    "mistral3": (48, 165),  # makes no image larger
    "minicpmv4_6": (4, 12),  # one slice, and four of at most; the tiny model's are of 4
}


@cache
def folder(name: str) -> str:
    return str(UNLISTED[name]().save(Path(mkdtemp())))


def loaded(name: str, **budgets: int) -> GenericVLM:
    vlm = mm.load(
        folder(name),
        device="cpu",
        threads=1,
        visual_tokens=budgets.get("visual_tokens"),
        max_pixels=budgets.get("max_pixels"),
        look_visual_tokens=budgets.get("look_visual_tokens"),
    )
    assert isinstance(vlm, GenericVLM)
    return vlm


def placeholders(name: str, **budgets: int) -> int:
    vlm = loaded(name, **budgets)
    ids = vlm._inputs((mm.user(IMAGE, "?"),))["input_ids"][0]
    return vlm._tokenizer.decode(ids).count(UNLISTED[name]().placeholder)


@pytest.mark.parametrize("name", COUNTS)
def test_a_class_comes_near_to_what_is_asked(name: str) -> None:
    assert tuple(placeholders(name, visual_tokens=n) for n in (64, 256)) == COUNTS[name]


@pytest.mark.parametrize("name", ["qwen3_5", "glm4v", "mistral3"])
def test_bounds_on_pixels_hold(name: str) -> None:
    side = 32 if name == "qwen3_5" else 28
    assert placeholders(name, max_pixels=32_000) <= 32_000 / side**2


@pytest.mark.parametrize(
    ("name", "budgets", "line"),
    [
        ("llava", {"visual_tokens": 64}, "its image processor has no option for visual_tokens"),
        ("gemma4_e", {"max_pixels": 64}, "its image processor has no option for max_pixels"),
        ("qwen3_5", {"look_visual_tokens": 9}, "its looks are shown as its other images are"),
    ],
    ids=["llava", "gemma4", "looks"],
)
def test_what_a_class_lacks_is_said_in_a_line(
    name: str, budgets: dict[str, int], line: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        loaded(name, **budgets)
    assert any(line in said and "\n" not in said for said in caplog.messages)
