"""A person's own questions, read from a CSV, JSON Lines or JSON file.

A row names a picture, a question and its answer. All rows are checked, pictures included, before
any is answered; pictures are then opened again one at a time, so that a large set needs little
memory.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from mm.images import BadImage, open_image
from mm.trace import Sample
from mm.types import Conversation, Image, Message, Part, Text, message, user

from .items import BadTarget, Item

SUFFIXES = (".csv", ".jsonl", ".json")
SHOWN = 20
"""How many bad rows an error lists; the rest are counted."""

Row = Mapping[str | None, Any]
Numbered = tuple[int, Row | ValueError]

_URL = re.compile(r"(?:[a-z][a-z0-9+.-]+://|data:)", re.IGNORECASE)


@dataclass(frozen=True)
class Questions:
    """The rows of `path` that will be asked, in its order, numbered as an editor numbers lines."""

    path: Path
    rows: tuple[Numbered, ...]
    anywhere: bool = False

    def __iter__(self) -> Iterator[Item]:
        for number, row in self.rows:
            yield Item(self._sample(number, row))

    def __len__(self) -> int:
        return len(self.rows)

    def check(self) -> None:
        """Read every row, pictures included.

        Raises:
            BadTarget: with a line for each row that cannot be asked.
        """
        bad = [line for line in (self._complaint(n, row) for n, row in self.rows) if line]
        if bad:
            more = [f"... and {len(bad) - SHOWN} more bad rows"] if len(bad) > SHOWN else []
            raise BadTarget("\n".join([*bad[:SHOWN], *more]))

    def _complaint(self, number: int, row: Row | ValueError) -> str | None:
        try:
            self._sample(number, row)
        except ValueError as error:
            return f"{self.path}, row {number}: {error}"
        return None

    def _sample(self, number: int, row: Row | ValueError) -> Sample:
        if isinstance(row, ValueError):
            raise row
        if not isinstance(row, Mapping):
            raise ValueError(f"expected an object, found {_brief(row)}")
        if None in row:
            raise ValueError(f"expected {len(row) - 1} columns, found {_brief(row[None])} too many")
        prompt = self._native(row) if "messages" in row else self._plain(row)
        tags = {"task": self.path.stem, "row": number}
        name = f"{self.path.stem}-{number}"
        return Sample(name, prompt, _text(row, "answer"), _choices(row), tags)

    def _plain(self, row: Row) -> Conversation:
        pictures = row["images"] if "images" in row else [row.get("image")]
        if not isinstance(pictures, list) or not pictures:
            raise ValueError(f"expected a list of paths in 'images', found {_brief(pictures)}")
        return (user(*[self._picture(p) for p in pictures], _text(row, "question")),)

    def _native(self, row: Row) -> Conversation:
        """What is asked: up to the last user message, for a reply would give the answer away."""
        said, pictures = row["messages"], row.get("images") or []
        if not isinstance(said, list) or not isinstance(pictures, list):
            raise ValueError("expected lists in 'messages' and 'images'")
        if (holes := sum(_count_images(m) for m in said)) != len(pictures):
            raise ValueError(f"expected {holes} pictures in 'images', found {len(pictures)}")
        asked = max((i for i, m in enumerate(said) if _role(m) == "user"), default=None)
        if asked is None:
            raise ValueError("expected a user message, found none")
        waiting = iter(pictures)
        return tuple(self._message(m, waiting) for m in said[: asked + 1])

    def _message(self, value: Any, waiting: Iterator[object]) -> Message:
        role, parts = _role(value), _content(value)
        if role not in ("system", "user", "assistant") or value.get("tool_calls"):
            raise ValueError(f"expected only words before the question, found {_brief(value)}")
        return message(role, *[self._part(part, waiting) for part in parts])

    def _part(self, value: Any, waiting: Iterator[object]) -> Part:
        kind = value.get("type") if isinstance(value, dict) else None
        if kind == "image":
            return self._picture(next(waiting))
        if kind == "text" and isinstance(value.get("text"), str):
            return Text(value["text"])
        raise ValueError(f"expected a text or image part, found {_brief(value)}")

    def _picture(self, path: object) -> Image:
        if not isinstance(path, str) or not path.strip():
            raise ValueError(f"expected the path of a picture, found {_brief(path)}")
        if _URL.match(path):
            raise ValueError(f"expected a path, found the URL {path[:80]!r}: download the picture")
        if not self.anywhere and _leaves_folder(path):
            raise ValueError(
                f"expected a path inside the file's folder, found {path!r} (--anywhere)"
            )
        try:
            return open_image(self.path.parent / path)
        except BadImage as error:
            raise ValueError(f"expected a picture, found that {error}") from None


def read_questions(path: Path, *, limit: int | None = None, anywhere: bool = False) -> Questions:
    """The first `limit` questions of `path`, checked.

    Rows have the columns or keys `image`, `question`, `answer`, and if they like
    `choices` (a list, in CSV joined by "|"); a JSON row may have `images`, or be a native row of
    `messages`, `images`, `answer`. Pictures are found from the file's folder; `anywhere` lets them
    lie outside it.

    Raises:
        BadTarget: there is no such file, its form is unknown, or a row cannot be asked.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise BadTarget(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadTarget(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadTarget(f"{path}: expected UTF-8 text, found byte {error.start} is not") from None
    rows = tuple(_ROWS[path.suffix.lower()](path, text))[:limit]
    if not rows:
        raise BadTarget(f"{path}: expected at least one row, found none")
    questions = Questions(path, rows, anywhere)
    questions.check()
    return questions


def _csv_rows(path: Path, text: str) -> Iterator[Numbered]:
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)  # spreadsheets of some countries write semicolons
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns = [c.strip().lower() for c in reader.fieldnames or ()]
    if not {"image", "question", "answer"} <= set(columns):
        found = header.strip()[:80]
        raise BadTarget(f"{path}, row 1: expected columns image,question,answer, found {found!r}")
    reader.fieldnames = columns
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise BadTarget(f"{path}, row {reader.line_num}: expected CSV, found {error}") from None


def _jsonl_rows(path: Path, text: str) -> Iterator[Numbered]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, _parse(line)


def _json_rows(path: Path, text: str) -> Iterator[Numbered]:
    rows = _parse(text)
    if not isinstance(rows, list):
        found = rows if isinstance(rows, ValueError) else _brief(rows)
        raise BadTarget(f"{path}: expected a list of rows, found {found}")
    yield from enumerate(rows, start=1)


_ROWS = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".json": _json_rows}


def _parse(text: str) -> Any:
    """The JSON in `text`; where there is none an error as a value, so that all are listed."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return ValueError(f"expected JSON, found that {error}")


def _text(row: Row, key: str) -> str:
    value = row.get(key)
    known = isinstance(value, str | int | float) and not isinstance(value, bool)
    if not known or not str(value).strip():
        raise ValueError(f"expected text in {key!r}, found {_brief(value)}")
    return str(value).strip()


def _choices(row: Row) -> tuple[str, ...]:
    value = row.get("choices") or []
    choices = value.split("|") if isinstance(value, str) else value
    if not isinstance(choices, list):
        raise ValueError(f"expected a list in 'choices', found {_brief(value)}")
    return tuple(str(c).strip() for c in choices)


def _role(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"expected a message, found {_brief(value)}")
    return value.get("role")


def _content(value: Any) -> list[Any]:
    content = value.get("content") if isinstance(value, dict) else None
    if content is None and _role(value) == "assistant":  # it only calls a tool
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise ValueError(f"expected text or a list in 'content', found {_brief(content)}")
    return content


def _count_images(value: Any) -> int:
    return sum(isinstance(p, dict) and p.get("type") == "image" for p in _content(value))


def _leaves_folder(path: str) -> bool:
    windows = PureWindowsPath(path)  # understands both slashes
    return bool(windows.anchor or ".." in windows.parts)


def _brief(value: object) -> str:
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
