"""A file of rows in another format, or in another kind of file: the same rows, or an error."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from .dataset import DataSet
from .formats import from_native, to_native
from .formats.declaration import CLIPS, HARMLESS, Native, clips_of, is_empty, source_of
from .native import choices_of, conversation, listed_tools
from .readers import BadData, Record, parse_row, read_records

BATCH = 256
"""Rows that are written to parquet at a time."""

Rows = Callable[[], Iterator[Native]]
"""Makes rows anew, so that they need not be kept in memory."""

_IMAGES = ("images", "chosen_images", "rejected_images")
_TALK = {"messages": "images", "prompt": "images"} | {
    side: f"{side}_images" for side in ("chosen", "rejected")
}


def convert(data: DataSet, dialect: str, out: Path) -> int:
    """Write the rows of `data` to `out` as `dialect`; how many they are.

    `out` is JSON Lines, JSON or parquet by its name. Paths of images are rewritten so that they
    are right from its folder; images in bytes become data URIs in JSON. What is written is read
    again, and must say the same.

    Raises:
        BadData: a row cannot be converted without changing it, or `out` is there already or of
            another kind.
    """
    write = _WRITERS.get(out.suffix.lower())
    if write is None:
        raise BadData(f"{out}: expected a name that ends in {', '.join(_WRITERS)}")
    if out.exists():
        raise BadData(f"{out} is there already: give another name")
    partial = out.with_name(f"{out.stem}.partial{out.suffix}")
    try:
        write(partial, lambda: _converted(data, dialect, out))
        _compare(data, dialect, out, partial)
        partial.replace(out)
    except OSError as error:
        raise BadData(f"{out} cannot be written: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)
    return len(data)


def _converted(data: DataSet, dialect: str, out: Path) -> Iterator[Native]:
    for record in data.records:
        try:
            native = native_row(data, record, out)
            _meaning(native)  # a row that says nothing is named here, not as one that changes
            yield from_native(native, dialect)
        except ValueError as error:
            raise BadData(f"{data.path}, row {record.number}: {error}") from None


def native_row(data: DataSet, record: Record, out: Path) -> Native:
    """The row as a native one whose paths are right from the folder of `out`.

    Raises:
        ValueError: it is no such row.
    """
    if isinstance(record.fields, ValueError):
        raise record.fields
    native = to_native(record.fields, data.dialect, data.ignore)
    if "tools" in native:
        native["tools"] = listed_tools(native["tools"])
    for key in (*_IMAGES, *CLIPS):
        if isinstance(native.get(key), list):
            native[key] = [_written(each, data.path.parent, out) for each in native[key]]
    for key in ("depth", *CLIPS):
        if isinstance(native.get(key), str):
            native[key] = _written(native[key], data.path.parent, out)
    return native


def _written(value: Any, old: Path, out: Path) -> Any:
    if isinstance(value, bytes):
        return value if out.suffix.lower() == ".parquet" else _data_uri(value)
    named = isinstance(value, str) and "://" not in value and not value.startswith("data:")
    if not named or os.path.isabs(value) or len(value) > 4096:
        return value
    try:
        return Path(os.path.relpath(old / value, out.parent)).as_posix()
    except ValueError:  # on another drive of Windows
        raise ValueError(
            f"its images cannot be named from {out.parent}: write the file on their drive"
        ) from None


def _data_uri(content: bytes) -> str:
    kinds = {b"\x89PNG": "png", b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp"}
    kind = next((name for start, name in kinds.items() if content.startswith(start)), "jpeg")
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _compare(data: DataSet, dialect: str, out: Path, written: Path) -> None:
    """Read what was written again, a row at a time.

    Raises:
        BadData: a row says something else than before.
    """
    for record, again in zip(data.records, _read_again(written), strict=True):
        place = f"{data.path}, row {record.number}"
        before = _meaning(native_row(data, record, out))
        try:
            after = _meaning(to_native(again))
        except ValueError as error:
            raise BadData(f"{place}: as {dialect} it could not be read: {error}") from None
        if changed := [k for k in sorted({*before, *after}) if before.get(k) != after.get(k)]:
            raise BadData(f"{place}: as {dialect} its {changed[0]!r} would say something else")


def _read_again(path: Path) -> Iterator[Any]:
    if path.suffix.lower() != ".jsonl":
        yield from (record.fields for record in read_records(path))
        return
    with path.open("rb") as lines:
        yield from map(parse_row, lines)


def _meaning(native: Native) -> dict[str, Any]:
    """What a row says, however it is written: the conversations, their images and the rest."""
    found: dict[str, Any] = {
        key: value
        for key, value in native.items()
        if key not in (*_IMAGES, *_TALK, "tools") and key not in HARMLESS
    }
    for key in ("id", "answer", "source"):
        if key in found:
            found[key] = str(found[key]).strip()
    if "choices" in found:
        found["choices"] = choices_of(native)
    if isinstance(native.get("objects"), str):
        found["objects"] = json.loads(native["objects"])
    if "tools" in native:
        found["tools"] = [_tool(tool) for tool in listed_tools(native["tools"])]
    for key, column in _TALK.items():
        if key in native:
            images = [source_of(each) for each in native.get(column, ())]
            said = conversation(native[key], column, images, clips_of(native))
            muted = [m.get("loss", True) for m in native[key] if m["role"] == "assistant"]
            side = "prompt" if key == "messages" and not any(muted) else key
            found[side] = (said, muted if side == "messages" else None)
    return found


def _tool(value: Any) -> Any:
    function = value.get("function", value) if isinstance(value, Mapping) else value
    if isinstance(function, Mapping) and isinstance(function.get("parameters"), str):
        return {**function, "parameters": json.loads(function["parameters"])}
    return function


def _write_jsonl(path: Path, rows: Rows) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows())


def _write_json(path: Path, rows: Rows) -> None:
    text = json.dumps(list(rows()), ensure_ascii=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def _write_parquet(path: Path, rows: Rows) -> None:
    import pyarrow
    from pyarrow import parquet

    try:
        schema = pyarrow.unify_schemas(
            [_table(some).schema for some in _batches(rows)], promote_options="permissive"
        )
        with parquet.ParquetWriter(path, schema) as file:
            for some in _batches(rows):
                file.write_table(_table(some, schema))
    except (pyarrow.ArrowException, OverflowError, TypeError) as error:
        why = str(error).partition("\n")[0]
        raise BadData(f"{path}: rows have no common type, {why}: write .jsonl") from None


def _batches(rows: Rows) -> Iterator[list[Native]]:
    """A few rows at a time: they may hold images."""
    waiting = map(_uniform, rows())
    while some := list(islice(waiting, BATCH)):
        yield some


def _table(rows: Sequence[Native], schema: Any = None) -> Any:
    """`rows` with one type for each column that any of them has; from_pylist goes by the first."""
    import pyarrow

    if schema is not None:
        return pyarrow.Table.from_pylist(list(rows), schema=schema)
    names = dict.fromkeys(key for row in rows for key in row)
    return pyarrow.table({name: pyarrow.array([row.get(name) for row in rows]) for name in names})


def _uniform(row: Native) -> Native:
    """`row` with one type for each column, as Arrow wants it: structs, and JSON as text.

    Strings that tag their images stay strings, which every message of such a row is.
    """
    found = {k: v for k, v in row.items() if not is_empty(v)}
    for key in ("messages", "prompt", "chosen", "rejected"):
        if isinstance(found.get(key), list):
            found[key] = _uniform_messages(found[key])
    for key in _IMAGES:
        if isinstance(found.get(key), list):
            found[key] = [_image(each) for each in found[key]]
    if "tools" in found:
        found["tools"] = json.dumps(found["tools"], ensure_ascii=False)
    if "objects" in found and not isinstance(found["objects"], str):
        found["objects"] = json.dumps(found["objects"], ensure_ascii=False)
    for key in ("id", "answer", "source"):
        if key in found:
            found[key] = str(found[key])
    if "choices" in found:
        found["choices"] = list(choices_of(row))
    return {k: _described(v) if k in HARMLESS else v for k, v in found.items()}


def _described(value: Any) -> Any:
    """A column that only describes the row, as text where it is more than that."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _image(value: Any) -> Native:
    if isinstance(value, Mapping):
        return dict(value)
    return {"bytes": value} if isinstance(value, bytes) else {"path": value}


def _uniform_messages(said: list[Native]) -> list[Native]:
    if all(isinstance(m.get("content"), str) and "tool_calls" not in m for m in said):
        return said
    return [_uniform_message(m) for m in said]


def _uniform_message(said: Native) -> Native:
    content = said.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    calls = [_text_inside(call) for call in said.get("tool_calls", [])]
    return {**said, "content": parts, **({"tool_calls": calls} if calls else {})}


def _text_inside(call: Native) -> Native:
    """A call whose free-form arguments are JSON text."""
    function = dict(call["function"])
    function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
    return {"type": "function", "function": function}


_WRITERS = {".jsonl": _write_jsonl, ".json": _write_json, ".parquet": _write_parquet}
