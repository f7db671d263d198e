"""The rows of `mm ask --batch`: read from their file, and opened as what is asked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mm
from mm.errors import UserError
from training.data import Access
from training.data.formats.declaration import (
    CLIPS,
    HARMLESS,
    IMAGES,
    clips_of,
    images_of,
    is_empty,
    reason_of,
)
from training.data.images import open_row_image, row_file
from training.data.readers import brief, parse_row
from vision.depth_source import RATIONALE, TAG

from .ask import How, clips_with

READ = frozenset({"id", "question", "answer", "depth", "subtitles", RATIONALE, *IMAGES, *CLIPS})
"""The columns of a row; `answer` is for whoever compares, `depth` the map of the first image,
`rationale` for `mm train depth`."""

ANYWHERE = Access(absolute_paths=True)
"""Whoever asks chose the rows file: its images may lie anywhere on this machine."""


@dataclass(frozen=True)
class Row:
    """A line of the rows file, numbered from 1. `fields` is None where it cannot be read; `fault`
    then says why."""

    number: int
    fields: dict[str, Any] | None
    fault: str = ""

    @property
    def key(self) -> str:
        """What tells this row from the others: its id, or its number."""
        named = (self.fields or {}).get("id")
        return f"row {self.number}" if named is None else f"id {named!r}"


def read_rows(path: Path) -> list[Row]:
    """Every line of `path` that is not blank.

    Raises:
        UserError: there is no such file, it has no rows, or two share an id.
    """
    if path.suffix.lower() in (".csv", ".tsv", ".parquet"):
        raise UserError(
            f"--batch reads JSONL, not {path.name!r}: `mm data convert {path.name} --out "
            f"{path.stem}.jsonl` makes it, and `mm eval` reads it as it is"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the rows in {str(path)!r}: {error}") from None
    lines = enumerate(text.split("\n"), 1)
    rows = [_row(number, line) for number, line in lines if line.strip()]
    if not rows:
        raise UserError(f"{str(path)!r} has no rows")
    _refuse_twins(rows, path)
    return rows


def _row(number: int, line: str) -> Row:
    found = parse_row(line.encode())
    if isinstance(found, ValueError):
        return Row(number, None, str(found))
    if not isinstance(found, dict):
        return Row(number, None, "expected a JSON object")
    return Row(number, found)


def _refuse_twins(rows: list[Row], path: Path) -> None:
    first: dict[str, int] = {}
    for row in rows:
        if row.key in first:
            twins = f"rows {first[row.key]} and {row.number}"
            raise UserError(f"{twins} of {str(path)!r} share the {row.key}")
        first[row.key] = row.number


def sample_of(row: Row, folder: Path, how: How) -> mm.Sample:
    """What a row asks; the files that it names are opened, relative to `folder`.

    Raises:
        UserError: it cannot be asked; the line says its number.
    """
    if row.fields is None:
        raise UserError(f"row {row.number}: {row.fault}")
    _refuse_unread(row)
    question = row.fields.get("question")
    if not isinstance(question, str) or not question.strip():
        raise UserError(f'row {row.number} needs a "question" in text, got {brief(question)}')
    try:
        named, clips = images_of(row.fields), clips_of(row.fields)
        if not (named or clips):
            raise ValueError('expected "image" (a path), "images" (a list) or "video", found none')
        shown: list[mm.Image | mm.Clip] = [open_row_image(i, folder, ANYWHERE) for i in named]
        said = row.fields.get("subtitles") or None
        said = said and row_file(said, folder, ANYWHERE)
        shown += clips_with([row_file(each, folder, ANYWHERE) for each in clips], said)
    except ValueError as error:
        raise UserError(f"row {row.number}: {error}") from None
    id = None if row.fields.get("id") is None else str(row.fields["id"])
    made = mm.question(question, *shown, id=id, choices=how.choices, system=how.system)
    depth = row.fields.get("depth")
    return replace(made, tags={TAG: str(folder / str(depth))}) if depth else made


def _refuse_unread(row: Row) -> None:
    """Refuse what would be lost, as the readers of rows that train do."""
    for key, value in (row.fields or {}).items():
        if key not in READ | HARMLESS and not is_empty(value):
            why = reason_of(key) or f"rows have {', '.join(sorted(READ))}"
            why = "give --choices" if key == "choices" else why
            raise UserError(f"row {row.number}: {key[:60]!r} would be lost: {why}")
