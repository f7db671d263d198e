"""The rows of a file, numbered as people number them; nothing is read into them yet.

A row that cannot be read is an error as a value, so that all bad rows of a file can be listed.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mm.errors import UserError

from .columns import (
    as_whole,
    features_in,
    named,
    whole_columns,
    whole_numbers,
    without_nulls,
)

if TYPE_CHECKING:
    import pyarrow

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")


class BadData(UserError):
    """Rows that cannot be used; a line for each fault, for people."""


class Record(NamedTuple):
    """A row as its file has it: `number` is the line of a text file, or counts rows from 1."""

    number: int
    fields: Any


class Arrow(Sequence[Record]):
    """The rows of a table that may be larger than memory.

    `features` is what `datasets` says of the columns, by which classes have names.
    """

    def __init__(self, table: pyarrow.Table, features: Mapping[str, Any] | None = None) -> None:
        self._table = table
        self._features = features or {}
        self._whole = whole_columns(table)

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        from pyarrow import ArrowException

        try:
            return Record(index + 1, self._fields(index))
        except UnicodeDecodeError as error:
            found = f"byte {error.object[error.start]:#04x}"
            return Record(index + 1, ValueError(f"expected UTF-8 text, found {found} in it"))
        except (ValueError, ArrowException) as error:
            return Record(index + 1, ValueError(f"expected a row, found that {_line(error)}"))

    def _fields(self, index: int) -> Any:
        (fields,) = self._table.slice(index, 1).to_pylist()
        return without_nulls({key: self._value(key, value) for key, value in fields.items()})

    def _value(self, key: str, value: Any) -> Any:
        return as_whole(value) if key in self._whole else named(value, self._features.get(key))


def is_data(path: Path) -> bool:
    """Whether `path` is named, or laid out, like something that holds rows."""
    return path.suffix.lower() in SUFFIXES or os.path.isfile(path / "dataset_info.json")


def read_records(path: Path) -> Sequence[Record]:
    """The rows of a CSV, JSON Lines, JSON or parquet file, or of a folder that `datasets` saved.

    Raises:
        BadData: there is no such file, its form is unknown, or it has no rows.
    """
    if path.is_dir():
        records = _folder_records(path)
    elif reader := _READERS.get(path.suffix.lower()):
        records = reader(path)
    else:
        raise BadData(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}")
    if not records:
        raise BadData(f"{path}: expected at least one row, found none")
    return records


def brief(value: object) -> str:
    """`value` short enough for an error."""
    if value is None:
        return "nothing"
    text = repr(value[:60] if isinstance(value, str | bytes) else value)
    return text if len(text) <= 60 else text[:57] + "..."


def _csv_records(path: Path) -> Sequence[Record]:
    text = _text(path)
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)  # spreadsheets of some countries write semicolons
    csv.field_size_limit(2**31 - 1)  # a cell may hold an image
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    numbers, rows = [], []
    try:
        reader.fieldnames = _header(path, reader.fieldnames or (), header)
        for fields in reader:
            numbers.append(reader.line_num)
            rows.append(fields)
    except csv.Error as error:
        raise BadData(f"{path}, row {reader.line_num}: expected CSV, found {error}") from None
    rows = whole_numbers(rows, texts=True)
    return [Record(n, fields) for n, fields in zip(numbers, rows, strict=True)]


def _header(path: Path, names: Sequence[str], header: str) -> list[str]:
    columns = [name.strip().lower() for name in names]
    if not {"image", "question", "answer"} <= set(columns):
        found = header.strip()[:80]
        raise BadData(f"{path}, row 1: expected columns image,question,answer, found {found!r}")
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise BadData(f"{path}, row 1: expected each column once, found {twice[0]!r} again")
    return columns


def _jsonl_records(path: Path) -> Sequence[Record]:
    lines = _bytes(path).removeprefix(b"\xef\xbb\xbf").split(b"\n")
    numbers = [n for n, line in enumerate(lines, start=1) if line.strip()]
    rows = whole_numbers([parse_row(lines[n - 1]) for n in numbers])
    return [Record(n, fields) for n, fields in zip(numbers, rows, strict=True)]


def _json_records(path: Path) -> Sequence[Record]:
    rows = parse_row(_text(path).encode())
    if not isinstance(rows, list):
        found = rows if isinstance(rows, ValueError) else brief(rows)
        raise BadData(f"{path}: expected a list of rows, found {found}; one row a line is .jsonl")
    return [Record(n, row) for n, row in enumerate(whole_numbers(rows), start=1)]


def _parquet_records(path: Path) -> Sequence[Record]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path, memory_map=True)
        described = (table.schema.metadata or {}).get(b"huggingface")
        return _arrow(path, table, features_in(described))
    except BadData:
        raise
    except (OSError, ValueError, pyarrow.ArrowException) as error:  # damaged names are ValueErrors
        raise BadData(f"{path} cannot be read: {_line(error)}") from None


def _folder_records(path: Path) -> Sequence[Record]:
    import pyarrow
    from datasets import Dataset, load_from_disk

    try:
        found = load_from_disk(str(path))
    except (OSError, ValueError, KeyError, TypeError, pyarrow.ArrowException) as error:
        raise BadData(f"{path} is no folder that datasets saved: {_line(error)}") from None
    if not isinstance(found, Dataset):
        splits = ", ".join(str(path / str(name)) for name in found)
        raise BadData(f"{path} holds several splits: give one of {splits}")
    described = (path / "dataset_info.json").read_bytes()
    return _arrow(path, found.with_format("arrow")[:], features_in(described))


def _arrow(path: Path, table: pyarrow.Table, features: Mapping[str, Any]) -> Arrow:
    names = table.schema.names
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadData(f"{path}: expected each column once, found {twice[0]!r} again")
    return Arrow(table, features)


_READERS: Mapping[str, Callable[[Path], Sequence[Record]]] = {
    ".csv": _csv_records,
    ".tsv": _csv_records,
    ".jsonl": _jsonl_records,
    ".json": _json_records,
    ".parquet": _parquet_records,
}


def parse_row(line: bytes) -> Any:
    """The JSON in `line`; where there is none an error as a value."""
    try:
        text = line.decode("utf-8")
        found = without_nulls(json.loads(text, object_pairs_hook=_once), schemas=True)
        if "\\u" in text:
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except UnicodeDecodeError as error:
        return ValueError(f"expected UTF-8 text, found byte {line[error.start]:#04x} in it")
    except UnicodeEncodeError as error:
        return ValueError(f"expected text, found half a character {error.object[error.start]!a}")
    except (ValueError, RecursionError) as error:
        return ValueError(f"expected JSON, found that {error}")


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:60]!r} is there twice")
    return found


def _text(path: Path) -> str:
    content = _bytes(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        byte = f"{content[error.start]:#04x}"
        raise BadData(
            f"{path}, row {row}: expected UTF-8 text, found byte {byte}: save the file as UTF-8"
        ) from None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror}") from None


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
