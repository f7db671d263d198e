"""Messages of every format as native ones: four roles, and content in parts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mm.markup import read_call, render_call
from mm.types import Role
from training.data.readers import brief

from .declaration import (
    HARMLESS_IN_MESSAGES,
    MESSAGE_KEYS,
    Fields,
    Native,
    filled,
    is_empty,
    refuse_keys,
    source_of,
)
from .tags import tagged, text_parts, untagged

ROLES: Mapping[str, Role] = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "function": "tool",
    "system": "system",
    "developer": "system",
}
"""Who speaks, by the names that formats have for it."""

_CALLS = ("function_call", "tool_call")
_MAY_BE_EMPTY = ("tool", "system")
_THOUGHT_LAST = re.compile(r"</think>\s*\n\Z")
_NAMING = {
    "text": ("text",),
    "image": ("image", "image_url", "url", "path", "bytes"),
    "video": ("video", "video_url", "url", "path"),
}
"""Keys of a part that say what it shows, by its kind."""

_HOLDING = frozenset(key for keys in _NAMING.values() for key in keys)
_PART_KEYS = _HOLDING | {"type", "detail", "index"}
_KINDS = {
    **dict.fromkeys(("text", "input_text", "output_text"), "text"),
    **dict.fromkeys(("image", "image_url", "input_image"), "image"),
    **dict.fromkeys(("video", "video_url"), "video"),
}
"""Kinds of parts, by the types that formats have for them."""


def messages_in(fields: Fields, key: str, *, tags: bool, speaker: Role) -> list[Native]:
    """The messages of column `key`, one by `speaker` where it is a string; [] without the column.

    A part for an image that names its own keeps it under "image", one for a clip under "video", and
    a place among them under "index". `tags` says that strings are read for tags.

    Raises:
        ValueError: it holds something else, or something that would be lost.
    """
    value = fields.get(key)
    if is_empty(value) and not isinstance(value, list):
        return []
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, str) or (number and speaker == "assistant"):
        value = [{"role": speaker, "content": str(value)}]
    said = [value] if isinstance(value, Mapping) else value
    if not isinstance(said, list):
        raise ValueError(f"expected a list in {key!r}, found {brief(value)}")
    read = [_message(each, tags) for each in said]
    return [m for m in read if m["content"] or m["role"] != "system"]  # some send an empty one


def system_in(fields: Fields, said: Sequence[Native]) -> list[Native]:
    """The message of the column `system`; [] where there is none, or `said` begins with it.

    Raises:
        ValueError: `said` begins with another system message.
    """
    found = (
        messages_in(fields, "system", tags=False, speaker="system") if "system" in fields else []
    )
    if found and said and said[0]["role"] == "system":
        if said[0]["content"] != found[0]["content"]:
            raise ValueError("expected one system message, found 'system' and another: merge them")
        return []
    return found


def _message(value: Any, tags: bool) -> Native:
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a message, found {brief(value)}")
    given, value = value, filled(value, MESSAGE_KEYS | HARMLESS_IN_MESSAGES, "a message")
    name = _either(value, "role", "from")
    if not isinstance(name, str) or name not in ROLES:
        raise ValueError(f"expected a role of {', '.join(ROLES)}, found {brief(name)}")
    content = _either(value, "content", "value")
    calls = [*_listed(value, "tool_calls"), *_listed(value, "function_call")]
    if name in _CALLS:
        calls, content = [*_said_calls(content), *calls], None
    role = ROLES[name]
    parts = merged(_behind(_thought(value, role, content), _parts(content, role, tags)))
    if not parts and not calls and role not in _MAY_BE_EMPTY:
        raise ValueError(f"expected text in a message, found {brief(given)}")
    if calls and role != "assistant":
        raise ValueError(f"expected tool calls of the assistant, found some of {name!r}")
    found: Native = {"role": role, "content": parts}
    if calls:
        found["tool_calls"] = [_call(call) for call in calls]
    return found if _trains(value) else {**found, "loss": False}


def _either(value: Fields, key: str, other: str) -> Any:
    if key in value and other in value:
        raise ValueError(f"expected {key!r} or {other!r} in a message, found both")
    return value.get(key, value.get(other))


def _listed(value: Fields, key: str) -> list[Any]:
    found = value.get(key, [])
    if found and key == "function_call":
        return [found]
    if not isinstance(found, list):
        raise ValueError(f"expected a list in {key!r}, found {brief(found)}")
    return found


def _trains(value: Fields) -> bool:
    """Whether the message says nothing against training on it.

    Raises:
        ValueError: it weighs something else than all or nothing.
    """
    for key in ("loss", "weight"):
        said = value.get(key)
        if said is not None and said not in (0, 1):
            raise ValueError(f"expected {key!r} of 0 or 1, found {brief(said)}: weights are whole")
        if said is not None and not said:
            return False
    return True


def _thought(value: Fields, role: Role, content: Any) -> list[Native]:
    """The reasoning that servers hand over beside the content, as the tags it was written in."""
    said = [value[key] for key in ("reasoning_content", "reasoning") if key in value]
    if not said:
        return []
    if role != "assistant" or not isinstance(said[0], str) or "<think>" in str(content):
        raise ValueError(f"expected reasoning in 'content' alone, found {brief(said[0])} beside it")
    return text_parts(f"<think>\n{said[0].strip()}\n</think>\n\n")  # as Qwen's templates write it


def _behind(thought: Sequence[Native], parts: Sequence[Native]) -> list[Native]:
    """`parts` behind a thought that brings the line breaks between; servers send them once more."""
    if thought and parts and parts[0]["type"] == "text":
        first = text_parts(parts[0]["text"].lstrip("\n"))
        return [*thought, *first, *parts[1:]]
    return [*thought, *parts]


def _said_calls(content: Any) -> list[Any]:
    """The calls that a message of ShareGPT's or ms-swift's writes as JSON."""
    try:
        found = json.loads(content) if isinstance(content, str) else content
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict | list) or not found:
        raise ValueError(
            f"expected a call as JSON with a name and arguments, found {brief(content)}"
        )
    return found if isinstance(found, list) else [found]


def _call(value: Any) -> Native:
    """A call as OpenAI writes it, its arguments an object."""
    inner = value.get("function", value) if isinstance(value, Mapping) else value
    found = read_call(dict(inner) if isinstance(inner, Mapping) else inner)
    if found is None:
        raise ValueError(f"expected a call with a name and arguments, found {brief(value)}")
    refuse_keys(value, ("type", "id", "index", "function", "name", "arguments"), "a tool call")
    return {
        "type": "function",
        "function": {"name": found.name, "arguments": dict(found.arguments)},
    }


def _parts(content: Any, role: Role, tags: bool) -> list[Native]:
    if content is None:
        return []
    if isinstance(content, str):
        return tagged(content) if tags else text_parts(content)
    if isinstance(content, Mapping):
        return [_part(content)]
    if not isinstance(content, list):
        raise ValueError(f"expected text or a list in 'content', found {brief(content)}")
    return [
        part
        for each in content
        for part in (text_parts(each) if isinstance(each, str) else [_part(each)])
        if part.get("text") != ""
    ]


def _part(value: Any) -> Native:
    """A part for text, an image or a clip; what the part itself names stays in it."""
    held = [k for k in _HOLDING if not is_empty(value.get(k))] if isinstance(value, Mapping) else []
    kind = _kind(value, held)
    if kind is None or not set(held) <= set(_NAMING[kind]):
        raise ValueError(f"expected a text, image or video part, found {brief(value)}")
    refuse_keys(value, _PART_KEYS, "a part")
    if kind == "text":
        return {"type": "text", "text": value["text"]}
    if len(held) > 1:
        raise ValueError(f"expected one {kind} in a part, found {brief(value)}")
    found: Native = {"type": kind}
    if held:
        found[kind] = _inline(value[held[0]])
    return found if value.get("index") is None else {**found, "index": value["index"]}


def _kind(value: Any, held: Sequence[str]) -> str | None:
    """What a part shows, by its type or, without one, by what it names; None where neither says."""
    if not isinstance(value, Mapping):
        return None
    said = value.get("type")
    if said is None:
        kind = next((k for k, keys in _NAMING.items() if any(key in held for key in keys)), None)
        kind = "text" if isinstance(value.get("text"), str) and not held else kind
    else:
        kind = _KINDS.get(said) if isinstance(said, str) else None
    return None if kind == "text" and not isinstance(value.get("text"), str) else kind


def _inline(value: Any) -> Any:
    """What a part names: OpenAI's `{"url", "detail"}` unwrapped too."""
    if isinstance(value, Mapping):
        value = {key: each for key, each in value.items() if key != "detail"}
    return source_of(value)


def merged(parts: Iterable[Native]) -> list[Native]:
    """Parts of which no two texts follow each other: they are one text to every format."""
    found: list[Native] = []
    for part in parts:
        if found and part["type"] == found[-1]["type"] == "text":
            found[-1] = {"type": "text", "text": found[-1]["text"] + part["text"]}
        else:
            found.append(part)
    return found


def holes(messages: Iterable[Native], kind: str = "image") -> int:
    """How many images, or of another kind of parts, the messages show."""
    return sum(part["type"] == kind for said in messages for part in said["content"])


def lifted(
    messages: Iterable[Native], given: list[Any], column: str, kind: str = "image"
) -> list[Any]:
    """The images of `messages`, or clips, in order; their parts no longer name them.

    `given` are those of the row's own column.

    Raises:
        ValueError: some are named in the messages and others, or other ones, in `column`; or a part
            says that it stands for another of them than the next one.
    """
    parts = [part for said in messages for part in said["content"] if part["type"] == kind]
    for place, part in enumerate(parts):
        if (said := part.pop("index", place)) != place:
            raise ValueError(f"expected 'index' {place} in the next {kind} part, found {said!r}")
    inline = [part.pop(kind) for part in parts if kind in part]
    if not inline:
        return given
    if len(inline) != len(parts) or (given and given != inline):
        raise ValueError(
            f"expected {kind}s in messages or in {column!r}, found {len(inline)} and {len(given)}"
        )
    return inline


def as_string(said: Native) -> str:
    """A message's content as one string, images as tags and calls as text.

    Raises:
        ValueError: its text holds what would be read as a tag.
    """
    calls = [_render(call) for call in said.get("tool_calls", ())]
    text = untagged(said["content"])
    first = text if _THOUGHT_LAST.search(text) else f"{text}\n" if text and calls else text
    return first + "\n".join(calls)


def _render(call: Native) -> str:
    found = read_call(call["function"])
    assert found, "calls are checked where they are read"
    return render_call(found)
