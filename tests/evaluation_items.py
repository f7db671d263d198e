"""Questions about one image, and a model's call for a look at it, for tests of evaluation."""

from __future__ import annotations

import json

from PIL import Image as pil

import mm
from mm.geometry import Region
from training.evaluation.tasks import Item

GRADIENT = mm.Image(pil.linear_gradient("L").resize((640, 640)).convert("RGB"))
LETTERS = ("K", "R")
LEFT, RIGHT = Region(0.1, 0.1, 0.2, 0.2), Region(0.8, 0.1, 0.9, 0.2)


def item(name="q", target="K", regions=(LEFT,)):
    sample = mm.question("Which letter?", GRADIENT, id=name, target=target, choices=LETTERS)
    return Item(sample, regions)


def look_at(*box):
    call = {"name": "image_zoom_in_tool", "arguments": {"bbox_2d": list(box)}}
    return f"<tool_call>\n{json.dumps(call)}\n</tool_call>"
