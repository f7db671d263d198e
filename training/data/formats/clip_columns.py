"""The columns that name a row's clips, and the tags that stand for them in text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .declaration import CLIPS, is_empty, many

TAG = "<video>"


def without_tags(fields: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` of a row that names clips, without the tags that stand for them in its text.

    Clips stand before the first thing that the user says, wherever a tag stood.

    Raises:
        ValueError: there are tags, and not as many as clips.
    """
    clips = clips_of(fields)
    if not clips:
        return dict(fields)
    texts = {key: value for key, value in fields.items() if key not in CLIPS}
    count = _count(texts)
    if count not in (0, len(clips)):
        raise ValueError(f"expected {count} clips, as many as {TAG} in text, found {len(clips)}")
    return {**fields, **_stripped(texts)}


def clips_of(fields: Mapping[str, Any]) -> list[Any]:
    """What the row's columns of clips name, in order."""
    return [clip for key in CLIPS if not is_empty(fields.get(key)) for clip in many(fields[key])]


def _count(value: Any) -> int:
    if isinstance(value, str):
        return value.count(TAG)
    if isinstance(value, Mapping):
        return sum(map(_count, value.values()))
    return sum(map(_count, value)) if isinstance(value, list) else 0


def _stripped(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(f"{TAG}\n", "").replace(TAG, "")
    if isinstance(value, Mapping):
        return {key: _stripped(each) for key, each in value.items()}
    return [_stripped(each) for each in value] if isinstance(value, list) else value
