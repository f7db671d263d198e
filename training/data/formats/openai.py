"""The chat API's rows: images are URLs, or paths, inside the messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .conversations import read_conversation
from .declaration import Fields, Native
from .tags import has_tags


def read_openai(fields: Fields) -> Native:
    """`messages` whose parts name their own images."""
    return read_conversation(fields, tags=False, front=False)


def write_openai(native: Native) -> Native:
    """A row with `messages`.

    Raises:
        ValueError: it is a pair, or an image is a crop of another.
    """
    if "chosen" in native:
        raise ValueError("openai rows have no pairs: write it as native, trl, swift or sharegpt")
    images = iter(native["images"])
    key = "messages" if "messages" in native else "prompt"
    said = [{**m, "content": _content(m["content"], images)} for m in native[key]]
    rest = {k: v for k, v in native.items() if k not in ("images", "messages", "prompt")}
    return {**rest, key: said}


def _content(parts: list[Native], images: Iterator[Any]) -> list[Native] | str:
    plain = len(parts) == 1 and parts[0]["type"] == "text"
    if plain and not has_tags(parts[0]["text"]):  # in a string it would be read as one
        return parts[0]["text"]
    return [_url(next(images)) if part["type"] == "image" else part for part in parts]


def _url(value: Any) -> Native:
    if not isinstance(value, str):
        raise ValueError("openai rows name images by path or data URI: write a crop as native")
    return {"type": "image_url", "image_url": {"url": value}}
