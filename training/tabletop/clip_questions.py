"""Questions about clips: what must be looked at in time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

from mm.trace import Sample
from mm.types import user

from .motion import DIRECTIONS, Motion, clip, make_motion, span_of
from .questions import FIRST_TEST_SEED, TASKS
from .scene import COLOURS

Span = tuple[float, float]


@dataclass(frozen=True)
class ClipQuestion:
    """One question about one clip; `span`, in seconds, is what must be looked at to answer."""

    task: str
    text: str
    answer: str
    choices: tuple[str, ...]
    span: Span | None = None


@dataclass(frozen=True)
class ClipItem:
    """A test item."""

    sample: Sample
    motion: Motion
    question: ClipQuestion


def _order(motion: Motion, rng: random.Random) -> ClipQuestion | None:
    names = [motion.scene.things[slide.thing].name for slide in motion.slides]
    asked = rng.sample(names, 2)
    text = f"Which moved first, the {asked[0]} or the {asked[1]}?"
    return ClipQuestion("order", text, names[0], tuple(asked))


def _moment(motion: Motion, rng: random.Random) -> ClipQuestion | None:
    if len(motion.flashes) != 1:
        return None
    (flash,) = motion.flashes
    text = "In which colour did the lamp flash?"
    return ClipQuestion("moment", text, flash.colour, COLOURS, span_of(flash))


def _direction(motion: Motion, rng: random.Random) -> ClipQuestion | None:
    slide = rng.choice(motion.slides)
    text = f"To which side did the {motion.scene.things[slide.thing].name} move?"
    return ClipQuestion("direction", text, slide.direction, DIRECTIONS)


def _tally(motion: Motion, rng: random.Random) -> ClipQuestion | None:
    choices = tuple(map(str, range(5)))
    return ClipQuestion("tally", "How often did the lamp flash?", str(len(motion.flashes)), choices)


_ASK: dict[str, Callable[[Motion, random.Random], ClipQuestion | None]] = {
    "order": _order,
    "moment": _moment,
    "direction": _direction,
    "tally": _tally,
}
CLIP_TASKS = tuple(_ASK)


def ask_clip(task: str, motion: Motion, rng: random.Random) -> ClipQuestion | None:
    """A question of `task` about a clip; None where the clip admits none.

    Raises:
        ValueError: no such task.
    """
    if task not in _ASK:
        raise ValueError(f"task must be one of {', '.join(CLIP_TASKS)}, got {task!r}")
    return _ASK[task](motion, rng)


def clip_stream(task: str, seed: int, limit: int) -> Iterator[ClipItem]:
    """The first `limit` test items of `task`; streams share no clip with each other, nor with
    training.

    Raises:
        ValueError: no such task, or a negative seed.
    """
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    if task not in _ASK:
        raise ValueError(f"task must be one of {', '.join(CLIP_TASKS)}, got {task!r}")
    number = len(TASKS) + CLIP_TASKS.index(task)  # behind those of images, whose streams stay
    first = FIRST_TEST_SEED + ((seed * 64 + number) << 24)
    made = 0
    for clip_seed in count(first):
        if made >= limit:
            return
        motion = make_motion(clip_seed)
        question = ask_clip(task, motion, random.Random(f"ask {task} {clip_seed}"))
        if question:
            yield make_clip_item(f"{task}-{seed}-{made}", motion, question)
            made += 1


def make_clip_item(name: str, motion: Motion, question: ClipQuestion) -> ClipItem:
    """Put the question to the clip."""
    sample = Sample(
        name,
        (user(clip(motion), question.text),),
        target=question.answer,
        choices=question.choices,
        tags={"task": question.task, "scene": motion.seed},
    )
    return ClipItem(sample, motion, question)
