"""How right the bundled depth model is, and that a wrong map is counted as wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mm.types import Image
from training.benchmarks import depth_accuracy
from training.benchmarks.depth_accuracy import Counted, accuracy, scene_images
from training.evaluation.views import VIEWS
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


@pytest.mark.parametrize(
    ("scenes", "low", "high"),
    [
        pytest.param(((50_000, 100_000),) * 4, 0.498, 0.502, id="alike: as many pixels"),
        pytest.param(((90_000, 100_000), (10_000, 100_000)) * 2, 0.16, 0.84, id="few scenes"),
        pytest.param(((100_000, 100_000),) * 4, 0.51, 1.0, id="all right: four of four"),
    ],
)
def test_the_interval_is_by_scene(scenes, low, high) -> None:
    share = Counted("delta1", scenes).share
    assert (share.low, share.high) == pytest.approx((low, high), abs=0.01)


def test_a_run_writes_what_the_readme_shows(tmp_path, scenes, monkeypatch, capsys) -> None:
    true = {Image(image).id: metres for image, metres, _ in scenes}
    monkeypatch.setattr(depth_accuracy, "estimated", lambda _, im: depth_map(true[im.id], "metric"))
    depth_accuracy.main("any", scenes=3, seed=0, out=tmp_path / "out.json")
    file = json.loads((tmp_path / "out.json").read_text())
    assert [row["clusters"] for row in file["rows"]] == [3, 3, 3]
    (delta1, *_) = VIEWS["counts"]([file])[2:]
    assert delta1.startswith("| `delta1` | 100.0 (43.9-100.0) |")  # Wilson's of three of three
    assert "100.0 % (43.9-100.0)" in capsys.readouterr().out
