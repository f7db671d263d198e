"""What the studies of GRPO share: rows, trainings and answers that are kept, and a table of what
changed. Stopped or killed, a study goes on where it was."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import stdev
from typing import Any, TypeVar

from mm.session import Strategy
from mm.strategies.single import direct
from training.evaluation.intervals import Z95
from training.evaluation.results import Row, command_line, envelope
from training.evaluation.views import changes
from training.finetune.output_folder import RECIPE
from training.finetune.recipe import Recipe
from training.finetune.run import train
from training.trainers.checkpoints import write_whole

Values = Mapping[str, Sequence[float]]
"""Each measure of each question, in the order of the questions."""


Table = Callable[[Mapping[str, Values]], Sequence[Row]]
"""From what was measured of each model, by its name, to the rows of the table."""

Setting = TypeVar("Setting")
"""A study's own sizes and seeds."""


def rows_file(folder: Path, name: str, rows: Iterable[Mapping[str, Any]]) -> Path:
    """`name`.jsonl in `folder`, of `rows`, which are drawn only where there is no such file yet;
    what they name lies in the folder `name` beside it."""
    path = folder / f"{name}.jsonl"
    if not path.exists():
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_whole(path, "".join(json.dumps(row) + "\n" for row in rows))
    return path


def run_study(
    folder: Path,
    recipes: Mapping[str, Recipe],
    strategy: Strategy,
    measure: Callable[[str], Values],
    table: Table,
    *,
    before: Mapping[str, Values] = {},
    **about: Any,
) -> None:
    """Train each of `recipes`, measure its model, and print and write the table after each.

    Args:
        measure: is given a model's folder.
        before: what was measured of models that are not trained here.
        about: what results.json says besides.
    """
    found = dict(before)
    for name, recipe in recipes.items():
        train_apart(recipe, strategy)
        cache = folder / f"{Path(recipe.output).name}.json"
        found[name] = kept(cache, partial(measure, recipe.output))
        print(*changes([{"rows": table(found)}]), sep="\n", flush=True)
        write_results(folder, table(found), **about)


def from_command_line(about: str | None, defaults: Setting) -> tuple[Path, Setting]:
    """The folder of a study, and `defaults` with what the command line says otherwise."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("folder", type=Path)
    for key, value in vars(defaults).items():
        parser.add_argument(f"--{key.replace('_', '-')}", type=type(value), default=value)
    chosen = vars(parser.parse_args())
    return chosen.pop("folder"), type(defaults)(**chosen)


def train_apart(recipe: Recipe, strategy: Strategy) -> None:
    """Train in a process of its own, whose memory goes with it; go on, or do nothing, where there
    is something already."""
    with ProcessPoolExecutor(1, get_context("spawn")) as apart:
        apart.submit(train_once, recipe, strategy).result()


def train_once(recipe: Recipe, strategy: Strategy) -> None:
    """Train, or go on training, unless that is done; `strategy` samples the answers of GRPO."""
    folder = Path(recipe.output)
    if (folder / "config.json").exists():
        return
    begun = (folder / RECIPE).is_file()
    train(recipe, strategy=strategy if recipe.method == "grpo" else direct, resume=begun)


def kept(cache: Path, measure: Callable[[], Values]) -> Values:
    """What `measure` finds, or what it found before, which `cache` holds."""
    if not cache.exists():
        write_whole(cache, json.dumps(measure()))
    return json.loads(cache.read_text(encoding="utf-8"))


def rows_of(
    found: Mapping[str, Values], columns: Sequence[str], *, start: str, before: Sequence[str] = ()
) -> list[Row]:
    """A row for each model: each measure's share, and its change from `start` with the paired
    interval; none for `start` and what came `before` it."""
    fixed = (*before, start)
    rows = []
    for name, values in found.items():
        compared = {} if name in fixed else found[start]
        cells = {column: _cell(values[column], compared.get(column)) for column in columns}
        rows.append({"model": name, **cells})
    return rows


def _cell(values: Sequence[float], start: Sequence[float] | None) -> dict[str, float]:
    mean = sum(values) / len(values)
    if start is None:
        return {"value": mean}
    changes = [a - b for a, b in zip(values, start, strict=True)]
    half = Z95 * stdev(changes) / math.sqrt(len(changes))
    change = sum(changes) / len(changes)
    return {"value": mean, "change": change, "low": change - half, "high": change + half}


def write_results(folder: Path, rows: Sequence[Row], **about: Any) -> None:
    """Write the table as results.json, with the command that makes it."""
    written = envelope(list(rows), [], command=command_line(), **about)
    write_whole(folder / "results.json", json.dumps(written, indent=1) + "\n")
