"""A folder of three images, and rows over them in short words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image as pil

from mm.types import Conversation, Image, Text, Thinking
from training.data import DataSet, Row, read_data

COLOURS = {"red": b"\xff\0\0", "blue": b"\0\0\xff", "green": b"\0\x80\0"}


def make_images(folder: Path) -> Path:
    for colour in COLOURS:
        pil.new("RGB", (80, 60), colour).save(folder / f"{colour}.png")
    return folder


def data_of(folder: Path, *rows: Any, **options: Any) -> DataSet:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return read_data(path, **options)


def one(folder: Path, row: Any, **options: Any) -> Row:
    return data_of(folder, row, **options)[0]


def said(conversation: Conversation) -> list[tuple[str, ...]]:
    """A conversation as roles, text and colours."""
    names = {pixels: colour for colour, pixels in COLOURS.items()}
    out = []
    for m in conversation:
        parts = []
        for part in m.parts:
            if isinstance(part, Image):
                parts.append(names[part.pixels.tobytes()[:3]])
            elif isinstance(part, Text | Thinking):
                parts.append(part.text)
            else:
                parts.append(type(part).__name__)
        out.append((m.role, *parts))
    return out


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def reply(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}
