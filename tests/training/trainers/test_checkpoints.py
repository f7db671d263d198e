"""A checkpoint is whole, or is not taken for one: whatever a death leaves behind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from training.trainers.checkpoints import (
    ASIDE,
    MARKER,
    Checkpoint,
    path_of,
    prune,
    seal,
    sync,
    whole_checkpoints,
    write_whole,
)


def written(folder: Path, step: int, best: int | None = None) -> Path:
    """A sealed checkpoint of two files."""
    aside = path_of(folder / ASIDE, step)
    (aside / "shards").mkdir(parents=True)
    (aside / "model.safetensors").write_bytes(b"weights" * step)
    (aside / "shards" / "0").write_bytes(b"more")
    seal(aside, Checkpoint(path_of(folder, step), step, 1.5 * step, best))
    return path_of(folder, step)


def test_the_newest_whole_one_comes_first(tmp_path):
    for step in (2, 10, 4):
        written(tmp_path, step, best=2)
    found = whole_checkpoints(tmp_path)
    assert [each.step for each in found] == [10, 4, 2]
    assert found[0] == Checkpoint(path_of(tmp_path, 10), 10, 15.0, 2)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda at: (at / "model.safetensors").write_bytes(b"wei"), id="cut off"),
        pytest.param(lambda at: (at / "shards" / "0").unlink(), id="a file is missing"),
        pytest.param(lambda at: (at / MARKER).unlink(), id="no marker"),
        pytest.param(lambda at: (at / MARKER).write_text('{"step": 4'), id="half a marker"),
        pytest.param(lambda at: (at / MARKER).write_text("[]"), id="another marker"),
    ],
)
def test_a_spoilt_one_is_none(tmp_path, spoil):
    written(tmp_path, 2)
    spoil(written(tmp_path, 4))
    assert [each.step for each in whole_checkpoints(tmp_path)] == [2]


def test_what_is_still_written_is_none(tmp_path):
    (path_of(tmp_path / ASIDE, 3)).mkdir(parents=True)
    assert whole_checkpoints(tmp_path) == []


def test_the_last_two_and_their_best_are_kept(tmp_path):
    for step, best in ((1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 4), (7, 7)):
        written(tmp_path, step, best)
    (path_of(tmp_path, 9)).mkdir()  # spoilt
    prune(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("checkpoint-4", "checkpoint-6", "checkpoint-7")
    ]


def test_one_takes_the_place_of_a_spoilt_one(tmp_path):
    (written(tmp_path, 3) / MARKER).unlink()
    written(tmp_path, 3)
    assert [each.step for each in whole_checkpoints(tmp_path)] == [3]


def test_a_text_is_the_old_or_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_whole(path, "old")

    def dies(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", dies)
        with pytest.raises(KeyboardInterrupt):
            write_whole(path, "new")
    assert path.read_text() == "old"
    write_whole(path, json.dumps({}))
    assert path.read_text() == "{}"


@pytest.mark.parametrize(
    ("system", "entry", "opened"),
    [
        pytest.param("posix", "file", os.O_RDONLY, id="a file"),
        pytest.param("posix", "folder", os.O_RDONLY, id="a folder"),
        pytest.param("nt", "file", os.O_RDWR, id="a file on Windows"),
        pytest.param("nt", "folder", None, id="a folder on Windows"),
    ],
)
def test_what_a_system_can_sync_is_synced(tmp_path, monkeypatch, system, entry, opened):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    seen = []

    def opens(path: Path, flags: int) -> int:
        seen.append(flags)
        return os.open(path, flags)

    known = {"O_RDONLY": os.O_RDONLY, "O_RDWR": os.O_RDWR, "fsync": os.fsync, "close": os.close}
    monkeypatch.setattr(
        "training.trainers.checkpoints.os", SimpleNamespace(name=system, open=opens, **known)
    )
    sync(tmp_path / entry)
    assert seen == ([] if opened is None else [opened])
