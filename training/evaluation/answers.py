"""Which questions were answered rightly, in the file of a table; two files compared by them.

A control that is a training of its own has a table of its own: only the questions are the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mm.errors import UserError, door, quote

from .results import Graded, Results, Row, groups_of, label_of, pair_of

RESULT = ("rows", "pairs", "answers", "command", "measured_at", "limit")
"""Of a file, what may differ between two that measured the same."""

REMEDY = "give what `mm eval --out` writes"


@dataclass(frozen=True)
class Answer:
    """Whether a question was answered rightly; `about` is what it shares with others."""

    id: str
    correct: bool
    about: str


@dataclass(frozen=True)
class RowKey:
    """Which row of a table it is."""

    task: str
    strategy: str
    control: str

    @property
    def label(self) -> str:
        """The strategy's name, with the control in brackets."""
        return label_of(vars(self))


@dataclass(frozen=True)
class Table:
    """A file of `mm eval`.

    Attributes:
        name: tells it from the other.
        about: what the table depends on.
        answers: of each of its rows.
    """

    name: str
    about: Mapping[str, Any] = field(repr=False)
    answers: Mapping[RowKey, Sequence[Answer]] = field(repr=False)

    def asked(self, task: str) -> dict[str, Any]:
        """What the questions of `task` are drawn from; a file's by its bytes, a folder's by what is
        in it: "" in tables of versions that did not look."""
        if "questions" in self.about:
            return {"questions": self.about["questions"]}
        level = self.about.get("level")
        level = level.get(task) if isinstance(level, Mapping) else level
        return {"seed": self.about.get("seed"), "level": level}


@dataclass(frozen=True)
class Compared:
    """Pairs of two tables' rows; `notes` says what was left out, a line each."""

    pairs: Sequence[Row]
    notes: Sequence[str]


def answers_of(task: str, results: Results) -> dict[str, Any]:
    """The answers to `task`, as a file has them: a digit a question, 1 for right, - for unasked.

    Where questions share images or clips there are `groups`, a number a question.
    """
    longest = max(results.values(), key=len)
    ids, groups = [o.id for o in longest], groups_of(longest)
    number = {group: at for at, group in enumerate(dict.fromkeys(groups))}
    shared = {"groups": [number[group] for group in groups]} if len(number) < len(ids) else {}
    right = {condition.label: _digits(ids, outcomes) for condition, outcomes in results.items()}
    return {"task": task, "ids": ids, **shared, "right": right}


def as_text(table: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]) -> str:
    """The JSON of `table` and its `answers`, each task's on one line."""
    lines = ",\n".join(f"  {json.dumps(each)}" for each in answers)
    return f'{json.dumps(table, indent=1)[:-2]},\n "answers": [\n{lines}\n ]\n}}\n'


def read_tables(*paths: Path) -> list[Table]:
    """The tables in files, named by the files: by their last part where that tells them apart.

    Raises:
        UserError: one cannot be read, or holds no answers.
    """
    stems = [path.stem for path in paths]
    names = stems if len(set(stems)) == len(stems) else [str(path) for path in paths]
    return [_read(path, name) for path, name in zip(paths, names, strict=True)]


def compare(
    a: Table, b: Table, *, strategy: str | None = None, against: str | None = None
) -> Compared:
    """Each row of `a` minus its counterpart in `b`, on the questions that both answered.

    Rows of one task and control are counterparts: those of strategies with the same name, and of
    the one strategy that only `a` has and the one that only `b` has.

    Args:
        strategy: of `a`, this alone, with its controls; or one row, by its control in brackets.
        against: that of `b`; None for the same name.

    Raises:
        UserError: they have no counterparts, or were asked different questions.
    """
    if strategy is None:
        chosen = _counterparts(a, b)
    else:
        chosen = _pairs(_rows(a, strategy), _rows(b, against or strategy))
    if not chosen:
        raise UserError(
            f"no row of {a.name} has a counterpart in {b.name}: they have {_told(a)}; and "
            f"{_told(b)}: name two with --strategy and --against"
        )
    for task in dict.fromkeys(key.task for key, _ in chosen):
        _check_asked(task, a, b)
    found = [_compared(a, b, *keys) for keys in chosen]
    notes = list(dict.fromkeys(note for _, each in found for note in each))
    if strategy is None:
        notes += _unpaired(a, b, chosen)
    return Compared([pair for pair, _ in found], notes)


def differing(a: Table, b: Table) -> dict[str, tuple[Any, Any]]:
    """What the two tables depend on and do not share, as each has it."""
    names = [name for name in {**a.about, **b.about} if name not in RESULT]
    both = {name: (a.about.get(name), b.about.get(name)) for name in names}
    return {name: (one, other) for name, (one, other) in both.items() if one != other}


def _digits(ids: Sequence[str], outcomes: Sequence[Graded]) -> str:
    right = {o.id: "01"[o.correct] for o in outcomes}
    return "".join(right.get(each, "-") for each in ids)


def _read(path: Path, name: str) -> Table:
    with door(f"{str(path)!r} cannot be read as a table", UserError, REMEDY):
        table = json.loads(path.read_text(encoding="utf-8"))
        rows = table["rows"]
    if "answers" not in table:
        raise UserError(f"{str(path)!r} does not say which answers are right: measure it again")
    with door(f"{str(path)!r} is spoilt", UserError, REMEDY):
        entries = {entry["task"]: entry for entry in table["answers"]}
        return Table(name, table, dict(_answered(row, entries[row["task"]]) for row in rows))


def _answered(row: Row, entry: Mapping[str, Any]) -> tuple[RowKey, list[Answer]]:
    """A row with its answers.

    Raises:
        ValueError: the answers are not those of the row.
    """
    label, ids = label_of(row), entry["ids"]
    groups = entry.get("groups") or range(len(ids))
    said = zip(ids, entry["right"][label], groups, strict=True)
    answers = [
        Answer(str(i), digit == "1", str(group)) for i, digit, group in said if digit in "01"
    ]
    right, n = sum(answer.correct for answer in answers), len({answer.id for answer in answers})
    if n != len(answers) or n != row["n"] or abs(right - row["accuracy"] * n) > 1e-6 * n:
        raise ValueError(f"{right} right answers of {n} are not what the row of {label} says")
    return RowKey(str(row["task"]), str(row["strategy"]), str(row["control"])), answers


Rows = Mapping[tuple[str, str], RowKey]
"""Rows of one strategy by task and control; those named with their control by task and ""."""


def _rows(table: Table, named: str) -> Rows:
    """Those that are `named` by their strategy or their label."""
    by_name = {(c.task, c.control): c for c in table.answers if c.strategy == named}
    by_label = {(c.task, ""): c for c in table.answers if c.label == named}
    return by_name or by_label


def _pairs(a: Rows, b: Rows) -> list[tuple[RowKey, RowKey]]:
    return [(row, b[at]) for at, row in a.items() if at in b]


def _counterparts(a: Table, b: Table) -> list[tuple[RowKey, RowKey]]:
    mine, theirs = _strategies(a), _strategies(b)
    both = [(name, name) for name in mine if name in theirs]
    only_a = [name for name in mine if name not in theirs]
    only_b = [name for name in theirs if name not in mine]
    if len(only_a) == len(only_b) == 1:
        both.append((only_a[0], only_b[0]))
    return [pair for one, other in both for pair in _pairs(_rows(a, one), _rows(b, other))]


def _strategies(table: Table) -> list[str]:
    return list(dict.fromkeys(key.strategy for key in table.answers))


def _told(table: Table) -> str:
    return ", ".join(f"{c.task} by {c.label}" for c in table.answers) or "none"


def _check_asked(task: str, a: Table, b: Table) -> None:
    """Refuse two that were asked different questions under the same ids, or may have been."""
    mine, theirs = a.asked(task), b.asked(task)
    for table, asked in ((a, mine), (b, theirs)):
        if asked.get("questions") == "":
            raise UserError(
                f"{task}: {table.name} does not say which folder's questions were asked: measure "
                "it again"
            )
    if mine != theirs:
        names = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
        said = ", ".join(f"{n} {quote(mine.get(n))} and {quote(theirs.get(n))}" for n in names)
        raise UserError(
            f"{task}: {a.name} and {b.name} were asked different questions ({said}): "
            "measure both on the same"
        )


def _compared(a: Table, b: Table, mine: RowKey, theirs: RowKey) -> tuple[Row, list[str]]:
    """A pair, and what is said of the questions that only one answered.

    Raises:
        UserError: no question is in both.
    """
    first, second = a.answers[mine], b.answers[theirs]
    names = [f"{c.label} [{t.name}]" for c, t in ((mine, a), (theirs, b))]
    pair = pair_of(mine.task, (names[0], first), (names[1], second))
    if not pair["n"]:
        raise UserError(f"{mine.task}: {names[0]} and {names[1]} share no question")
    notes = [*_alone(mine.task, a, first, second), *_alone(mine.task, b, second, first)]
    return pair, notes


def _alone(
    task: str, table: Table, answers: Sequence[Answer], others: Sequence[Answer]
) -> Iterator[str]:
    known = {answer.id for answer in others}
    if alone := [answer.id for answer in answers if answer.id not in known]:
        more = ", ..." if len(alone) > 1 else ""
        yield f"{task}: {len(alone)} questions only in {table.name} left out ({alone[0]}{more})"


def _unpaired(a: Table, b: Table, chosen: Sequence[tuple[RowKey, RowKey]]) -> Iterator[str]:
    for table, paired in ((a, {one for one, _ in chosen}), (b, {other for _, other in chosen})):
        for key in table.answers:
            if key not in paired:
                yield f"{key.task} by {key.label} only in {table.name}: left out"
