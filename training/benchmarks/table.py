"""The table as people read it, at most 100 columns wide."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from .rows import Row

WIDTH = 100
NUMBERS = (
    "n",
    "right",
    "95 %",
    "visual\ntokens",
    "looks",
    "valid\nboxes",
    "pat-\nches",
    "pre-\nfill",
    "new",
    "s",
    "fail",
)


def print_table(title: str, rows: Sequence[Row], pairs: Sequence[Row]) -> None:
    """Print the rows of an evaluation and the differences of its pairs, all in per cent."""
    console = Console(width=WIDTH, highlight=False)
    console.print(f"{title}; failures count as wrong", markup=False, soft_wrap=True)
    console.print(_rows_table(rows))
    if pairs:
        console.print("Differences in points, on the same items (95 % interval):")
        console.print(_pairs_table(pairs))


def _rows_table(rows: Sequence[Row]) -> Table:
    table = _table("task", "strategy")
    for name in NUMBERS:
        table.add_column(name, justify="right", no_wrap=True)
    before = ""
    for row in rows:
        if before and row["task"] != before:
            table.add_section()
        before = row["task"]
        table.add_row(*_cells(row))
    return table


def _cells(row: Row) -> list[str]:
    boxes = "" if row["valid_boxes"] is None else f"{100 * row['valid_boxes']:.1f}"
    return [
        row["task"],
        f"{row['strategy']} ({row['control']})" if row["control"] else row["strategy"],
        str(row["n"]),
        f"{100 * row['accuracy']:.1f}",
        f"{100 * row['low']:.1f}-{100 * row['high']:.1f}",
        f"{row['visual_tokens']:.0f}",
        f"{row['looks']:.2f}",
        boxes,
        f"{row['patches']:.0f}",
        f"{row['computed_tokens']:.0f}",
        f"{row['generated_tokens']:.0f}",
        f"{row['seconds']:.2f}",
        str(row["failures"]),
    ]


def _pairs_table(pairs: Sequence[Row]) -> Table:
    table = _table("task", "this", "minus this")
    for name in ("n", "points", "95 %"):
        table.add_column(name, justify="right", no_wrap=True)
    for pair in pairs:
        low, value, high = (100 * pair[key] for key in ("low", "difference", "high"))
        interval = f"{low:+.1f} to {high:+.1f}"
        table.add_row(pair["task"], pair["a"], pair["b"], str(pair["n"]), f"{value:+.1f}", interval)
    return table


def _table(*words: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    for word in words:
        table.add_column(word, overflow="fold")
    return table
