"""Questions about scenes, and the steps a perfect reasoner takes to answer them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, count

from mm.geometry import Region
from mm.trace import Sample
from mm.types import Image, user

from .render import render
from .scene import COLOURS, LETTERS, SHAPES, Level, Scene, make_scene

FIRST_TEST_SEED = 1 << 40
"""Training scenes have seeds below this, test scenes from it on."""


@dataclass(frozen=True)
class Question:
    """One question about one scene.

    `looks` are the indices of the things whose letters must be read, in order, before `answer` can
    be known; () when one look at the image is enough. `about` are the indices of the things the
    words refer to.
    """

    task: str
    text: str
    answer: str
    choices: tuple[str, ...] = ()
    looks: tuple[int, ...] = ()
    about: tuple[int, ...] = ()


@dataclass(frozen=True)
class Item:
    """A test item. `regions` are what a perfect reasoner looks at, in order; `box` is the target of
    `locate`."""

    sample: Sample
    scene: Scene
    question: Question
    regions: tuple[Region, ...] = ()
    box: Region | None = None


def box_text(scene: Scene, index: int, step: int = 1) -> str:
    """The thing's box as the model writes it: thousandths of the image, rounded to multiples of
    `step`."""
    thing = scene.things[index]
    r = thing.region
    numbers = ", ".join(str(step * round(v * 1000 / step)) for v in (r.x0, r.y0, r.x1, r.y1))
    return f'{{"label": "{thing.name}", "bbox_2d": [{numbers}]}}'


def _colour(scene: Scene, rng: random.Random) -> Question | None:
    shapes = [t.shape for t in scene.things]
    lone = [i for i, s in enumerate(shapes) if shapes.count(s) == 1]
    if not lone:
        return None
    i = rng.choice(lone)
    form = rng.choice(
        ("What colour is the {}?", "Which colour does the {} have?", "What color is the {}?")
    )
    return Question("colour", form.format(shapes[i]), scene.things[i].colour, COLOURS, about=(i,))


def _count(scene: Scene, rng: random.Random) -> Question | None:
    kind = rng.randrange(3)
    if kind == 0:
        what, about = "objects", range(len(scene.things))
    elif kind == 1:
        colour = _often_there(rng, [t.colour for t in scene.things], COLOURS)
        what = f"{colour} objects"
        about = [i for i, t in enumerate(scene.things) if t.colour == colour]
    else:
        shape = _often_there(rng, [t.shape for t in scene.things], SHAPES)
        what = "crosses" if shape == "cross" else f"{shape}s"
        about = [i for i, t in enumerate(scene.things) if t.shape == shape]
    form = rng.choice(("How many {} are there?", "Count the {}."))
    choices = tuple(str(n) for n in range(9))
    return Question("count", form.format(what), str(len(about)), choices, about=tuple(about))


def _often_there(rng: random.Random, there: list[str], every: tuple[str, ...]) -> str:
    return rng.choice(there) if rng.random() < 0.8 else rng.choice(every)


def _locate(scene: Scene, rng: random.Random) -> Question | None:
    i = rng.randrange(len(scene.things))
    form = rng.choice(("Where is the {}?", "Locate the {}.", "Find the {}."))
    return Question("locate", form.format(scene.things[i].name), box_text(scene, i), about=(i,))


def _read(scene: Scene, rng: random.Random) -> Question | None:
    i = rng.randrange(len(scene.things))
    form = rng.choice(
        ("What letter is on the {}?", "Which letter is on the {}?", "Read the letter on the {}.")
    )
    thing = scene.things[i]
    return Question("read", form.format(thing.name), thing.letter, LETTERS, (i,), (i,))


def _same(scene: Scene, rng: random.Random) -> Question | None:
    wanted = rng.random() < 0.5
    things = scene.things
    pairs = [
        (a, b)
        for a, b in combinations(range(len(things)), 2)
        if (things[a].letter == things[b].letter) == wanted
    ]
    if not pairs:
        return None
    a, b = rng.sample(rng.choice(pairs), 2)
    form = rng.choice(
        (
            "Do the {} and the {} carry the same letter?",
            "Is the letter on the {} the same as the letter on the {}?",
        )
    )
    text = form.format(things[a].name, things[b].name)
    return Question("same", text, "yes" if wanted else "no", ("yes", "no"), (a, b), (a, b))


def _search(scene: Scene, rng: random.Random) -> Question | None:
    letters = [t.letter for t in scene.things]
    lone = [i for i, letter in enumerate(letters) if letters.count(letter) == 1]
    if not lone:
        return None
    i = rng.choice(lone)
    text = f"What colour is the object with the letter {letters[i]}?"
    looks = tuple(range(i + 1))
    return Question("search", text, scene.things[i].colour, COLOURS, looks, (i,))


def _nearer(scene: Scene, rng: random.Random) -> Question | None:
    a, b = rng.sample(range(len(scene.things)), 2)
    first, second = scene.things[a], scene.things[b]
    if abs(first.depth - second.depth) < 0.3:
        return None
    nearest = first if first.depth < second.depth else second
    text = f"Which is nearer, the {first.name} or the {second.name}?"
    return Question("nearer", text, nearest.name, (first.name, second.name), about=(a, b))


def _read_nearest(scene: Scene, rng: random.Random) -> Question | None:
    by_depth = sorted(range(len(scene.things)), key=lambda i: scene.things[i].depth)
    i, runner_up = by_depth[:2]
    if scene.things[runner_up].depth - scene.things[i].depth < 0.2:
        return None
    text = "What letter is on the nearest object?"
    return Question("read_nearest", text, scene.things[i].letter, LETTERS, (i,), (i,))


_ASK: dict[str, Callable[[Scene, random.Random], Question | None]] = {
    "colour": _colour,
    "count": _count,
    "locate": _locate,
    "read": _read,
    "same": _same,
    "search": _search,
    "nearer": _nearer,
    "read_nearest": _read_nearest,
}
TASKS = tuple(_ASK)


def ask(task: str, scene: Scene, rng: random.Random) -> Question | None:
    """A question of `task` about `scene`; None when the scene admits none (no lone shape, no letter
    twice, ...).

    Raises:
        ValueError: no such task.
    """
    if task not in _ASK:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    return _ASK[task](scene, rng)


def stream(task: str, seed: int, limit: int, level: int = Level.PLAIN) -> Iterator[Item]:
    """The first `limit` test items of `task`; streams of different seeds or tasks share no scene
    with each other."""
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    if task not in _ASK:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    first = FIRST_TEST_SEED + ((seed * 64 + TASKS.index(task)) << 24)
    made = 0
    for scene_seed in count(first):
        if made >= limit:
            return
        scene = make_scene(scene_seed, level)
        question = ask(task, scene, random.Random(f"ask {task} {scene_seed}"))
        if question:
            yield make_item(f"{task}-{seed}-{made}", scene, question)
            made += 1


def make_item(name: str, scene: Scene, question: Question) -> Item:
    """Draw the scene and put the question to it."""
    sample = Sample(
        name,
        (user(Image(render(scene)), question.text),),
        target=question.answer,
        choices=question.choices,
        tags={"task": question.task, "level": int(scene.level), "scene": scene.seed},
    )
    regions = tuple(scene.things[i].region for i in question.looks)
    box = scene.things[question.about[0]].region if question.task == "locate" else None
    return Item(sample, scene, question, regions, box)
