"""The bundled depth model: metres from the grain of faces, whoever draws them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from other_renderer import drawn

import mm
from mm.types import Image
from training.benchmarks.depth_accuracy import accuracy, pictures
from training.tabletop import Level, make_scene
from vision import depth_text
from vision.depth_source import DepthSource, estimated

SCENES = 4


def test_it_is_small_and_of_a_class_of_transformers() -> None:
    folder = Path(mm.__file__).parent / "bundled" / "tiny-depth"
    size = (folder / "model.safetensors").stat().st_size
    assert size < 4 * 2_000_000
    assert "GLPNForDepthEstimation" in (folder / "config.json").read_text()


@pytest.mark.parametrize(
    ("other", "least"),
    [
        pytest.param(False, {"delta1": 0.95, "order": 0.97, "relations": 0.97}, id="tabletop"),
        pytest.param(True, {"delta1": 0.85}, id="another renderer"),
    ],
)
def test_it_tells_how_far_things_are(other: bool, least: dict[str, float]) -> None:
    shown = pictures(SCENES, seed=3)
    if other:
        scenes = [make_scene(seed, Level.GRAIN) for seed in range(50, 50 + SCENES)]
        shown = [(*drawn(scene, seed), scene) for seed, scene in enumerate(scenes)]
    found = {each.what: each.right / each.n for each in accuracy("tiny-depth", shown)}
    assert all(found[what] >= share for what, share in least.items()), found


def test_depth_needs_no_map_where_the_model_is_bundled() -> None:
    sample = mm.question("Which is nearer, the green circle or the purple triangle?", GRAIN)
    trace = mm.run(depth_text, sample, mm.load("tiny"))
    assert trace.error is None
    assert trace.answer == "purple triangle"


GRAIN = Path(__file__).parents[2] / "app/examples/grain.png"


def test_an_image_of_one_colour_is_one_line_or_a_map() -> None:
    """Nothing to go by: whatever it says, it is no crash."""
    plain = Image(PIL.Image.new("RGB", (64, 48), "grey"))
    depth = estimated("tiny-depth", plain)
    assert depth.size == (64, 48)
    assert np.isfinite(depth.values).all()
    assert DepthSource().model is None
