"""Accuracy against visual tokens: one plot from the tables that `mm eval --out` writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm.errors import UserError, quote


@dataclass(frozen=True)
class Point:
    """A row of a table: what a strategy is worth, in [0, 1] with its interval, at what cost.

    `visual_tokens` is the mean an answer took, looks included; `asked` is the number of visual
    tokens for each image that was asked for, None where the checkpoint's own was taken.
    """

    strategy: str
    visual_tokens: float
    accuracy: float
    low: float
    high: float
    n: int
    asked: int | None = None


def read_points(files: Sequence[Path], task: str) -> list[Point]:
    """The points of `task` in tables, controls left out, by strategy and visual tokens.

    Raises:
        UserError: a file is no table, or none has the task.
    """
    tables = [_table(file) for file in files]
    found = [
        _point(row, table)
        for table in tables
        for row in table["rows"]
        if row["task"] == task and not row["control"]
    ]
    if not found:
        known = sorted({row["task"] for table in tables for row in table["rows"]})
        raise UserError(f"no table has task {quote(task)}: they have {', '.join(known) or 'none'}")
    return sorted(found, key=lambda point: (point.strategy, point.visual_tokens))


def plot(points: Sequence[Point], task: str, out: Path) -> None:
    """Accuracy of each strategy against the visual tokens of an answer, as a PNG or SVG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for strategy in dict.fromkeys(point.strategy for point in points):
        mine = [point for point in points if point.strategy == strategy]
        accuracy = [100 * point.accuracy for point in mine]
        below = [100 * (point.accuracy - point.low) for point in mine]
        above = [100 * (point.high - point.accuracy) for point in mine]
        tokens = [point.visual_tokens for point in mine]
        axes.errorbar(tokens, accuracy, yerr=[below, above], marker="o", capsize=3, label=strategy)
    axes.set_xscale("log", base=2)
    ticks = sorted({round(point.visual_tokens) for point in points})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    counts = sorted({point.n for point in points})
    title = f"{task}, {' to '.join(map(str, counts))} questions, 95 % intervals"
    axes.set(xlabel="visual tokens an answer", ylabel="right, %", ylim=(0, 102), title=title)
    axes.legend()
    figure.savefig(out, dpi=120)


def _table(file: Path) -> dict[str, Any]:
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {str(file)!r}: {error}") from None
    if not isinstance(table, dict) or not isinstance(table.get("rows"), list):
        raise UserError(f"{str(file)!r} is no table: give what `mm eval --out` writes")
    return table


def _point(row: dict[str, Any], table: dict[str, Any]) -> Point:
    numbers = {key: row[key] for key in ("visual_tokens", "accuracy", "low", "high", "n")}
    asked = table.get("budgets", {}).get("visual_tokens")
    return Point(row["strategy"], asked=asked, **numbers)
