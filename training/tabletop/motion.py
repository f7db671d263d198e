"""Clips with exact ground truth: scenes in which things slide and a lamp flashes.

A clip is a pure function of its seed. A flash is shorter than the time between few frames spread
over the clip; what glows after it is white and fades slowly, so that few frames tell when it was
and not which colour it had.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from PIL import Image as Pil
from PIL import ImageDraw

from mm.types import Clip
from video.context import clip_of

from .render import RGB, render
from .scene import COLOURS, Level, Scene, make_scene

FPS = 8
SECONDS = 8.0
FLASH_S = 0.25
GLOW_S = 1.5
SLIDE_S = 1.0
FRAME_SIDE = 256
"""Width and height of a frame, in pixels."""

DIRECTIONS = ("left", "right")
DARK, GLOWS = "0", "1"
_STEP = 0.28
_LAMP = (0.5, 0.09, 0.055)
"""The lamp's centre and radius, in fractions of the frame."""


@dataclass(frozen=True)
class Slide:
    """Thing number `thing` slides to `direction` from `start_s` on, for `SLIDE_S` seconds."""

    thing: int
    start_s: float
    direction: str


@dataclass(frozen=True)
class Flash:
    """The lamp flashes in `colour` at `start_s`, for `FLASH_S` seconds, and glows after it."""

    start_s: float
    colour: str


@dataclass(frozen=True)
class Motion:
    """What happens in a scene; slides and flashes are in the order of time."""

    scene: Scene
    slides: tuple[Slide, ...]
    flashes: tuple[Flash, ...]

    @property
    def seed(self) -> int:
        return self.scene.seed


def make_motion(seed: int) -> Motion:
    """The clip of `seed`: two things slide, one after the other, and the lamp flashes up to four
    times."""
    rng = random.Random(f"motion {seed}")
    scene = _sparse(make_scene(seed, Level.TABLE), rng)
    a, b = rng.sample(range(len(scene.things)), 2)
    first = rng.uniform(0.3, 3.0)
    second = rng.uniform(first + SLIDE_S + 0.5, SECONDS - SLIDE_S - 0.3)
    slides = tuple(
        Slide(thing, _on_frame(start), rng.choice(DIRECTIONS))
        for thing, start in ((a, first), (b, second))
    )
    apart = FLASH_S + GLOW_S
    count = rng.randint(0, 4)
    slack = SECONDS - 0.5 - count * apart
    gaps = sorted(rng.uniform(0, slack) for _ in range(count))
    starts = [0.25 + gap + n * apart for n, gap in enumerate(gaps)]
    flashes = tuple(Flash(_on_frame(s), rng.choice(COLOURS)) for s in starts)
    return Motion(scene, slides, flashes)


def _sparse(scene: Scene, rng: random.Random) -> Scene:
    """The scene with at most four of its things, none where the lamp hangs, each in a row of its
    own to slide in."""
    rows = [0.3, 0.48, 0.66, 0.84]
    rng.shuffle(rows)
    kept = scene.things[: len(rows)]
    placed = [replace(thing, y=y, x=0.5) for thing, y in zip(kept, rows, strict=False)]
    return replace(scene, things=tuple(placed))


def _on_frame(time_s: float) -> float:
    """The time of the frame at or before `time_s`."""
    return int(time_s * FPS) / FPS


def frames_of(motion: Motion) -> list[Pil.Image]:
    """All frames, RGB, at `FPS` frames a second."""
    shown: dict[tuple, Pil.Image] = {}
    frames = []
    for number in range(round(SECONDS * FPS)):
        state = _state(motion, number / FPS)
        if state not in shown:
            shown[state] = drawn(motion, number / FPS)
        frames.append(shown[state])
    return frames


def clip(motion: Motion) -> Clip:
    """The frames as a clip in memory."""
    frames = frames_of(motion)
    return clip_of(frames, [n / FPS for n in range(len(frames))], f"tabletop {motion.seed}")


def span_of(flash: Flash) -> tuple[float, float]:
    """Where one must look to see the flash: from half a second before it to half a second after."""
    return max(flash.start_s - 0.5, 0.0), min(flash.start_s + FLASH_S + 0.5, SECONDS)


def _state(motion: Motion, time_s: float) -> tuple[tuple[float, ...], tuple[int, int, int]]:
    """Where each thing is, across, and the colour of the lamp."""
    return across_at(motion, time_s), _lamp(motion.flashes, time_s)


def across_at(motion: Motion, time_s: float) -> tuple[float, ...]:
    """How far across the frame each thing is, as a fraction."""
    across = [thing.x for thing in motion.scene.things]
    for slide in motion.slides:
        share = min(max((time_s - slide.start_s) / SLIDE_S, 0.0), 1.0)
        sign = 1 if slide.direction == "right" else -1
        across[slide.thing] += round(sign * share * _STEP, 3)
    return tuple(across)


def _lamp(flashes: Sequence[Flash], time_s: float) -> tuple[int, int, int]:
    for flash in flashes:
        since = time_s - flash.start_s
        if 0 <= since < FLASH_S:
            return RGB[flash.colour]
        if FLASH_S <= since < FLASH_S + GLOW_S:
            shade = round(250 - 150 * (since - FLASH_S) / GLOW_S)
            return (shade, shade, shade)
    return (60, 60, 64)


def lamp_at(motion: Motion, time_s: float) -> str:
    """What the lamp shows: the colour of a flash, `GLOWS` after it, or `DARK`."""
    for flash in motion.flashes:
        since = time_s - flash.start_s
        if 0 <= since < FLASH_S:
            return flash.colour
        if FLASH_S <= since < FLASH_S + GLOW_S:
            return GLOWS
    return DARK


def drawn(motion: Motion, time_s: float) -> Pil.Image:
    """The frame at `time_s`, RGB."""
    across, lamp = _state(motion, time_s)
    frame = _placed(motion.scene, across).copy()
    x, y, radius = (v * FRAME_SIDE for v in _LAMP)
    box = (x - radius, y - radius, x + radius, y + radius)
    ImageDraw.Draw(frame).ellipse(box, fill=lamp, outline=(30, 30, 30), width=2)
    return frame


@lru_cache(64)
def _placed(scene: Scene, across: tuple[float, ...]) -> Pil.Image:
    things = tuple(replace(t, x=x) for t, x in zip(scene.things, across, strict=True))
    return render(replace(scene, things=things), FRAME_SIDE)
