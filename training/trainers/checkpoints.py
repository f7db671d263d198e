"""Checkpoints that a death at any byte cannot spoil.

One is written aside; once all of it is on disk it gets a marker that lists its files, and is moved
into place. What has no marker, or other files than its marker lists, is not whole.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

MARKER = "whole.json"
ASIDE = "checkpoint.part"
"""Where a checkpoint is while it is written."""

KEPT = 2
"""Checkpoints that are kept, besides the best ones: the last could be found spoilt."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint.

    Attributes:
        seconds: of training until it was written.
        best: the step of the best checkpoint so far; None where nothing is held out.
        preparing: how many of `seconds` went by until the first step of each process was over.
    """

    folder: Path
    step: int
    seconds: float
    best: int | None = None
    preparing: float = 0.0


def path_of(folder: Path, step: int) -> Path:
    """Where among `folder`'s checkpoints that of `step` is."""
    return folder / f"checkpoint-{step}"


def seal(written: Path, checkpoint: Checkpoint) -> None:
    """Mark what was `written` aside as whole, and move it to its place."""
    files = {_name(written, path): path.stat().st_size for path in _files(written)}
    for path in _files(written):
        sync(path)
    known = {**asdict(checkpoint), "folder": None, "files": files}
    write_whole(written / MARKER, json.dumps(known))
    if checkpoint.folder.exists():  # it was found spoilt, or a training went on from before it
        _remove(checkpoint.folder)
    os.replace(written, checkpoint.folder)
    sync(checkpoint.folder.parent)


def whole_checkpoints(folder: Path) -> list[Checkpoint]:
    """All that are whole, the newest first."""
    found = [each for path in folder.glob("checkpoint-*") if (each := _read(path))]
    return sorted(found, key=lambda each: -each.step)


def is_whole(path: Path) -> bool:
    """Whether a whole checkpoint is at `path`."""
    return _read(path) is not None


def prune(folder: Path) -> None:
    """Remove all but the last checkpoints, and the best of when those were written."""
    last = whole_checkpoints(folder)[:KEPT]
    kept = {each.step for each in last} | {each.best for each in last}
    for path in (*folder.glob("checkpoint-*"), folder / ASIDE):
        if path.is_dir() and path not in {path_of(folder, step) for step in kept if step}:
            _remove(path)


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that a death at any moment leaves the old one or the new one."""
    aside = path.with_name(f"{path.name}.part")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have a file or the entries of a folder on disk."""
    windows = os.name == "nt"
    if windows and path.is_dir():  # opens no folder, and syncs no file that is open to read alone
        return
    number = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def move_all(files: Iterable[Path], folder: Path) -> None:
    """Move `files` and folders into `folder` in their order, each once it is on disk."""
    for file in files:
        for path in (*_files(file), file):
            sync(path)
        target = folder / file.name
        if target.is_dir():  # from before a death
            shutil.rmtree(target)
        os.replace(file, target)


def _read(path: Path) -> Checkpoint | None:
    try:
        known = json.loads((path / MARKER).read_text(encoding="utf-8"))
        there = {name: (path / name).stat().st_size for name in known["files"]}
        if there != known["files"]:
            return None
        preparing = known.get("preparing", 0.0)
        return Checkpoint(path, known["step"], known["seconds"], known["best"], preparing)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remove(path: Path) -> None:
    """Remove a checkpoint, its marker first: what is left by a death is not whole."""
    (path / MARKER).unlink(missing_ok=True)
    shutil.rmtree(path)


def _files(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MARKER)


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()
