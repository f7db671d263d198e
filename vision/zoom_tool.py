"""The tool protocol of zooming: what is offered, what a call asks for, what is wrong with it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mm.errors import quote
from mm.geometry import XYXY, BoxFormat, Region, Size
from mm.session import Session
from mm.types import Generation, Image, Text, ToolCall, ToolSpec
from mm.vlm import VLM

ZOOM = "image_zoom_in_tool"


class BadCall(ValueError):
    """A call cannot be carried out; its message is for the model that made it."""


@dataclass(frozen=True)
class RegionCall:
    """Asks for a region of the image `index` of the conversation, the prompt's images first."""

    index: int
    region: Region


def zoom_tool(box_format: BoxFormat) -> ToolSpec:
    """The zoom tool as offered to a model that writes `box_format`."""
    frame = "pixels of the image"
    if box_format.frame:
        frame = f"0 to {box_format.frame[0]} across and 0 to {box_format.frame[1]} down the image"
    box = f"[{', '.join(corner_names(box_format))}] in {frame}"
    parameters = {
        "type": "object",
        "properties": {
            box_format.key: {
                "type": "array",
                "items": {"type": "number"},
                "minItems": 4,
                "maxItems": 4,
                "description": box,
            },
            "label": {"type": "string", "description": "what is there"},
            "img_idx": {"type": "integer", "description": "which image, from 0 (default 0)"},
        },
        "required": [box_format.key],
    }
    return ToolSpec(ZOOM, "Crop a region of an image and look at it enlarged.", parameters)


def tool_calls(session: Session, reply: Generation) -> tuple[ToolCall | None, ...]:
    """The calls in `reply`, for `look`; None for each that cannot be read."""
    calls: list[ToolCall | None] = []
    for part in reply.message.parts:
        if isinstance(part, ToolCall):
            calls.append(part)
        elif isinstance(part, Text):
            calls += [None] * part.text.count("<tool_call>")
    return tuple(calls)


def read_zoom_call(call: ToolCall | None, images: Sequence[Image], vlm: VLM) -> RegionCall:
    """What `call` asks to see.

    Boxes are in the frame of the image as the model saw it, and clipped to it.

    Raises:
        BadCall: it asks for nothing that could be shown.
    """
    if call is None:
        raise BadCall('A call must be one JSON object with "name" and "arguments".')
    if call.name != ZOOM:
        raise BadCall(f"There is no tool {quote(call.name)}; the tool is {ZOOM!r}.")
    return read_arguments(call.arguments, images, vlm)


def read_arguments(arguments: Mapping[str, Any], images: Sequence[Image], vlm: VLM) -> RegionCall:
    """What the `arguments` of a call ask to see.

    Raises:
        BadCall: the box or `img_idx` is not one.
    """
    named, box_format = arguments.get("img_idx"), vlm.traits.box_format
    index = 0 if named is None else read_index(named, len(images))
    seen = vlm.seen_size(images[index].size, images[index].kind)
    return RegionCall(index, read_region(arguments.get(box_format.key), box_format, seen))


def read_index(value: object, count: int, key: str = "img_idx") -> int:
    """Which of `count` images `value` names.

    Raises:
        BadCall: none of them.
    """
    read = plain_number(value)
    if isinstance(read, bool) or not isinstance(read, int) or not 0 <= read < count:
        raise BadCall(f'"{key}" must be a whole number from 0 to {count - 1}, got {quote(value)}.')
    return read


def read_numbers(value: object, box_format: BoxFormat) -> XYXY:
    """The four finite numbers of a box, in the family's order; in quotes or not.

    Raises:
        BadCall: `value` is something else.
    """
    rule = f'"{box_format.key}" must be four numbers [{", ".join(corner_names(box_format))}]'
    listed = as_list(value)
    if not isinstance(listed, list | tuple) or len(listed) != 4:
        raise BadCall(f"{rule}, got {quote(value)}.")
    numbers = [plain_number(each) for each in listed]
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in numbers):
        raise BadCall(f"{rule}, got {quote(value)}.")
    if any(abs(v) > 1e9 or math.isnan(v) for v in numbers):
        raise BadCall(f'"{box_format.key}" must be finite numbers, got {quote(value)}.')
    a, b, c, d = numbers
    return a, b, c, d


def read_region(value: object, box_format: BoxFormat, seen: Size) -> Region:
    """The region that a box means, for a model that saw the image at `seen` pixels; clips.

    Its corners may be swapped.

    Raises:
        BadCall: it is no four numbers, it is empty, or nothing of it lies inside the image.
    """
    a, b, c, d = read_numbers(value, box_format)
    if a == c or b == d:
        first, second, third, fourth = corner_names(box_format)
        rule = f"{first} < {third} and {second} < {fourth}"
        raise BadCall(f'"{box_format.key}" must have {rule}, got {quote([a, b, c, d])}.')
    try:
        return box_format.read((min(a, c), min(b, d), max(a, c), max(b, d)), seen)
    except ValueError:
        width, height = box_format.frame or seen
        rule = f"lie inside the image, 0 to {width} across and 0 to {height} down"
        raise BadCall(f'"{box_format.key}" must {rule}, got {quote([a, b, c, d])}.') from None


def as_list(value: Any) -> Any:
    """The list that a text holds, as JSON; any other value as it is."""
    if not isinstance(value, str):
        return value
    try:
        read = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return read if isinstance(read, list) else value


def plain_number(value: Any) -> Any:
    """A number in quotes, or a whole one written with a point, as the number it is."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def corner_names(box_format: BoxFormat) -> tuple[str, str, str, str]:
    """What the four numbers of a box are called, in the family's order."""
    return ("x0", "y0", "x1", "y1") if box_format.order == "xyxy" else ("y0", "x0", "y1", "x1")


ZOOM_TOOL = zoom_tool(BoxFormat())
