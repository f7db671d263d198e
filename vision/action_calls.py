"""What a model's call of an action means: read tolerantly where the meaning is plain.

Nothing that a model writes is ever run as code: a call names one of the actions on offer, and its
arguments are JSON values that are checked one by one against the action's types.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args, get_origin

from mm.errors import quote
from mm.geometry import BoxFormat, Region
from mm.markup import read_call
from mm.session import Session, name_of
from mm.types import Generation, Image, Text, ToolCall

from .action_schema import Action, Parameter, Point, parameters_of, session_of
from .grounding import FALLBACK_KEYS
from .regions import source_of
from .zoom_tool import BadCall, as_list, plain_number, read_index, read_numbers, read_region

_HARMLESS = ("label", "description")
"""What models add to calls, and no action needs."""

_FENCE = re.compile(r"\s*```\w*\s*")
_NEXT = re.compile(r"[\s,]*(?=\{\s*\"|\[\s*\{)")


@dataclass(frozen=True)
class Alias:
    """Another tool's name for an action, and how its calls differ.

    Attributes:
        keys: its names of arguments, to ours.
        box_format: how it writes boxes; None for the family's way.
        first: the number of the first image.
    """

    action: str
    keys: Mapping[str, str] = field(default_factory=dict)
    box_format: BoxFormat | None = None
    first: int = 0


ALIASES: Mapping[str, Alias] = {
    "image_zoom_in_tool": Alias("zoom_in"),  # Qwen, DeepEyes
    "crop_image_normalized": Alias(  # Pixel-Reasoner
        "zoom_in", {"target_image": "img_idx"}, BoxFormat(frame=(1, 1), decimals=3), first=1
    ),
}


def calls_in(reply: Generation) -> tuple[ToolCall | None, ...]:
    """The calls in `reply`; None for each that cannot be read.

    Words after a call's JSON, a fence of code around it, and a closing tag that is missing do no
    harm. Several calls may follow each other, or stand in a list.
    """
    calls: list[ToolCall | None] = []
    for part in reply.message.parts:
        if isinstance(part, ToolCall):
            calls.append(part)
        elif isinstance(part, Text):
            calls += [c for text in part.text.split("<tool_call>")[1:] for c in _calls_of(text)]
    return tuple(calls)


def read_action(
    session: Session, call: ToolCall | None, actions: Sequence[Action]
) -> tuple[Action, dict[str, Any]]:
    """Which of `actions` the `call` means, and its arguments as the action's types.

    Read as meant: an image that is not named where the question has one; corners that are swapped;
    numbers in quotes; an alias of `ALIASES`; a box under another family's key. An action that is
    given a box or a point gets the original image of a crop that is named.

    Raises:
        BadCall: the rest, with what would be right.
    """
    if call is None:
        raise BadCall('A call must be one JSON object with "name" and "arguments".')
    named = {name_of(action): action for action in actions}
    alias = Alias(call.name) if call.name in named else ALIASES.get(call.name, Alias(""))
    if alias.action not in named:
        raise BadCall(f"There is no tool {quote(call.name)}; the tools are {', '.join(named)}.")
    action = named[alias.action]
    given = {alias.keys.get(key, key): value for key, value in call.arguments.items()}
    return action, _arguments(session, action, given, alias)


def _calls_of(text: str) -> Iterator[ToolCall | None]:
    """The calls that `text`, which follows an opening tag, begins with."""
    decoder = json.JSONDecoder(strict=False)  # a raw line break in a label can be read
    fence = _FENCE.match(text)
    at = fence.end() if fence else len(text) - len(text.lstrip())
    while True:
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            yield None
            return
        yield from map(read_call, value if isinstance(value, list) and value else [value])
        following = _NEXT.match(text, at)
        if following is None:
            return
        at = following.end()


def _arguments(
    session: Session, action: Action, given: Mapping[str, Any], alias: Alias
) -> dict[str, Any]:
    box_format = session.vlm.traits.box_format
    parameters = parameters_of(action, box_format)
    given = _known(name_of(action), given, parameters)
    images = {p.name: _image(session, p, given, alias) for p in parameters if p.kind is Image}
    read: dict[str, Any] = {}
    for p in parameters:
        if p.kind is Image:
            continue
        value = given.get(p.key)
        if value is None and p.needed:
            raise BadCall(f'{name_of(action)} needs "{p.key}".')
        if value is not None:
            seen = _show_source(session, images, p.of) if p.of else (1, 1)
            read[p.name] = _value(value, p, alias.box_format or box_format, seen)
    read |= {name: image for name, image in images.items() if image is not None}
    asks = session_of(action)
    return {**read, asks: session} if asks else read


def _show_source(session: Session, images: dict[str, Image | None], of: str) -> tuple[int, int]:
    """Give the action, in place of an image that a box lies in, the one it was made from.

    Returns:
        The size that the model saw that in, which the box is measured in.
    """
    holder = of if images[of] else next(iter(images))
    images[holder] = source = source_of(session.images, _present(images[holder]))
    return session.vlm.seen_size(source.size, source.kind)


def _known(
    action: str, given: Mapping[str, Any], parameters: Sequence[Parameter]
) -> dict[str, Any]:
    """`given` under the keys of `parameters`, those that are null left out."""
    keys = [p.key for p in parameters]
    boxes = [p.key for p in parameters if p.kind is Region and not p.many]
    read = {}
    for key, value in given.items():
        if key not in keys and key in (*FALLBACK_KEYS, "bounding_box") and len(boxes) == 1:
            key = boxes[0]
        if key in keys and value is not None:
            read[key] = value
        elif key not in keys and key not in _HARMLESS:
            raise BadCall(f"{action} takes no {quote(key)}; it takes {', '.join(keys)}.")
    return read


def _present(image: Image | None) -> Image:
    if image is None:
        raise BadCall("A box needs the image that it lies in.")
    return image


def _image(
    session: Session, parameter: Parameter, given: Mapping[str, Any], alias: Alias
) -> Image | None:
    """The image that a call names; the question's only one where it names none."""
    value = given.get(parameter.key)
    if value is None and parameter.name != "image":
        return None
    images = session.images
    if not images:
        raise BadCall("There is no image.")
    if value is None:
        if len(session.sample.images) > 1:
            raise BadCall(f'Say which image: "{parameter.key}" from 0 to {len(images) - 1}.')
        return images[0]
    number = plain_number(value)
    if isinstance(number, int):
        number -= alias.first
    return images[read_index(number, len(images), parameter.key)]


def _value(value: Any, parameter: Parameter, box_format: BoxFormat, seen: tuple[int, int]) -> Any:
    if not parameter.many:
        return _one(value, parameter, box_format, seen)
    value = as_list(value)
    if not isinstance(value, list | tuple):
        value = [value]
    if parameter.kind in (Region, Point) and value and not isinstance(value[0], list | tuple):
        value = [value]
    return [_one(each, parameter, box_format, seen) for each in value]


def _one(value: Any, parameter: Parameter, box_format: BoxFormat, seen: tuple[int, int]) -> Any:
    kind, key = parameter.kind, parameter.key
    if kind is Region:
        return read_region(value, replace(box_format, key=key), seen)
    if kind is Point:
        return _point(value, replace(box_format, key=key), seen)
    if get_origin(kind) is Literal:
        return _literal(value, key, get_args(kind))
    if kind is str and isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    value = plain_number(value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(value, key)
    if type(value) is kind:
        return value
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    raise BadCall(f'"{key}" must be {words[kind]}, got {quote(value)}.')


def _finite(value: float, key: str) -> float:
    try:
        number = float(value)
    except OverflowError:  # a whole number may have any length
        number = math.inf
    if not math.isfinite(number):
        raise BadCall(f'"{key}" must be a finite number, got {quote(value)}.')
    return number


def _point(value: Any, box_format: BoxFormat, seen: tuple[int, int]) -> Point:
    value = as_list(value)
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise BadCall(f'"{box_format.key}" must hold points of two numbers, got {quote(value)}.')
    a, b, *_ = read_numbers([*value, *value], box_format)
    x, y = (a, b) if box_format.order == "xyxy" else (b, a)
    width, height = box_format.frame or seen
    if not (0 <= x <= width and 0 <= y <= height):
        rule = f"lie inside the image, 0 to {width} across and 0 to {height} down"
        raise BadCall(f'"{box_format.key}" must {rule}, got {quote(value)}.')
    return Point(x / width, y / height)


def _literal(value: Any, key: str, allowed: Sequence[Any]) -> Any:
    for each in allowed:
        if value == each or plain_number(value) == each or str(value).lower() == str(each):
            return each
    said = ", ".join(map(str, allowed))
    raise BadCall(f'"{key}" must be one of {said}, got {quote(value)}.')
