"""The formats of rows: which one a row is written in, to the native row and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from training.data.readers import brief

from .clip_parts import with_clips
from .conversations import read_conversation
from .declaration import (
    IMAGES,
    KEPT,
    PAIRED,
    TALK,
    Fields,
    Format,
    Native,
    may_show_clips,
    refuse_unread,
)
from .openai import read_openai, write_openai
from .papers import read_vlm_r3, read_vts
from .questions import read_alpaca, read_short, read_verl
from .sharegpt import read_sharegpt, write_sharegpt
from .swift import read_swift, write_swift
from .tags import has_tags
from .video_rft import COLUMNS as _VIDEO_RFT
from .video_rft import read_video_rft

_SHARED = KEPT | frozenset(IMAGES)
_MESSAGES = _SHARED | TALK | PAIRED
_SHORT = _SHARED | {"question", "chosen", "rejected", "system"}
_ALPACA_OWN = frozenset({"instruction", "query", "input", "output", "response", "history"})
_ALPACA = _ALPACA_OWN | (_MESSAGES - {"messages", "prompt", "completion"})
_VERL = frozenset({"problem", "reward_model", "ground_truth", "solution", "data_source"})
_PAPER_PATHS = frozenset({"prompt_image_path", "chosen_image_path", "rejected_image_path"})

_native = partial(read_conversation, tags=False, front=True)
_conversations = (_MESSAGES - {"messages", "prompt", "completion"}) | {"conversations"}

FORMATS: Mapping[str, Format] = {
    each.name: each
    for each in (
        Format("native", _native, _MESSAGES, dict),
        Format("trl", _native, _MESSAGES, dict),
        Format("short", read_short, _SHORT),
        Format("llava", read_sharegpt, _conversations, write_sharegpt),
        Format("sharegpt", read_sharegpt, _conversations, write_sharegpt),
        Format("openai", read_openai, _MESSAGES, write_openai),
        Format("swift", read_swift, _MESSAGES, write_swift),
        Format("alpaca", read_alpaca, _ALPACA),
        Format("vts", read_vts, KEPT | _PAPER_PATHS | {"prompt", "chosen", "rejected", "system"}),
        Format(
            "vlm-r3",
            read_vlm_r3,
            KEPT | {"image_path", "question", "response_list", "img_crop_list"},
        ),
        Format("video-rft", read_video_rft, KEPT | _VIDEO_RFT),
        Format("verl", read_verl, (_SHARED | _VERL | {"prompt", "system"})),
    )
}
WRITABLE = tuple(name for name, each in FORMATS.items() if each.write)


def to_native(fields: Any, dialect: str = "auto", ignore: Collection[str] = ()) -> Native:
    """A row of `dialect` as a native one, without the columns to `ignore`.

    A native row has `messages`, or `prompt` with `chosen` and `rejected` or alone; a message has
    one of four roles, and content in parts whose images are listed in `images`, of each side in
    `chosen_images` and `rejected_images`.

    Raises:
        ValueError: there is no such dialect, the row is not written in it, or something of the row
            would be lost.
    """
    if not isinstance(fields, Mapping):
        raise ValueError(f"expected an object, found {brief(fields)}")
    if None in fields:
        count, found = len(fields) - 1, brief(fields[None])
        raise ValueError(f"expected {count} columns, found {found} too many")
    if dialect != "auto" and dialect not in FORMATS:
        raise ValueError(f"expected a format of {', '.join(FORMATS)}, found {dialect!r}")
    left = {key: value for key, value in fields.items() if key not in ignore}
    format = FORMATS[recognise(left) if dialect == "auto" else dialect]
    if format.name in ("native", "trl") and not TALK & left.keys():
        format = FORMATS["short"]
    native = format.read(left)
    native = with_clips(native) if may_show_clips(native) else native
    said = [m for key in TALK for m in native.get(key, ()) if key != "system"]
    texts = {part["text"].strip() for m in said for part in m["content"] if "text" in part}
    refuse_unread(left, format, texts)
    return native


def from_native(native: Native, dialect: str) -> Native:
    """A native row as `dialect` writes it.

    Raises:
        ValueError: nothing is written in that dialect, or it cannot say what the row says.
    """
    write = FORMATS[dialect].write if dialect in FORMATS else None
    if write is None:
        raise ValueError(f"expected a format of {', '.join(WRITABLE)} to write, found {dialect!r}")
    return write(native)


def recognise(fields: Fields) -> str:
    """The format that a row's columns give away; "short" where they give nothing away."""
    if "conversations" in fields:
        return "sharegpt"
    if "response_list" in fields:
        return "vlm-r3"
    if _PAPER_PATHS & fields.keys():
        return "vts"
    if {"problem", "data_type", "path"} <= fields.keys():
        return "video-rft"
    if _is_verl(fields):
        return "verl"
    if {"instruction", "query"} & fields.keys():
        return "alpaca"
    if "question" in fields and not {"messages", "prompt"} & fields.keys():
        return "short"
    if not TALK & fields.keys():
        return "short"
    said = [each for key in TALK | PAIRED for each in _strings(fields.get(key))]
    if any(has_tags(each) for each in said) or "objects" in fields:
        return "swift"
    if {"rejected_response", "rejected_messages"} & fields.keys():
        return "swift"
    return "openai" if any(_has_url(fields.get(key)) for key in TALK) else "native"


def _is_verl(fields: Fields) -> bool:
    if {"reward_model", "problem"} & fields.keys():
        return True
    return bool({"ground_truth", "solution"} & fields.keys()) and "prompt" in fields


def _strings(said: Any) -> list[str]:
    """Text that is written as strings, in which other toolkits read tags."""
    if isinstance(said, str):
        return [said]
    messages = said if isinstance(said, list) else [said]
    found = [m.get("content", m.get("value")) for m in messages if isinstance(m, Mapping)]
    return [each for each in found if isinstance(each, str)]


def _has_url(said: Any) -> bool:
    messages = said if isinstance(said, list) else [said]
    parts = [m.get("content") for m in messages if isinstance(m, Mapping)]
    return any(
        isinstance(part, Mapping) and part.get("type") == "image_url"
        for content in parts
        if isinstance(content, list)
        for part in content
    )
