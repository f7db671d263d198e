"""The folder of a training of latents: whose it is, and the log in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mm.errors import door
from training.data import BadData

from .recipe import LatentsRecipe

SETTINGS, LOG, FINISHED = "latents.json", "log.jsonl", "finished.json"


def is_finished(folder: Path, recipe: LatentsRecipe, *, resume: bool) -> bool:
    """Whether the training in `folder` has come to its end.

    Raises:
        BadData: the folder holds something else, or a training with other settings.
    """
    known = folder / SETTINGS
    if not known.is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BadData(f"{folder} is not empty: give another --output")
        return False
    if not resume:
        raise BadData(f"{folder} is not empty: go on with --resume, or give another --output")
    with door(f"{known} is spoilt", BadData, "remove the folder, or give another --output"):
        before = json.loads(known.read_text(encoding="utf-8"))
    if changed := ", ".join(recipe.changed(before)):
        raise BadData(f"{folder} was begun with {changed}: give the same, or another --output")
    return (folder / FINISHED).is_file()


def cut_log(folder: Path, first: int) -> None:
    """Remove what the log says of the steps from `first` on, which are taken again."""
    file = folder / LOG
    if not file.exists():
        return
    lines = file.read_text(encoding="utf-8").splitlines()[:first]
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_log(folder: Path, step: int, losses: Mapping[str, Tensor], seconds: float) -> None:
    """Add a line of `losses` to the log, with the `seconds` until then.

    Raises:
        BadData: there is no room.
    """
    told = {name: round(loss.item(), 4) for name, loss in losses.items()}
    with (
        door(f"{folder / LOG} cannot be written", BadData),
        (folder / LOG).open("a", encoding="utf-8") as file,
    ):
        file.write(json.dumps({"step": step, **told, "seconds": round(seconds, 1)}) + "\n")
