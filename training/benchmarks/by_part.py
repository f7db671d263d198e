"""Right answers by what a question is like: where in its clip a moment lies, how far apart two
things are.

    python -m training.benchmarks.by_part moment
    python -m training.benchmarks.by_part nearer
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

import mm
from mm.session import Strategy
from mm.strategies.single import direct
from mm.trace import Sample
from mm.vlm import VLM
from training.evaluation.controls import Condition
from training.evaluation.evaluate import Outcome, evaluate
from training.evaluation.results import command_line, envelope, row_of
from training.evaluation.tasks import Item, default_level, tabletop_suites
from training.evaluation.views import tasks
from training.tabletop.motion import SECONDS, make_motion
from training.tabletop.scene import make_scene
from video import uniform, watch
from vision.depth_strategies import depth_latent, depth_text

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
    "nearer": Parts(
        apart,
        (CLOSE, FAR),
        {"direct": direct, "depth-text": depth_text, "depth-latent": depth_latent},
    ),
}

MANY = 1_000_000
"""More questions than are ever looked through."""


def items_of(task: str, *, seed: int, limit: int) -> Iterator[tuple[str, Item]]:
    """The first `limit` questions of each part of `task`, each with its part; made as they are
    needed, since clips are large."""
    (suite,) = tabletop_suites([task], seed=seed, limit=MANY, level=None)
    parts = PARTS[task]
    left = dict.fromkeys(parts.names, limit)
    for item in suite.items():
        part = parts.of(item.sample)
        if left.get(part):
            left[part] -= 1
            yield part, item
        if not any(left.values()):
            return


def outcomes_of(
    condition: Condition, items: Iterable[tuple[str, Item]], vlm: VLM, *, threads: int = 16
) -> dict[str, list[Outcome]]:
    """The outcomes of each part."""
    parts: list[str] = []

    def asked() -> Iterator[Item]:
        for part, item in items:
            parts.append(part)
            yield item

    found: dict[str, list[Outcome]] = {}
    for at, outcome in enumerate(evaluate(condition, asked(), vlm, threads=threads)):
        found.setdefault(parts[at], []).append(outcome)
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
        raise typer.BadParameter(f"no parts of {task!r}: give one of {', '.join(PARTS)}")
    vlm = mm.load(model)
    parts, found = PARTS[task], {}
    total = limit * len(parts.names)
    for each, run in parts.strategies.items():
        items = track(items_of(task, seed=seed, limit=limit), each, total=total)
        found[each] = outcomes_of(Condition(each, run), items, vlm, threads=threads)
    rows = [
        row_of(f"{task}, {name}", Condition(each, run), found[each][name])
        for name in parts.names
        for each, run in parts.strategies.items()
    ]
    print(*tasks([{"rows": rows}]), sep="\n")
    if out:
        about = {"model": model, "limit": limit, "seed": seed}
        out.write_text(
            json.dumps(envelope(rows, [], command=command_line(), **about), indent=1) + "\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    typer.run(main)
