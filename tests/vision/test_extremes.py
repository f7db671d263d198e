"""Files of every shape go through every strategy, on two families: a reply, and no crash."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
from tiny_models import FAMILIES

import mm
from app.strategies import STRATEGIES
from mm.engine.engine import Engine
from mm.local.hf_vlm import HFVLM
from vision.depth import DepthMap

SIZES = {
    "1:8": (120, 960),
    "8:1": (960, 120),
    "20x20": (20, 20),
    "4000x3000": (4000, 3000),
    "8000x6000": (8000, 6000),
}
ELSEWHERE = ("vote", "best_of", "depth-latent")
"""Strategies that draw, or need a trained module, have tests of their own."""

REPLY = mm.Sampling(max_tokens=40)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], mm.Sample]:
    """Makes a question about a file of some size, once."""
    folder = tmp_path_factory.mktemp("images")
    return cache(lambda size: asked(folder / f"{size.replace(':', 'to')}.png", *SIZES[size]))


def asked(path: Path, width: int, height: int) -> mm.Sample:
    drawn = PIL.Image.new("RGB", (width, height), "#d8c8a8")
    side = min(width, height) // 3
    PIL.ImageDraw.Draw(drawn).rectangle((side, side, 2 * side, 2 * side), fill="#d02020")
    drawn.save(path, compress_level=1)
    return mm.question("What letter is on the red square?", path)


def slope(sample: mm.Sample, image: mm.Image) -> DepthMap:
    """Farther from left to right."""
    width, height = image.size
    values = np.linspace(1, 9, width, dtype="float32")[None].repeat(height, axis=0)
    return DepthMap(values, "metric", np.ones_like(values, bool))


@cache
def model(name: str) -> mm.VLM:
    if name == "tiny":
        return mm.load("tiny")
    random = FAMILIES[name]()
    return HFVLM(Engine(random.model, random.builder), name=name)


@pytest.mark.parametrize(
    "size",
    [pytest.param(s, marks=pytest.mark.slow) if s == "8000x6000" else s for s in SIZES],
)
@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s not in ELSEWHERE])
@pytest.mark.parametrize("name", ["tiny", "llava_next"])
def test_every_strategy_ends_with_a_reply(
    sample: Callable[[str], mm.Sample], name: str, strategy: str, size: str
) -> None:
    if strategy in ("act", "beam") and not model(name).traits.calls_tools:
        pytest.skip(f"{strategy} refuses models that write no tool calls")
    given: dict[str, Any] = {"depth": slope} if strategy.startswith("depth") else {}
    if strategy == "beam":
        given["temperature"] = 1.0
    chosen = partial(STRATEGIES[strategy], **given)
    trace = mm.run(chosen, sample(size), model(name), sampling=REPLY)
    assert trace.error is None
    assert trace.sample.images[0].size == SIZES[size]
    assert trace.cost.generated_tokens > 0
