"""The table as people read it, at most 100 columns wide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from rich import box
from rich.console import Console
from rich.table import Table

from .results import Row, label_of

WIDTH = 100


def _share(key: str, form: str, row: Row) -> str:
    return "" if row[key] is None else format(100 * row[key], form)


def _number(key: str, form: str, row: Row) -> str:
    return format(row[key], form)


Cell = Callable[[Row], str]
NUMBERS: Mapping[str, Cell] = {
    "n": partial(_number, "n", "d"),
    "right": partial(_share, "accuracy", ".1f"),
    "95 %": lambda row: f"{100 * row['low']:.1f}-{100 * row['high']:.1f}",
    "vis-\nual": partial(_number, "visual_tokens", ".0f"),
    "looks": partial(_number, "looks", ".2f"),
    "box\nok": partial(_share, "valid_boxes", ".0f"),
    "box\nhit": partial(_share, "box_recall", ".0f"),
    "no\nwhy": partial(_share, "empty_thoughts", ".0f"),
    "pat-\nches": partial(_number, "patches", ".0f"),
    "pre-\nfill": partial(_number, "computed_tokens", ".0f"),
    "new": partial(_number, "generated_tokens", ".0f"),
    "s": partial(_number, "seconds", ".2f"),
    "fail": partial(_number, "failures", "d"),
}
"""Columns; one that says nothing in any row is left out. In per cent: boxes that could be shown,
places that had to be looked at and were, replies to what was shown that hold no thought."""


def print_table(title: str, rows: Sequence[Row], pairs: Sequence[Row]) -> None:
    """Print the rows of an evaluation and the differences of its pairs, all in per cent."""
    console = _console()
    console.print(f"{title}; failures count as wrong", soft_wrap=True)
    console.print(_rows_table(rows))
    if pairs:
        print_pairs(pairs)


def print_pairs(pairs: Sequence[Row]) -> None:
    """Print differences, in points."""
    console = _console()
    console.print("Differences in points, on the same items (95 % interval):")
    console.print(_pairs_table(pairs))


def _console() -> Console:
    """Where names are printed as they are, square brackets and all."""
    return Console(width=WIDTH, highlight=False, markup=False)


def _rows_table(rows: Sequence[Row]) -> Table:
    told = {name: cell for name, cell in NUMBERS.items() if any(map(cell, rows))}
    table = _table("task", "strategy")
    for name in told:
        table.add_column(name, justify="right", no_wrap=True)
    before = ""
    for row in rows:
        if before and row["task"] != before:
            table.add_section()
        before = row["task"]
        table.add_row(row["task"], label_of(row), *(cell(row) for cell in told.values()))
    return table


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
