"""What the studies of GRPO share: trainings that go on where they were, answers that are kept, and
a table of what changed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import stdev
from typing import Any

from mm.session import Strategy
from mm.strategies.single import direct
from training.evaluation.intervals import Z95
from training.evaluation.results import Row, envelope
from training.finetune.output_folder import RECIPE
from training.finetune.recipe import Recipe
from training.finetune.run import train
from training.trainers.checkpoints import write_whole

Values = Mapping[str, Sequence[float]]
"""Each measure of each question, in the order of the questions."""


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


def write_results(folder: Path, rows: Sequence[Row], command: str, **about: Any) -> None:
    """Write the table as results.json."""
    written = envelope(list(rows), [], command=command, **about)
    (folder / "results.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
