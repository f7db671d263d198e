"""Rows for `mm train depth` from Tabletop: questions about depth, and some that need none.

python -m training.latents.tabletop --rows 1500 --out runs/depth-rows
"""

from __future__ import annotations

import json
import random
from itertools import count
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image as Pil
from rich.progress import Progress

from training.tabletop.questions import Question, ask
from training.tabletop.render import depth_map, render
from training.tabletop.scene import SIDE, Level, Scene, make_scene
from vision.depth import DepthMap
from vision.depth import depth_map as as_map
from vision.rationale import rationale

FIRST_SEED = 3 << 30
"""Scenes of these rows have seeds from here on: no other training sees them."""

PER_METRE = 1000
"""The scale of the depth files, 16-bit PNG."""

MIX = (("nearer", 0.7), ("colour", 0.15), ("count", 0.15))
"""What is asked, with its share."""

PER_SCENE = 4
"""Questions about one scene."""


def write_rows(folder: Path, rows: int, seed: int = 0) -> Path:
    """Write images, depth maps and `rows.jsonl` into `folder`; returns the rows' file."""
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    with Progress() as progress:
        task = progress.add_task("drawing", total=rows)
        for number in count():
            rng = random.Random(f"{seed} {number}")
            scene = make_scene(FIRST_SEED + (seed << 20) + number, Level.GRAIN)
            lines += [json.dumps(row) for row in _rows(scene, folder, f"{number:05d}", rng)]
            progress.update(task, completed=min(len(lines), rows))
            if len(lines) >= rows:  # a scene of few things admits few questions
                break
    path = folder / "rows.jsonl"
    path.write_text("\n".join(lines[:rows]) + "\n", encoding="utf-8")
    return path


def _rows(scene: Scene, folder: Path, name: str, rng: random.Random) -> list[dict[str, str]]:
    metres = depth_map(scene, SIDE // 4)
    render(scene).save(folder / f"{name}.png")
    Pil.fromarray((metres * PER_METRE).round().astype(np.uint16)).save(folder / f"{name}.depth.png")
    files = {"image": f"{name}.png", "depth": f"{name}.depth.png"}
    shown = as_map(metres, "metric")
    return [
        {**files, "question": q.text, "rationale": _rationale(shown, scene, q), "answer": q.answer}
        for q in _questions(scene, rng)
    ]


def _rationale(shown: DepthMap, scene: Scene, question: Question) -> str:
    """Of the things that `question` names; where it names none, the order of all."""
    things = [(thing.name, thing.region) for thing in scene.things]
    named = [(name, at) for name, at in things if name in question.text]
    return rationale(shown, named) if named else rationale(shown, things).split("\n")[0]


def _questions(scene: Scene, rng: random.Random) -> list[Question]:
    names, shares = [name for name, _ in MIX], [share for _, share in MIX]
    tasks = rng.choices(names, shares, k=PER_SCENE * 4)
    asked = {q.text: q for q in (ask(task, scene, rng) for task in tasks) if q is not None}
    return list(asked.values())[:PER_SCENE]


def main(
    out: Annotated[Path, typer.Option(help="A folder for the rows and their files.")],
    rows: Annotated[int, typer.Option(min=1)] = 1500,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Write Tabletop rows that `mm train depth --depth-scale 1000` learns from."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise typer.BadParameter(f"{out} is not empty: give another --out")
    print(write_rows(out, rows, seed))


if __name__ == "__main__":
    typer.run(main)
