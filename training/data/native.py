"""The native row: OpenAI's messages with typed parts, and `images` in the order they are shown.

Also its short form: a picture, a question, and an answer or a good and a bad one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mm.geometry import Region
from mm.markup import parse_parts, read_call
from mm.types import (
    Conversation,
    Image,
    Message,
    Part,
    Role,
    Text,
    ToolCall,
    ToolSpec,
    assistant,
    message,
    user,
)

from .readers import brief
from .row import Row

Fields = Mapping[Any, Any]
Open = Callable[[Any], Image]
Crop = Callable[[Image, Region], Image]

_ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")


def read_row(fields: Any, name: str, *, open_picture: Open, crop: Crop) -> Row:
    """The row that `fields` write; `name` is its id where it brings none.

    Raises:
        ValueError: it is no such row; what was expected, and what was found.
    """
    if not isinstance(fields, Mapping):
        raise ValueError(f"expected an object, found {brief(fields)}")
    if None in fields:
        count, found = len(fields) - 1, brief(fields[None])
        raise ValueError(f"expected {count} columns, found {found} too many")
    native = "messages" in fields or "prompt" in fields
    said, chosen, rejected = (_native if native else _plain)(fields, open_picture, crop)
    offered = _offered(fields)
    return Row(
        str(fields.get("id", name)),
        offered + said,
        untrained=_untrained(fields, len(offered)),
        chosen=chosen,
        rejected=rejected,
        answer=text_of(fields, "answer") if "answer" in fields else None,
        choices=_choices(fields),
        regions=_regions(fields, said),
        source=str(fields.get("source", "")),
    )


def text_of(fields: Fields, key: str) -> str:
    """The words, or the number, in column `key`.

    Raises:
        ValueError: there are none.
    """
    value = fields.get(key)
    known = isinstance(value, str | int | float) and not isinstance(value, bool)
    if not known or not str(value).strip():
        raise ValueError(f"expected text in {key!r}, found {brief(value)}")
    return str(value).strip()


def list_of(fields: Fields, key: str) -> list[Any]:
    """The list in column `key`, [] where there is none.

    Raises:
        ValueError: something else is there.
    """
    value = fields.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"expected a list in {key!r}, found {brief(value)}")
    return value


Three = tuple[Conversation, Conversation, Conversation]
"""What is asked (or all of it), and how it goes on well and badly where there is a pair."""


def _plain(fields: Fields, open_picture: Open, crop: Crop) -> Three:
    named = list_of(fields, "images") if "images" in fields else [fields.get("image")]
    if not named:
        raise ValueError("expected a list of paths in 'images', found []")
    asked = user(*_pictures(named, (), open_picture, crop), text_of(fields, "question"))
    if "chosen" in fields or "rejected" in fields:
        good, bad = (assistant(*parse_parts(text_of(fields, k))) for k in ("chosen", "rejected"))
        return (asked,), (good,), (bad,)
    return (asked, assistant(*parse_parts(text_of(fields, "answer")))), (), ()


def _native(fields: Fields, open_picture: Open, crop: Crop) -> Three:
    key = "messages" if "messages" in fields else "prompt"
    shared = _pictures(list_of(fields, "images"), (), open_picture, crop)
    said = _conversation(fields, key, "images", "user", shared)
    if ("chosen" in fields) != ("rejected" in fields):
        raise ValueError("expected both 'chosen' and 'rejected', found one of them")
    if "chosen" not in fields:
        return said, (), ()
    good, bad = (
        _conversation(
            fields,
            side,
            f"{side}_images",
            "assistant",
            _pictures(list_of(fields, f"{side}_images"), shared, open_picture, crop),
        )
        for side in ("chosen", "rejected")
    )
    return said, good, bad


def _pictures(
    named: Sequence[Any], before: Sequence[Image], open_picture: Open, crop: Crop
) -> list[Image]:
    """The pictures that are `named`; a crop's `crop_of` counts those `before` them too."""
    found = list(before)
    for value in named:
        found.append(
            _cropped(value, found, crop)
            if isinstance(value, Mapping) and "crop_of" in value
            else open_picture(value)
        )
    return found[len(before) :]


def _cropped(value: Mapping[str, Any], known: Sequence[Image], crop: Crop) -> Image:
    at = value["crop_of"]
    if not isinstance(at, int) or not 0 <= at < len(known):
        which = f"in 0..{len(known) - 1}" if known else "an earlier picture, of which there is none"
        raise ValueError(f"expected 'crop_of' {which}, found {brief(at)}")
    return crop(known[at], _region(value.get("bbox"), known[at]))


def _region(box: Any, image: Image) -> Region:
    """A box in pixels of `image`; unlike a model's, one that reaches outside is an error."""
    numbers = box if isinstance(box, list) and len(box) == 4 else None
    if numbers is None or not all(isinstance(n, int | float) for n in numbers):
        raise ValueError(f"expected a box of four numbers, found {brief(box)}")
    x0, y0, x1, y1 = numbers
    width, height = image.size
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise ValueError(f"expected a box x0,y0,x1,y1 inside {width}x{height}, found {box}")
    return Region.from_pixels((x0, y0, x1, y1), image.size)


def _regions(fields: Fields, said: Conversation) -> tuple[Region, ...]:
    boxes = list_of(fields, "regions")
    shown = [image for m in said for image in m.images]
    if boxes and not shown:
        raise ValueError("expected a picture for 'regions', found none")
    return tuple(_region(box, shown[0]) for box in boxes)


def _conversation(
    fields: Fields, key: str, column: str, speaker: Role, pictures: Sequence[Image]
) -> Conversation:
    """The messages of column `key`, whose placeholders stand for `pictures` of `column`."""
    said = fields[key]
    if isinstance(said, str):
        said = [{"role": speaker, "content": text_of(fields, key)}]
    if not isinstance(said, list):
        raise ValueError(f"expected a list in {key!r}, found {brief(said)}")
    holes = sum(_is_image(part) for m in said for part in _content(m))
    if holes != len(pictures):
        raise ValueError(f"expected {holes} pictures in {column!r}, found {len(pictures)}")
    waiting = iter(pictures)
    return tuple(_message(value, waiting) for value in said)


def _message(value: Any, waiting: Iterator[Image]) -> Message:
    role = _role(value)
    if role not in _ROLES:
        raise ValueError(f"expected a role of {', '.join(_ROLES)}, found {brief(role)}")
    parts: list[Part] = []
    content = _content(value)
    parsed = role == "assistant" and not any(_is_image(part) for part in content)
    for part in content:
        if _is_image(part):
            parts.append(next(waiting))
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            # a thought that goes on behind a picture must stay open before it
            parts += parse_parts(part["text"]) if parsed else [Text(part["text"])]
        else:
            raise ValueError(f"expected a text or image part, found {brief(part)}")
    calls = [_call(call) for call in list_of(value, "tool_calls")]
    if not parts and not calls:
        raise ValueError(f"expected text in a message, found {brief(value)}")
    return message(role, *parts, *calls)


def _call(value: Any) -> ToolCall:
    found = read_call(value.get("function", value) if isinstance(value, dict) else value)
    if found is None:
        raise ValueError(f"expected a call with a name and arguments, found {brief(value)}")
    return found


def _offered(fields: Fields) -> Conversation:
    """The tools on offer, as the system says them."""
    tools = [_tool(tool) for tool in list_of(fields, "tools")]
    return (message("system", *tools),) if tools else ()


def _tool(value: Any) -> ToolSpec:
    function = value.get("function", value) if isinstance(value, dict) else {}
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError(f"expected a tool with a name, found {brief(value)}")
    parameters = function.get("parameters", {})
    if isinstance(parameters, str):  # as parquet holds them
        parameters = json.loads(parameters)
    return ToolSpec(function["name"], str(function.get("description", "")), parameters)


def _untrained(fields: Fields, offset: int) -> frozenset[int]:
    """Indices of messages that say `"loss": false`."""
    said = fields.get("messages")
    if not isinstance(said, list):
        return frozenset()
    return frozenset(offset + i for i, m in enumerate(said) if m.get("loss") in (False, 0))


def _choices(fields: Fields) -> tuple[str, ...]:
    value = fields.get("choices") or []
    choices = value.split("|") if isinstance(value, str) else value
    if not isinstance(choices, list):
        raise ValueError(f"expected a list in 'choices', found {brief(value)}")
    return tuple(str(c).strip() for c in choices)


def _role(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"expected a message, found {brief(value)}")
    return value.get("role")


def _content(value: Any) -> list[Any]:
    content = value.get("content") if isinstance(value, dict) else None
    if content is None and _role(value) == "assistant":  # it only calls a tool
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    if not isinstance(content, list):
        raise ValueError(f"expected text or a list in 'content', found {brief(content)}")
    return content


def _is_image(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "image"
