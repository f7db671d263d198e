"""The order of places in a photograph with measured disparities."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.benchmarks.stereo_truth import PAIRS, maps, told

SLOPE = np.linspace(8, 60, 64, dtype=np.float32)[:, None].repeat(48, 1)
HOLED = np.where(np.arange(48) % 7 == 0, np.inf, SLOPE)


@pytest.mark.parametrize("disparity", [SLOPE, HOLED], ids=["whole", "with holes"])
def test_every_kind_of_file_is_read_the_right_way_round(
    disparity: np.ndarray, tmp_path: Path
) -> None:
    for name, depth in maps(disparity, tmp_path):
        assert told(depth, disparity)["right"] == PAIRS, name


def test_a_map_read_the_wrong_way_round_is_seen(tmp_path: Path) -> None:
    name, depth = next(maps(SLOPE, tmp_path))
    assert name == "disparity, NPY"
    assert told(replace(depth, kind="relative"), SLOPE)["wrong"] == PAIRS
