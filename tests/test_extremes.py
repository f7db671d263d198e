"""Pictures of every shape go through every strategy: a reply, and no crash."""

from __future__ import annotations

from functools import cache

import PIL.Image
import PIL.ImageDraw
import pytest

import mm
from app.strategies import STRATEGIES

SIZES = {"1:8": (120, 960), "8:1": (960, 120), "20x20": (20, 20), "8000x6000": (8000, 6000)}


@cache
def picture(name: str) -> mm.Image:
    width, height = SIZES[name]
    drawn = PIL.Image.new("RGB", (width, height), "#d8c8a8")
    pen = PIL.ImageDraw.Draw(drawn)
    side = min(width, height) // 3
    pen.rectangle((side, side, 2 * side, 2 * side), fill="#d02020")
    return mm.Image(drawn)


@cache
def tiny() -> mm.VLM:
    return mm.load("tiny")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_ends_with_a_reply(name: str, size: str) -> None:
    sample = mm.question("What letter is on the red square?", picture(size))
    trace = mm.run(STRATEGIES[name], sample, tiny(), sampling=mm.Sampling(max_tokens=200))
    assert trace.error is None
    assert trace.cost.generated_tokens > 0
