"""The images and the clip that the READMEs and the demo begin with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from .motion import FPS, frames_of, make_motion
from .render import render
from .scene import SIDE, Level, Scene, make_scene

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels


def write_examples(folder: Path) -> None:
    """table.png and table.json (a scene with just one red square), two scenes more, grain.png, in
    which only a fine pattern tells depth, and lamp.mp4, in which a lamp flashes once."""
    folder.mkdir(parents=True, exist_ok=True)
    first = _FIRST_EXAMPLE
    for name, things in (("table", "red square"), ("crowd", "blue circle"), ("few", "green cross")):
        scene = _scene_with(first, things)
        first = scene.seed + 1
        render(scene).save(folder / f"{name}.png", optimize=True)
        if name == "table":
            (folder / "table.json").write_text(
                json.dumps(described(scene), indent=1) + "\n", encoding="utf-8"
            )
    render(make_scene(_FIRST_EXAMPLE, Level.GRAIN)).save(folder / "grain.png", optimize=True)
    motions = (make_motion(seed) for seed in count(_FIRST_EXAMPLE))
    flashing = next(m for m in motions if len(m.flashes) == 1 and m.flashes[0].start_s > 3)
    write_clip(frames_of(flashing), folder / "lamp.mp4")


def write_clip(frames: Sequence[Pixels], path: Path, fps: int = FPS) -> None:
    """Write frames as an MP4 of H.264."""
    import av

    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=fps, options={"crf": "20"})
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_image(frame)))
        file.mux(stream.encode())


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
