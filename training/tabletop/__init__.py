"""Tabletop: images with exact ground truth, questions about them, and the steps a perfect
reasoner takes."""

from .clip_questions import CLIP_TASKS, ClipItem, clip_stream
from .questions import TASKS, Item, stream
from .render import depth_map, render
from .scene import COLOURS, LETTERS, SHAPES, SIDE, Level, Scene, Thing, make_scene
