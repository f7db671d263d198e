"""How right the bundled depth model is, and that a wrong map is counted as wrong."""

from __future__ import annotations

import numpy as np
import pytest

from mm.types import Image
from training.benchmarks import depth_accuracy
from training.benchmarks.depth_accuracy import accuracy, scene_images
from vision.depth import depth_map
from vision.depth_source import TINY


@pytest.fixture(scope="module")
def scenes():
    return list(scene_images(3))


def counts(model: str, scenes) -> dict[str, float]:
    return {each.what: each.right / each.n for each in accuracy(model, scenes)}


@pytest.mark.torch
def test_the_bundled_model_sees_what_only_the_grain_shows(scenes) -> None:
    found = counts(TINY, scenes)
    assert found["delta1"] > 0.95
    assert found["order"] > 0.95
    assert found["relations"] > 0.9


@pytest.mark.parametrize(
    ("turned", "right"),
    [pytest.param(False, 1.0, id="the truth"), pytest.param(True, 0.0, id="turned over")],
)
def test_the_truth_is_right_and_its_opposite_wrong(scenes, monkeypatch, turned, right) -> None:
    true = {Image(image).id: metres for image, metres, _ in scenes}

    def told(_: str, image: Image):
        metres: np.ndarray = true[image.id]
        return depth_map(metres.max() + metres.min() - metres if turned else metres, "metric")

    monkeypatch.setattr(depth_accuracy, "estimated", told)
    found = counts("any", scenes)
    assert found["order"] == right
    assert found["relations"] == right
