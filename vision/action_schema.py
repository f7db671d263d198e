"""Actions as tools: a typed function with a docstring, and the schema that is made from both.

The parameters that may be given by position are the model's to fill in; keyword-only ones are
settings, bound with `partial` by whoever passes the action. What their types mean to a model:

    Image        the number of an image, "img_idx"
    Region       four numbers under the family's own key and in its frame
    Point        two numbers, [x, y], in the same frame
    str, int, float, bool, Literal, and lists of one of these, of regions or of points
    Session      not the model's: the session that the action is carried out in

`X | None` with a default is optional.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mm.geometry import BoxFormat, Region
from mm.session import Session, name_of
from mm.types import Image, ToolSpec

from .grounding import Grounded
from .zoom_tool import corner_names

Seen = Image | str | Grounded | Sequence[Image | str | Grounded]
"""What an action returns: images, words, and places, which are written in the family's frame."""

Action = Callable[..., Seen]
"""Deterministic; raises `BadCall` with what the model should do otherwise."""

_JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}
_ENTRY = re.compile(r"^ {8}(\w+(?:, \w+)*): ((?:.|\n {12})+)", re.MULTILINE)


@dataclass(frozen=True)
class Point:
    """A place in fractions of its image, each from 0 to 1, origin at the top left."""

    x: float
    y: float


@dataclass(frozen=True)
class Parameter:
    """An argument that the model fills in.

    Attributes:
        name: the function's; `key` is what the model writes.
        kind: `Image`, `Region`, `Point`, a plain type or a Literal; of each item, where `many`.
        of: the name of the image that a region or a point lies in; "" for other kinds.
        needed: whether a call must have it.
    """

    name: str
    key: str
    kind: Any
    many: bool
    of: str
    needed: bool
    about: str


def parameters_of(action: Action, box_format: BoxFormat) -> tuple[Parameter, ...]:
    """What a model has to fill in, in order.

    Raises:
        TypeError: a parameter has a type that no schema can express.
    """
    hints, about = get_type_hints(_function(action)), _described(action)
    named = [p for p in inspect.signature(action).parameters.values() if _is_the_models(p, hints)]
    images = [p.name for p in named if _kind(hints.get(p.name))[0] is Image]
    made = []
    for p in named:
        kind, many = _kind(hints.get(p.name))
        of = _image_of(p.name, images) if kind in (Region, Point) else ""
        wrong = kind not in (Image, Region, Point, *_JSON_TYPES) and get_origin(kind) is not Literal
        if wrong or (many and kind is Image) or (kind in (Region, Point) and not of):
            raise TypeError(
                f"action {name_of(action)}: parameter {p.name}: {hints.get(p.name, 'no type')} "
                "must be an Image, a Region or Point beside an Image, text, a number, a truth "
                "value, a Literal, or a list of one of these"
            )
        needed = p.default is p.empty and kind is not Image
        key = _key(p.name, kind, box_format)
        made.append(Parameter(p.name, key, kind, many, of, needed, about.get(p.name, "")))
    return tuple(made)


def tool_of(action: Action, box_format: BoxFormat) -> ToolSpec:
    """`action` as it is offered to a model that writes `box_format`.

    Its description is the first paragraph of the docstring, and what an argument is stands under
    "Args:".

    Raises:
        TypeError: a parameter has a type that no schema can express, or there is no docstring.
    """
    said = inspect.getdoc(_function(action))
    if not said:
        raise TypeError(f"action {name_of(action)} has no docstring to describe it to a model")
    parameters = parameters_of(action, box_format)
    schema = {
        "type": "object",
        "properties": {p.key: _schema(p, box_format) for p in parameters},
        "required": [p.key for p in parameters if p.needed],
    }
    summary = " ".join(said.partition("\n\n")[0].split())
    if any(p.of for p in parameters):
        summary += " Boxes and points are in the original image, also where img_idx names a crop."
    return ToolSpec(name_of(action), summary, schema)


def session_of(action: Action) -> str:
    """The name of the parameter that gets the session; "" where there is none."""
    hints = get_type_hints(_function(action))
    named = inspect.signature(action).parameters
    return next((name for name in named if hints.get(name) is Session), "")


def _function(action: Action) -> Callable[..., Any]:
    while isinstance(action, partial):
        action = action.func
    return action


def _is_the_models(parameter: inspect.Parameter, hints: dict[str, Any]) -> bool:
    by_position = parameter.kind in (
        parameter.POSITIONAL_OR_KEYWORD,
        parameter.POSITIONAL_ONLY,
    )
    return by_position and hints.get(parameter.name) is not Session


def _kind(hint: Any) -> tuple[Any, bool]:
    """The type of a parameter, and whether it takes a list of them."""
    if get_origin(hint) in (Union, UnionType):
        rest = [each for each in get_args(hint) if each is not NoneType]
        hint = rest[0] if len(rest) == 1 else None
    if get_origin(hint) in (list, Sequence):
        return get_args(hint)[0], True
    return hint, False


def _image_of(name: str, images: Sequence[str]) -> str:
    """`other_box` lies in `other_image` where there is one, else in the first image."""
    prefix = re.sub(r"(box(es)?|points?)$", "", name)
    return f"{prefix}image" if f"{prefix}image" in images else "".join(images[:1])


def _key(name: str, kind: Any, box_format: BoxFormat) -> str:
    if kind is Image:
        return re.sub(r"image$", "img_idx", name)
    return re.sub(r"box$", box_format.key, name) if kind is Region else name


def _schema(parameter: Parameter, box_format: BoxFormat) -> dict[str, Any]:
    schema = _schema_of(parameter.kind, box_format)
    if parameter.many:
        schema = {"type": "array", "items": schema}
    about = parameter.about or ("which image, from 0" if parameter.kind is Image else "")
    said = "; ".join(filter(None, [about, str(schema.pop("description", ""))]))
    return {**schema, "description": said} if said else schema


def _schema_of(kind: Any, box_format: BoxFormat) -> dict[str, Any]:
    if kind is Image:
        return {"type": "integer"}
    if kind in (Region, Point):
        names = corner_names(box_format) if kind is Region else _axes(box_format)
        return {
            "type": "array",
            "items": {"type": "number"},
            "minItems": len(names),
            "maxItems": len(names),
            "description": f"[{', '.join(names)}] in {_frame(box_format)}",
        }
    if get_origin(kind) is Literal:
        return {"enum": list(get_args(kind))}
    return {"type": _JSON_TYPES[kind]}


def _axes(box_format: BoxFormat) -> tuple[str, str]:
    return ("x", "y") if box_format.order == "xyxy" else ("y", "x")


def _frame(box_format: BoxFormat) -> str:
    if box_format.frame is None:
        return "pixels of the image"
    return f"0 to {box_format.frame[0]} across and 0 to {box_format.frame[1]} down the image"


def _described(action: Action) -> dict[str, str]:
    """What the docstring says of each argument, a line each."""
    doc = inspect.cleandoc(_function(action).__doc__ or "")
    section = doc.partition("Args:\n")[2].partition("\n\n")[0]
    indented = "\n".join(f"    {line}" for line in section.splitlines())
    return {
        name: " ".join(text.split()).rstrip(".")
        for names, text in _ENTRY.findall(indented)
        for name in names.split(", ")
    }
