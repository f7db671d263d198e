"""A person's own questions, read from a CSV, JSON Lines or JSON file.

A row names a picture, a question and its answer. All rows are checked, pictures included, before any is
answered; pictures are then opened again one at a time, so that a large set needs little memory.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from mm.images import BadImage, open_image
from mm.trace import Sample
from mm.types import Conversation, Part, Role, Text, message
from training.tabletop import Item

SUFFIXES = (".csv", ".jsonl", ".json")
SHOWN = 20
"""How many bad rows an error lists; the rest are counted."""

Row = Mapping[str, Any]


class BadFile(ValueError):
    """A file of questions that cannot be used; a line for each bad row, with what was expected and found."""


@dataclass(frozen=True)
class Questions:
    """The rows of `path` that will be asked, in the file's order, numbered as an editor numbers lines."""

    path: Path
    rows: tuple[tuple[int, Row], ...]
    anywhere: bool = False

    def __iter__(self) -> Iterator[Item]:
        for number, row in self.rows:
            yield Item(self._sample(number, row), (), None)

    def __len__(self) -> int:
        return len(self.rows)

    def check(self) -> None:
        """Read every row, pictures included.

        Raises:
            BadFile: with a line for each row that cannot be asked.
        """
        bad = [line for line in (self._complaint(n, row) for n, row in self.rows) if line]
        if bad:
            more = [f"... and {len(bad) - SHOWN} more bad rows"] if len(bad) > SHOWN else []
            raise BadFile("\n".join([*bad[:SHOWN], *more]))

    def _complaint(self, number: int, row: Row) -> str | None:
        try:
            self._sample(number, row)
        except ValueError as error:
            return f"{self.path}, row {number}: {error}"
        return None

    def _sample(self, number: int, row: Row) -> Sample:
        if not isinstance(row, Mapping):
            raise ValueError(f"expected an object, found {_brief(row)}")
        prompt = self._native(row) if "messages" in row else self._plain(row)
        tags = {"task": self.path.stem, "row": number}
        name = str(row.get("id") or f"{self.path.stem}-{number}")
        return Sample(name, prompt, _text(row, "answer"), _choices(row), tags)

    def _plain(self, row: Row) -> Conversation:
        pictures = row["images"] if "images" in row else [row.get("image")]
        if not isinstance(pictures, list) or not pictures:
            raise ValueError(f"expected a list of paths in 'images', found {_brief(pictures)}")
        opened = [self._picture(p, "images" if "images" in row else "image") for p in pictures]
        return (message("user", *opened, _text(row, "question")),)

    def _native(self, row: Row) -> Conversation:
        said, pictures = row["messages"], row.get("images") or []
        if not isinstance(said, list) or not said:
            raise ValueError(f"expected a list in 'messages', found {_brief(said)}")
        opened: Iterator[Part] = iter([self._picture(p, "images") for p in pictures])
        prompt = _before_the_reply(tuple(_message(m, opened) for m in said))
        if (left := len(list(opened))) > 0:
            raise ValueError(f"expected {len(pictures) - left} pictures, found {len(pictures)}")
        return prompt

    def _picture(self, path: object, key: str) -> Part:
        if not isinstance(path, str) or not path.strip():
            raise ValueError(f"expected the path of a picture in {key!r}, found {_brief(path)}")
        if not self.anywhere and _leaves_folder(path):
            raise ValueError(
                f"expected a path inside the file's folder, found {path!r}"
                " (absolute paths, '..' and URLs need permission)"
            )
        try:
            return open_image(self.path.parent / path)
        except BadImage as error:
            raise ValueError(f"expected a picture, found {error}") from None


def read_questions(path: Path, *, limit: int | None = None, anywhere: bool = False) -> Questions:
    """The first `limit` questions of `path`, checked.

    Rows have the columns or keys `image`, `question`, `answer`, and if they like `id` and `choices` (a list,
    in CSV joined by "|"); a JSON row may have `images`, or be a native row of `messages`, `images`, `answer`.
    Pictures are found from the file's folder; `anywhere` lets them lie outside it.

    Raises:
        BadFile: there is no such file, its form is unknown, or a row cannot be asked.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise BadFile(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadFile(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadFile(f"{path}: expected UTF-8 text, found byte {error.start} is not") from None
    rows = tuple(_ROWS[path.suffix.lower()](path, text))[:limit]
    if not rows:
        raise BadFile(f"{path}: expected at least one row, found none")
    questions = Questions(path, rows, anywhere)
    questions.check()
    return questions


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    header = text.partition("\n")[0]
    reader = csv.DictReader(text.splitlines(keepends=True), delimiter=max(",;\t", key=header.count))
    columns = [c.strip().lower() for c in reader.fieldnames or ()]
    missing = [c for c in ("image", "question", "answer") if c not in columns]
    if missing:
        raise BadFile(
            f"{path}, row 1: expected the columns image,question,answer, found {header.strip()!r}"
        )
    reader.fieldnames = columns
    line = reader.line_num
    for row in reader:
        yield line + 1, row
        line = reader.line_num


def _jsonl_rows(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, _parse(path, number, line)


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    rows = _parse(path, 1, text)
    if not isinstance(rows, list):
        raise BadFile(f"{path}: expected a list of rows, found {_brief(rows)}")
    yield from enumerate(rows, start=1)


_ROWS = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".json": _json_rows}


def _parse(path: Path, number: int, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{path}, row {number}: expected JSON, found {error}") from None


def _text(row: Row, key: str) -> str:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or str(value).strip() == "":
        raise ValueError(f"expected text in {key!r}, found {_brief(value)}")
    return str(value).strip()


def _choices(row: Row) -> tuple[str, ...]:
    value = row.get("choices") or []
    choices = value.split("|") if isinstance(value, str) else value
    if not isinstance(choices, list):
        raise ValueError(f"expected a list in 'choices', found {_brief(value)}")
    return tuple(str(c).strip() for c in choices)


def _message(value: Any, pictures: Iterator[Part]) -> tuple[Role, tuple[Part, ...]]:
    role = value.get("role") if isinstance(value, dict) else None
    if role not in ("system", "user", "assistant"):
        raise ValueError(f"expected a system, user or assistant message, found {_brief(value)}")
    content = value.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise ValueError(f"expected text or a list in 'content', found {_brief(content)}")
    return role, tuple(_part(part, pictures) for part in content)


def _part(value: Any, pictures: Iterator[Part]) -> Part:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text" and isinstance(value.get("text"), str):
        return Text(value["text"])
    if kind == "image":
        picture = next(pictures, None)
        if picture is None:
            raise ValueError("expected a picture in 'images' for every image part, found too few")
        return picture
    raise ValueError(f"expected a text or image part, found {_brief(value)}")


def _before_the_reply(said: tuple[tuple[Role, tuple[Part, ...]], ...]) -> Conversation:
    """What is asked: replies at the end would give the answer away."""
    while said and said[-1][0] == "assistant":
        said = said[:-1]
    if not said:
        raise ValueError("expected a user message, found none")
    return tuple(message(role, *parts) for role, parts in said)


def _leaves_folder(path: str) -> bool:
    windows = PureWindowsPath(path)  # understands both slashes
    return bool(
        re.match(r"[a-z][a-z0-9+.-]*:", path, re.IGNORECASE) or windows.anchor or ".." in windows.parts
    )


def _brief(value: object) -> str:
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
