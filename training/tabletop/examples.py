"""The images that the README and the demo begin with."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

from .render import render
from .scene import SIDE, Level, Scene, make_scene


def write_examples(folder: Path) -> None:
    """table.png and table.json (a scene with exactly one red square), and two scenes more."""
    folder.mkdir(parents=True, exist_ok=True)
    first = _FIRST_EXAMPLE
    for name, things in (("table", "red square"), ("crowd", "blue circle"), ("few", "green cross")):
        scene = _scene_with(first, things)
        first = scene.seed + 1
        render(scene).save(folder / f"{name}.png", optimize=True)
        if name == "table":
            (folder / "table.json").write_text(json.dumps(described(scene), indent=1) + "\n")


_FIRST_EXAMPLE = (1 << 60) + 1
"""Examples are neither training nor test scenes."""


def _scene_with(first: int, name: str) -> Scene:
    scenes = (make_scene(seed, Level.TABLE) for seed in count(first))
    return next(s for s in scenes if len(s.things) >= 5 and any(t.name == name for t in s.things))


def described(scene: Scene) -> dict:
    """What is in the image, boxes in its pixels."""
    objects = [
        {
            "colour": t.colour,
            "shape": t.shape,
            "letter": t.letter,
            "xyxy": list(t.region.to_pixels((SIDE, SIDE))),
        }
        for t in scene.things
    ]
    return {"objects": objects}
