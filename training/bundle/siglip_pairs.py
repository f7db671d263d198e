"""Pairs for `tiny-siglip`: small images of Tabletop, and sentences about things and the lamp."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.tabletop.motion import (
    DARK,
    FPS,
    GLOWS,
    SECONDS,
    drawn,
    lamp_at,
    make_motion,
)
from training.tabletop.render import render
from training.tabletop.scene import COLOURS, Level, make_scene

FIRST_SEED = 5 << 29
"""Its scenes have seeds from here on."""

SIDE = 128
"""Width and height of an image, in pixels."""

PAIRS = 96
"""In a batch: so many images, and a sentence about each."""

ANY = "any"
"""Any colour of a flash."""


@dataclass(frozen=True)
class Seen:
    """What an image shows; `lamp` is empty where there is none."""

    names: frozenset[str]
    lamp: str = ""


@dataclass(frozen=True)
class Sentence:
    """A text, and what is to be seen where it fits; an empty `lamp` says nothing of it."""

    text: str
    names: frozenset[str] = frozenset()
    lamp: str = ""

    def fits(self, seen: Seen) -> bool:
        """Whether an image that shows `seen` is one that the text is about."""
        lamp = seen.lamp in COLOURS if self.lamp == ANY else self.lamp in ("", seen.lamp)
        return lamp and all(any(name in one for one in seen.names) for name in self.names)


class Batch(NamedTuple):
    """`pixels` (B, 3, SIDE, SIDE) in -1 to 1, `texts`, and `fits` (B, B): image by text."""

    pixels: Tensor
    texts: Sequence[str]
    fits: Tensor


def batches(first: int, steps: int, pairs: int = PAIRS) -> Iterator[Batch]:
    """Batch number n is a function of n alone."""
    for number in range(first, steps):
        yield make_batch(random.Random(f"siglip {number}"), pairs)


def make_batch(rng: random.Random, pairs: int = PAIRS) -> Batch:
    """Images and a sentence about each, as `rng` draws them."""
    images, shown = zip(*(_image(rng) for _ in range(pairs)), strict=True)
    said = [sentence(seen, rng) for seen in shown]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    fits = torch.tensor([[each.fits(seen) for each in said] for seen in shown])
    return Batch(pixels, [each.text for each in said], fits)


def _image(rng: random.Random) -> tuple[np.ndarray, Seen]:
    seed = FIRST_SEED + rng.randrange(1 << 24)
    if rng.random() < 0.5:
        scene = make_scene(seed, rng.choice(list(Level)))
        image, lamp, things = render(scene, SIDE), "", scene.things
    else:
        motion, time_s = make_motion(seed), rng.randrange(round(SECONDS * FPS)) / FPS
        if motion.flashes and rng.random() < 0.5:  # a flash is short: else few would be seen
            time_s = rng.choice(motion.flashes).start_s
        image = drawn(motion, time_s).resize((SIDE, SIDE))
        lamp, things = lamp_at(motion, time_s), motion.scene.things
    return np.asarray(image), Seen(frozenset(thing.name for thing in things), lamp)


_OF_LAMP = {
    DARK: ("The lamp is dark.", "the lamp is off"),
    GLOWS: ("The lamp glows white.", "a white lamp"),
    ANY: ("In which colour did the lamp flash?", "The lamp flashes.", "when the lamp flashes"),
}
_OF_ONE = ("a {}", "the {}", "Where is the {}?", "To which side did the {} move?", "There is a {}.")
_OF_TWO = (
    "a {} and a {}",
    "Which moved first, the {} or the {}?",
    "Which is nearer, the {} or the {}?",
    "The {} and the {} are on the table.",
)
_OF_MORE = ("The image shows {}.", "There are {}.")


def sentence(seen: Seen, rng: random.Random) -> Sentence:
    """One that fits what is seen."""
    if seen.lamp and rng.random() < 0.4:
        return _of_lamp(seen, rng)
    names = rng.sample(sorted(seen.names), min(rng.choice((1, 1, 2, 2, 3)), len(seen.names)))
    if len(names) == 1:
        name = names[0] if rng.random() < 0.7 else rng.choice(names[0].split())
        return Sentence(rng.choice(_OF_ONE).format(_thing(name)), frozenset([name]))
    if len(names) == 2:
        return Sentence(rng.choice(_OF_TWO).format(*names), frozenset(names))
    listed = f"a {', a '.join(names[:-1])} and a {names[-1]}"
    return Sentence(rng.choice(_OF_MORE).format(listed), frozenset(names))


def _of_lamp(seen: Seen, rng: random.Random) -> Sentence:
    if seen.lamp not in COLOURS:
        return Sentence(rng.choice(_OF_LAMP[seen.lamp]), lamp=seen.lamp)
    if rng.random() < 0.4:
        return Sentence(rng.choice(_OF_LAMP[ANY]), lamp=ANY)
    said = rng.choice(("The lamp flashes {}.", "a {} lamp", "The lamp is {}."))
    return Sentence(said.format(seen.lamp), lamp=seen.lamp)


def _thing(name: str) -> str:
    """`name`, or of a colour alone the thing that has it."""
    return f"{name} thing" if name in COLOURS else name
