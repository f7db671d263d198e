"""Right answers by what a question is like: where in its clip a moment lies, how far apart two
things are.

    python -m training.benchmarks.by_part moment
    python -m training.benchmarks.by_part nearer
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

import mm
from mm.errors import UserError
from mm.session import Strategy
from mm.strategies.single import direct
from mm.trace import Sample
from training.evaluation.controls import Condition
from training.evaluation.evaluate import evaluate
from training.evaluation.results import envelope, row_of
from training.evaluation.tasks import Item, default_level, tabletop_suites
from training.evaluation.views import tasks
from training.tabletop.motion import SECONDS, make_motion
from training.tabletop.scene import make_scene
from video import uniform, watch
from vision.depth_strategies import depth_text

THIRDS = ("first third", "second third", "last third")
CLOSE = "10-30 % apart"
FAR = "farther apart"


def third(sample: Sample) -> str:
    """In which third of its clip the lamp flashes."""
    start_s = make_motion(int(str(sample.tags["scene"]))).flashes[0].start_s
    return THIRDS[int(len(THIRDS) * start_s / SECONDS)]


def apart(sample: Sample) -> str:
    """How far apart in depth the two things are: by how much the farther is farther."""
    scene = make_scene(int(str(sample.tags["scene"])), default_level("nearer"))
    near, far = sorted(t.depth for t in scene.things if t.name in sample.choices)
    more = far / near - 1
    return FAR if more > 0.3 else CLOSE if more >= 0.1 else "under 10 % apart"


@dataclass(frozen=True)
class Parts:
    """How a task's questions fall apart: `of` names the part of one; others than `names` are left
    out. `strategies` are those that are worth comparing."""

    of: Callable[[Sample], str]
    names: Sequence[str]
    strategies: Mapping[str, Strategy]


PARTS: Mapping[str, Parts] = {
    "moment": Parts(third, THIRDS, {"uniform": uniform, "watch": watch}),
    "nearer": Parts(apart, (CLOSE, FAR), {"direct": direct, "depth-text": depth_text}),
}

MANY = 1_000_000
"""More questions than are ever looked through."""


def items_of(task: str, *, seed: int, limit: int) -> dict[str, list[Item]]:
    """The first `limit` questions of each part of `task`."""
    (suite,) = tabletop_suites([task], seed=seed, limit=MANY, level=None)
    parts = PARTS[task]
    found: dict[str, list[Item]] = {name: [] for name in parts.names}
    for item in suite.items():
        part = found.get(parts.of(item.sample), [])
        if len(part) < limit:
            part.append(item)
        if all(len(each) == limit for each in found.values()):
            break
    return found


def main(
    task: Annotated[str, typer.Argument(help=f"One of {', '.join(PARTS)}.")],
    model: str = "tiny",
    limit: Annotated[int, typer.Option(min=1, help="Questions of each part.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Which of them.")] = 0,
    threads: Annotated[int, typer.Option(min=1)] = 16,
    out: Annotated[Path | None, typer.Option(help="Write the rows as JSON.")] = None,
) -> None:
    """How often strategies are right, by part."""
    if task not in PARTS:
        raise UserError(f"no parts of {task!r}: give one of {', '.join(PARTS)}")
    vlm = mm.load(model)
    rows = []
    for name, items in items_of(task, seed=seed, limit=limit).items():
        for each, run in PARTS[task].strategies.items():
            condition = Condition(each, run)
            outcomes = track(evaluate(condition, items, vlm, threads=threads), total=len(items))
            rows.append(row_of(f"{task}, {name}", condition, list(outcomes)))
    print(*tasks([{"rows": rows}]), sep="\n")
    if out:
        command = shlex.join(["python", "-m", "training.benchmarks.by_part", *sys.argv[1:]])
        about = {"model": model, "limit": limit, "seed": seed}
        out.write_text(
            json.dumps(envelope(rows, [], command=command, **about), indent=1) + "\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    typer.run(main)
