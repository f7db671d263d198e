"""Rows of Tabletop for `mm train depth`."""

from __future__ import annotations

from pathlib import Path

from training.latents.rows import read_depth_rows
from training.latents.tabletop import PER_METRE, write_rows
from vision.depth import region_depth
from vision.rationale import whole_view


def test_rows_are_those_that_mm_train_depth_reads(tmp_path: Path) -> None:
    path = write_rows(tmp_path, 6)
    rows = read_depth_rows(path, scale=PER_METRE, kind="metric", rationales=True)
    assert len(rows) == 6
    first, second = rows[0], rows[1]
    assert first.question != second.question, "the questions of a scene differ"
    assert first.rationale != second.rationale, "each is of what its question names"
    assert "From the nearest to the farthest" in first.rationale
    told = region_depth(first.depth, whole_view()[0][1])
    assert told is not None
    assert 0.5 < told.median < 5, "metres"


def test_other_seeds_are_other_scenes(tmp_path: Path) -> None:
    one, two = (write_rows(tmp_path / str(seed), 4, seed).read_text() for seed in (0, 1))
    assert one == write_rows(tmp_path / "again", 4).read_text()
    assert one != two


def test_seeds_share_no_scene_whatever_the_number_of_rows(tmp_path: Path) -> None:
    write_rows(tmp_path / "0", 24)
    write_rows(tmp_path / "1", 4, 1)
    images = {p.read_bytes() for p in (tmp_path / "0").glob("[0-9]*[0-9].png")}
    assert not images & {p.read_bytes() for p in (tmp_path / "1").glob("*.png")}
