"""Result files as Markdown: each view is a function from the files it was given to lines.

A result file is what `mm eval --out`, `mm bench --out` or a module of `training.benchmarks` writes:
`rows`, `pairs`, the `command`, and `measured_at`, the commit it was measured at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from typing import Any

from training.tabletop.scene import Level

from .intervals import wilson
from .results import Row, label_of

File = Mapping[str, Any]
View = Callable[..., list[str]]
DEPTHS = ("flipped", "shuffled", "constant", "noise")
CONTROLS = ("", "random", "true", "no-look", "full", *DEPTHS, "blind")
"""The first columns of `controls`, in this order, where some row has them; others follow."""


def controls(files: Sequence[File], task: str) -> list[str]:
    """Right answers to `task` in per cent: a line a strategy, a column a control."""
    rows = [row for row in _rows(files) if row["task"] == task]
    cells = {(row["strategy"], row["control"]): _right(row) for row in rows}
    named = [row["control"] for row in rows]
    columns = sorted({*named}, key=[*CONTROLS, *named].index)
    lines = {
        f"`{name}`": [cells.get((name, control), "") for control in columns]
        for name in dict.fromkeys(row["strategy"] for row in rows)
    }
    return _table([f"`{task}`", *(f"`{c}`" if c else "as it is" for c in columns)], lines)


def tasks(files: Sequence[File]) -> list[str]:
    """Right answers in per cent: a line a task and strategy."""
    lines = {f"`{row['task']}` by `{label_of(row)}`": [_right(row)] for row in _rows(files)}
    return _table(["task", "right"], lines)


def budgets(files: Sequence[File]) -> list[str]:
    """Right answers in per cent against visual tokens: a line a strategy and budget of an image."""
    lines = {
        f"`{label_of(row)}`, {file['budgets']['visual_tokens']} an image": [
            f"{row['visual_tokens']:.0f}",
            _right(row),
        ]
        for file in files
        for row in file["rows"]
    }
    return _table(["", "visual tokens an answer", "right"], lines)


def levels(files: Sequence[File]) -> list[str]:
    """Right answers in per cent without intervals: a line a level, a column a task's last row."""
    named = dict.fromkeys(row["task"] for row in _rows(files))
    lines = {}
    for file in files:
        right = {row["task"]: f"{100 * row['accuracy']:.1f}" for row in file["rows"]}
        lines[f"`{Level(file['level']).name.lower()}`"] = [right.get(task, "") for task in named]
    return _table(["level", *(f"`{task}`" for task in named)], lines)


def differences(files: Sequence[File]) -> list[str]:
    """Pairs on the same items, in points with their interval."""
    lines = {}
    for pair in (pair for file in files for pair in file["pairs"]):
        points, low, high = (100 * pair[key] for key in ("difference", "low", "high"))
        title = f"`{pair['task']}`: `{pair['a']}` minus `{pair['b']}`"
        lines[f"{title}, {pair['n']} items"] = [f"{points:+.1f} ({low:+.1f} to {high:+.1f})"]
    return _table(["difference", "points"], lines)


def runs(files: Sequence[File]) -> list[str]:
    """A line for each file, by its `note`: right answers in per cent, and how many were asked."""
    return _table(
        ["training", "right", "questions"],
        {file["note"]: [_right(file["rows"][0]), str(file["rows"][0]["n"])] for file in files},
    )


def ratios(files: Sequence[File]) -> list[str]:
    """Benchmark rows that compare: the median ratio and its spread, a column a dtype."""
    compared = [row for row in _rows(files) if row["ratio"] is not None]
    lines = {}
    for measure in dict.fromkeys(row["measure"] for row in compared):
        by_dtype: dict[str, str] = dict.fromkeys((_dtype(file) for file in files), "")
        for file in files:
            by_dtype |= {_dtype(file): _ratio(r) for r in file["rows"] if r["measure"] == measure}
        lines[measure] = list(by_dtype.values())
    return _table(["measure", *dict.fromkeys(_dtype(file) for file in files)], lines)


def looks(files: Sequence[File]) -> list[str]:
    """`mm bench replay`: cost after so many looks, replay / zoom, a column a kind of cost."""
    kinds = ("patches", "prefill", "seconds")
    found: dict[str, dict[str, str]] = {}
    for row in _rows(files):
        if said := re.match(r"\d+ px, (\d+) looks?, (\w+)", row["measure"]):
            found.setdefault(said[1], {})[said[2]] = f"{row['ours']:.4g} / {row['theirs']:.4g}"
        elif said := re.match(r"\d+ px, replay wins in (\w+) from", row["measure"]):
            cell = f"{row['ours']:.0f} looks"
            found.setdefault("`replay` is cheaper from", {})[said[1]] = cell
    lines = {name: [cells.get(kind, "never") for kind in kinds] for name, cells in found.items()}
    return _table(["looks", "patches encoded", "prompt tokens", "seconds"], lines)


def numbers(files: Sequence[File]) -> list[str]:
    """Benchmark rows as they are: ours, theirs where there is one, and the unit."""
    lines = {}
    for file in files:
        for row in file["rows"]:
            theirs = "" if row["theirs"] is None else _number(row["theirs"])
            where = f", {file['note']}" if file.get("note") else ""
            if row["ours"] is not None:
                lines[row["measure"] + where] = [_number(row["ours"]), theirs, row["unit"]]
    return _table(["measure", "ours", "theirs", "unit"], lines)


def changes(files: Sequence[File]) -> list[str]:
    """`grpo_repair`: per cent, and the change from `sft` with its interval."""
    rows = _rows(files)
    columns = [key for key, cell in rows[0].items() if isinstance(cell, Mapping)]
    lines = {f"`{row['model']}`": [_change(row[c]) for c in columns] for row in rows}
    return _table(["", *columns], lines)


def verifiers(files: Sequence[File]) -> list[str]:
    """`mm bench verifier`: areas under the ROC curve, a line a verifier."""
    areas = ("auc", "at_length", "steps")
    lines = {
        f"`{row['verifier']}`": [
            *("" if row[a] is None else f"{row[a]:.2f}" for a in areas),
            f"{row['n']:,}, {row['wrong']:,} wrong",
        ]
        for row in _rows(files)
    }
    head = ["area under the ROC curve", "answers", "of one length", "steps", "of"]
    return _table(head, lines)


def choosing(files: Sequence[File]) -> list[str]:
    """`mm bench verifier`: right answers in per cent, a line a way to choose, a column a number of
    draws; and what the way brings over the vote, with its interval."""
    found = [each for file in files for each in file["choosing"]]
    sizes = list(dict.fromkeys(each["k"] for each in found))
    cells = {(each["by"], each["k"]): _over_vote(each) for each in found}
    lines = {
        f"`{by}`": [cells[by, k] for k in sizes] for by in dict.fromkeys(e["by"] for e in found)
    }
    return _table(["chosen by", *(f"of {k}" for k in sizes)], lines)


def readings(files: Sequence[File]) -> list[str]:
    """`probe`: how many letters a linear probe reads in each view, beside chance."""
    lines = {row["strategy"]: [_right(row), f"{100 * row['chance']:.1f}"] for row in _rows(files)}
    return _table(["view", "letters read", "chance"], lines)


def counts(files: Sequence[File]) -> list[str]:
    """How many of so many are right, in per cent with their interval: a line each.

    Of counts in clusters it is that of fewer, by the row's `effect`.
    """
    lines = {}
    for row in _rows(files):
        effect = row.get("effect", 1.0)
        value, low, high = astuple(wilson(row["right"] / effect, row["n"] / effect))
        right = _right({"accuracy": value, "low": low, "high": high})
        lines[f"`{row['what']}`"] = [right, f"{row['n']:,}"]
    return _table(["", "right", "of"], lines)


def added(files: Sequence[File]) -> list[str]:
    """`depth_time`: medians over images, two of them with their intervals; a line a file."""
    lines = {}
    for file in files:
        (row,) = file["rows"]
        direct, depth, network = (_median(row[key]) for key in ("direct", "depth", "network"))
        more, times = _median(row["added"], spread=True), _median(row["ratio"], ".1f", spread=True)
        threads = f"{file['threads']} thread{'s'[: file['threads'] > 1]}"
        where = f"`{file['model']}`, {file['cpu']}, {threads}, {row['images']} images"
        lines[where] = [direct, depth, more, network, times]
    head = ["seconds an answer", "`direct`", "`depth`", "added", "of it the depth network"]
    return _table([*head, "times as long"], lines)


def minutes(files: Sequence[File]) -> list[str]:
    """How long each stage of the bundle takes."""
    return _table(
        ["stage", "minutes"], {f"`{row['stage']}`": [str(row["minutes"])] for row in _rows(files)}
    )


def commands(files: Sequence[File]) -> list[str]:
    """The commands that measured the files, and the commits they were measured at."""
    said = [f"{file['command']}   # measured at {file['measured_at']}" for file in files]
    return ["```sh", *said, "```"]


VIEWS: Mapping[str, View] = {
    view.__name__: view
    for view in (
        controls,
        tasks,
        budgets,
        levels,
        differences,
        runs,
        ratios,
        looks,
        numbers,
        changes,
        readings,
        verifiers,
        choosing,
        counts,
        added,
        minutes,
        commands,
    )
}


def _table(head: Sequence[str], lines: Mapping[str, Sequence[str]]) -> list[str]:
    rows = [head, ["---"] * len(head), *([name, *cells] for name, cells in lines.items())]
    return ["".join(f"| {cell} " if cell else "| " for cell in cells) + "|" for cells in rows]


def _rows(files: Sequence[File]) -> list[Row]:
    return [row for file in files for row in file["rows"]]


def _right(row: Row) -> str:
    interval = ""
    if row["low"] is not None:
        interval = f" ({100 * row['low']:.1f}-{100 * row['high']:.1f})"
    return f"{100 * row['accuracy']:.1f}{interval}"


def _ratio(row: Row) -> str:
    low, high = row["spread"]
    return f"{row['ratio']:.1f} ({low:.1f}-{high:.1f})"


def _median(cell: Mapping[str, float], form: str = ".3f", *, spread: bool = False) -> str:
    value, low, high = (format(cell[key], form) for key in ("value", "low", "high"))
    return f"{value} ({low}-{high})" if spread else value


def _dtype(file: File) -> str:
    return str(file.get("dtype", "ratio"))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _over_vote(choice: Mapping[str, Any]) -> str:
    said = f"{100 * choice['right']:.1f}"
    if choice["k"] == 1 or choice["by"] == "vote":
        return said
    over, low, high = (100 * choice[key] for key in ("over_vote", "low", "high"))
    return f"{said} ({over:+.1f}: {low:+.1f} to {high:+.1f})"


def _change(cell: Mapping[str, float]) -> str:
    said = f"{100 * cell['value']:.1f}"
    if "change" not in cell:
        return said
    change, low, high = (100 * cell[key] for key in ("change", "low", "high"))
    return f"{said} ({change:+.1f}: {low:+.1f} to {high:+.1f})"
