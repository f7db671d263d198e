"""The tool protocol of zooming: what is offered, what a call asks for, what is wrong with it."""

from __future__ import annotations

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
    index = read_index(arguments.get("img_idx", 0), len(images))
    box_format = vlm.traits.box_format
    numbers = read_numbers(arguments.get(box_format.key), box_format)
    seen = vlm.seen_size(images[index].size, images[index].kind)
    return RegionCall(index, read_region(numbers, box_format, seen))


def read_index(value: object, count: int, key: str = "img_idx") -> int:
    """Which of `count` images `value` names.

    Raises:
        BadCall: none of them.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        raise BadCall(f'"{key}" must be a whole number from 0 to {count - 1}, got {quote(value)}.')
    return value


def read_numbers(value: object, box_format: BoxFormat) -> XYXY:
    """The four finite numbers of a box, in the family's order.

    Raises:
        BadCall: `value` is something else.
    """
    rule = f'"{box_format.key}" must be four numbers [{", ".join(corner_names(box_format))}]'
    if not isinstance(value, list | tuple) or len(value) != 4:
        raise BadCall(f"{rule}, got {quote(value)}.")
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in value):
        raise BadCall(f"{rule}, got {quote(value)}.")
    if any(abs(v) > 1e9 or math.isnan(v) for v in value):
        raise BadCall(f'"{box_format.key}" must be finite numbers, got {quote(value)}.')
    a, b, c, d = value
    return a, b, c, d


def read_region(numbers: XYXY, box_format: BoxFormat, seen: Size) -> Region:
    """The region that `numbers` mean, for a model that saw the image at `seen` pixels; clips.

    Raises:
        BadCall: they are out of order, or nothing of the box lies inside the image.
    """
    a, b, c, d = numbers
    if not (a < c and b < d):
        first, second, third, fourth = corner_names(box_format)
        rule = f"{first} < {third} and {second} < {fourth}"
        raise BadCall(f'"{box_format.key}" must have {rule}, got {quote(list(numbers))}.')
    try:
        return box_format.read(numbers, seen)
    except ValueError:
        width, height = box_format.frame or seen
        rule = f"lie inside the image, 0 to {width} across and 0 to {height} down"
        raise BadCall(f'"{box_format.key}" must {rule}, got {quote(list(numbers))}.') from None


def corner_names(box_format: BoxFormat) -> tuple[str, str, str, str]:
    """What the four numbers of a box are called, in the family's order."""
    return ("x0", "y0", "x1", "y1") if box_format.order == "xyxy" else ("y0", "x0", "y1", "x1")


ZOOM_TOOL = zoom_tool(BoxFormat())
