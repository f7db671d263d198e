"""What is asked: questions whose answers are known, in suites of one task each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b

from mm.errors import UserError
from mm.geometry import Region
from mm.trace import Sample
from mm.types import Clip, Image, Part
from training import tabletop
from training.tabletop import Level
from vision.depth import DepthMap, depth_map


class BadTarget(UserError):
    """What was to be measured cannot be; a line for each fault, for people."""


def digest_of(sample: Sample) -> str:
    """Tells what is asked from other questions under the same id: words, images, what is right."""
    said = [(m.role, [_digested(part) for part in m.parts]) for m in sample.prompt]
    asked = json.dumps([said, sample.choices, sample.target], ensure_ascii=True)
    return blake2b(asked.encode(), digest_size=8).hexdigest()


def _digested(part: Part) -> str:
    if isinstance(part, Image):
        return part.id
    return part.source if isinstance(part, Clip) else repr(part)


@dataclass(frozen=True)
class Item:
    """A question and its target.

    Attributes:
        regions: what a perfect reasoner looks at, in order; () when one look is enough, or nobody
            knows.
        needed: those of `regions` that tell the answer; () for all of them.
        box: the target where the answer is a box in the image.
        span: of a clip, in seconds: what must be looked at; None where nobody knows.
        depths: the true depth map of the image, at 0, and those of other images; None where nobody
            knows.
        other: the image of another question; None where there is none.
    """

    sample: Sample
    regions: tuple[Region, ...] = ()
    box: Region | None = None
    span: tuple[float, float] | None = None
    depths: Callable[[int], DepthMap] | None = None
    other: Callable[[], Image] | None = None
    needed: tuple[Region, ...] = ()


@dataclass(frozen=True)
class Suite:
    """The items of one task.

    Attributes:
        items: makes them anew, the same each time, so that they need not stay in memory.
        n: how many there are.
        looking: whether looking again can help, and so has controls.
        located: whether each item says where to look.
        clips: whether it is about clips.
        deep: whether the true depth of each image is known, and other images are at hand.
    """

    task: str
    items: Callable[[], Iterable[Item]]
    n: int
    looking: bool = False
    located: bool = False
    clips: bool = False
    deep: bool = False


def tabletop_suites(
    tasks: Iterable[str], *, seed: int, limit: int, level: int | None
) -> list[Suite]:
    """Test items of Tabletop, `limit` for each of `tasks`; all those of images when there are none.

    `level` None takes for each task that of `default_level`.

    Raises:
        BadTarget: no such task or level, or a negative seed.
    """
    chosen = list(dict.fromkeys(tasks)) or list(tabletop.TASKS)
    known = (*tabletop.TASKS, *tabletop.CLIP_TASKS)
    if unknown := [task for task in chosen if task not in known]:
        raise BadTarget(f"no task {unknown[0]!r}: give some of {', '.join(known)}")
    if level is not None and level not in list(tabletop.Level):
        raise BadTarget(f"no level {level!r}: give one of {_levels()}")
    if seed < 0:
        raise BadTarget(f"the seed of a test stream must not be negative, got {seed}")
    return [
        _suite(task, seed, limit, default_level(task) if level is None else level)
        for task in chosen
    ]


def default_level(task: str) -> int:
    """The level at which a task is measured when none is named.

    That is the hardest that `tiny` was found to hold; for questions of depth the one at which size
    and height tell nothing.
    """
    return int(Level.GRAIN if task in ("nearer", "read_nearest") else Level.PERSPECTIVE)


def level_named(level: str | int) -> int:
    """The Tabletop level a person means by its number or name.

    Raises:
        BadTarget: there is no such level.
    """
    known = {
        key: int(each) for each in tabletop.Level for key in (each.name.lower(), str(int(each)))
    }
    if (wanted := str(level).strip().lower()) not in known:
        raise BadTarget(f"no level {level!r}: give one of {_levels()}")
    return known[wanted]


def _suite(task: str, seed: int, limit: int, level: int) -> Suite:
    if task in tabletop.CLIP_TASKS:
        items = partial(_clip_items, task, seed, limit)
        return Suite(task, items, limit, located=task == "moment", clips=True)
    items = partial(_tabletop_items, task, seed, limit, level)
    first = next(items(), None)
    looking = first is not None and bool(first.regions)
    return Suite(task, items, limit, looking, located=looking, deep=True)


def _tabletop_items(task: str, seed: int, limit: int, level: int) -> Iterator[Item]:
    for item in tabletop.stream(task, seed, limit, level):
        depths = partial(_true_depth, item.scene.seed, level)
        other = partial(_other, item.scene.seed + 1, level)
        needed = tuple(item.scene.things[i].region for i in item.question.about)
        yield Item(item.sample, item.regions, item.box, depths=depths, other=other, needed=needed)


def _true_depth(seed: int, level: int, other: int) -> DepthMap:
    """The depth of a scene, or of the one so many seeds on."""
    metres = tabletop.depth_map(tabletop.make_scene(seed + other, level))
    return depth_map(metres, "metric", "renderer")


def _other(seed: int, level: int) -> Image:
    return Image(tabletop.render(tabletop.make_scene(seed, level)))


def _clip_items(task: str, seed: int, limit: int) -> Iterator[Item]:
    for item in tabletop.clip_stream(task, seed, limit):
        yield Item(item.sample, span=item.question.span)


def _levels() -> str:
    return ", ".join(f"{int(each)} ({each.name.lower()})" for each in tabletop.Level)
