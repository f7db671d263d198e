"""A file of rows in another dialect, or in another kind of file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .dataset import DataSet
from .formats import from_native, recognise, to_native
from .readers import BadData

_PATHS = ("images", "chosen_images", "rejected_images")


def convert(data: DataSet, dialect: str, out: Path) -> int:
    """Write the rows of `data` to `out` as `dialect`; how many they are.

    `out` is JSON Lines, JSON or parquet by its name. Paths of pictures are rewritten so that they
    are right from its folder.

    Raises:
        BadData: a row cannot be converted, or `out` is there already or of another kind.
    """
    write = _WRITERS.get(out.suffix.lower())
    if write is None:
        raise BadData(f"{out}: expected a name that ends in {', '.join(_WRITERS)}")
    if out.exists():
        raise BadData(f"{out} is there already: give another name")
    rows = []
    for record in data.records:
        try:
            if isinstance(record.fields, ValueError):
                raise record.fields
            native = spelled_out(to_native(record.fields, data.dialect))
            rows.append(from_native(_moved(native, data.path.parent, out.parent), dialect))
        except ValueError as error:
            raise BadData(f"{data.path}, row {record.number}: {error}") from None
    partial = out.with_name(out.name + ".partial")
    write(partial, rows)
    partial.replace(out)
    return len(rows)


def spelled_out(fields: Mapping[Any, Any]) -> dict[str, Any]:
    """A row with messages, where it was a picture, a question and an answer."""
    if not isinstance(fields, Mapping) or "question" not in fields:
        return dict(fields)
    rest = {k: v for k, v in fields.items() if k not in ("image", "images", "question")}
    images = fields.get("images", [fields.get("image")])
    asked = [*({"type": "image"} for _ in images), {"type": "text", "text": fields["question"]}]
    said = [{"role": "user", "content": asked}]
    if "chosen" in fields:
        sides = {
            side: [{"role": "assistant", "content": fields[side]}]
            for side in ("chosen", "rejected")
        }
        return {**rest, "prompt": said, "images": images, **sides}
    said.append({"role": "assistant", "content": str(fields.get("answer", ""))})
    return {**rest, "messages": said, "images": images}


def _moved(native: dict[str, Any], old: Path, new: Path) -> dict[str, Any]:
    found = dict(native)
    for key in _PATHS:
        if isinstance(found.get(key), list):
            found[key] = [_path(value, old, new) for value in found[key]]
    return found


def _path(value: Any, old: Path, new: Path) -> Any:
    named = isinstance(value, str) and "://" not in value and not value.startswith("data:")
    if not named or os.path.isabs(value):
        return value
    return Path(os.path.relpath(old / value, new)).as_posix()


def _write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_json(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    text = json.dumps(list(rows), ensure_ascii=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def _write_parquet(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    found = [_uniform(row) for row in rows]
    parquet.write_table(pyarrow.Table.from_pylist(found), path)


def _uniform(row: Mapping[str, Any]) -> dict[str, Any]:
    """`row` with one type for each column, as Arrow wants it: parts, structs, JSON as text.

    Words that tag their pictures stay words, which every message of such a row is.
    """
    found = dict(row)
    tagged = recognise(row) == "swift"
    for key in ("messages", "prompt", "chosen", "rejected"):
        if isinstance(found.get(key), list) and not tagged:
            found[key] = [_uniform_message(said) for said in found[key]]
    for key in _PATHS:
        if isinstance(found.get(key), list):
            found[key] = [v if isinstance(v, Mapping) else {"path": v} for v in found[key]]
    if "tools" in found:
        found["tools"] = [_text_inside(tool, "parameters") for tool in found["tools"]]
    return found


def _uniform_message(said: Mapping[str, Any]) -> dict[str, Any]:
    content = said.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    calls = [_text_inside(call, "arguments") for call in said.get("tool_calls", [])]
    return {**said, "content": parts, **({"tool_calls": calls} if calls else {})}


def _text_inside(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A tool or a call whose free-form `key` is JSON text."""
    function = dict(value.get("function", value))
    if isinstance(function.get(key), Mapping):
        function[key] = json.dumps(function[key], ensure_ascii=False)
    return {"type": "function", "function": function}


_WRITERS = {".jsonl": _write_jsonl, ".json": _write_json, ".parquet": _write_parquet}
