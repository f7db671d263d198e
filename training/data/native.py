"""The native row as values: messages with their images opened, what is right, where to look."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mm.answers.matching import choice_error
from mm.geometry import Region
from mm.markup import parse_parts, read_call
from mm.types import Clip, Conversation, Image, Message, Part, Text, Thinking, ToolSpec, message

from .boxes import WriteBox, filled, has_box_tags, regions_of
from .clips import clipped
from .formats.declaration import Fields, Native, clips_of
from .formats.messages import holes
from .formats.questions import text_in
from .readers import brief
from .row import PROBLEM_TYPES, Row

Open = Callable[[Any], Image]
Crop = Callable[[Image, Region], Image]

_SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class Opening:
    """How to load the files a row names.

    Attributes:
        open_image: the image that a value names.
        crop: a region of an image as the model is shown it.
        write_box: a box as the model writes it; None where no model is known.
        locate: where the file lies that a value names.
    """

    open_image: Open
    crop: Crop
    write_box: WriteBox | None = None
    locate: Callable[[Any], str] = str
    frames: Callable[[Conversation], Conversation] | None = None


def read_row(native: Native, name: str, opening: Opening) -> Row:
    """The row that `native` writes, as `to_native` makes it; `name` is its id unless it has one.

    Raises:
        ValueError: it is no such row; what was expected, and what was found.
    """
    key = "messages" if "messages" in native else "prompt"
    shared = _images(native.get("images", ()), (), opening)
    own = [_images(native.get(f"{side}_images", ()), shared, opening) for side in _SIDES]
    said = [native.get(side, []) for side in (key, *_SIDES)]
    if "objects" in native:
        every = [image for images in (shared, *own) for image in images]
        said = filled(said, native["objects"], every, opening.write_box)
    elif has_box_tags(said):
        raise ValueError("expected 'objects' for <ref-object> and <bbox> in text, found none")
    columns = ("images", "chosen_images", "rejected_images")
    clips = [Clip(opening.locate(clip)) for clip in clips_of(native)]
    asked, good, bad = map(conversation, said, columns, (shared, *own), (clips, (), ()))
    if clips and not holes(said[0], "video"):
        asked = clipped(asked, clips)
    _check_sides(key, asked, good, bad)
    offered = _offered(native)
    choices = choices_of(native)
    regions = _regions(native, asked)
    if clips and opening.frames:
        asked = opening.frames(asked)
    return Row(
        str(native.get("id", name)),
        offered + asked,
        untrained=_untrained(native, key, len(offered)),
        chosen=good,
        rejected=bad,
        answer=_answer(native, choices),
        choices=choices,
        regions=regions,
        source=str(native.get("source", "")),
        depth=opening.locate(native["depth"]) if native.get("depth") else "",
        problem_type=_problem_type(native.get("problem_type")),
    )


def conversation(
    said: Sequence[Native], column: str, images: Sequence[Any], clips: Sequence[Any] = ()
) -> Conversation:
    """The messages `said`, whose placeholders stand for `images` of `column`, and for `clips`.

    Raises:
        ValueError: the images are not as many.
    """
    if not said and not images:
        return ()
    if holes(said) != len(images):
        raise ValueError(
            f"expected {holes(said)} images in {column!r}, found {len(images)}: "
            "as many as messages show, by <image> in strings or by image parts"
        )
    waiting = {"image": iter(images), "video": iter(clips)}
    return tuple(_message(value, waiting) for value in said)


def _message(value: Native, waiting: Mapping[str, Iterator[Any]]) -> Message:
    parts: list[Part] = []
    calls = [read_call(call["function"]) for call in value.get("tool_calls", ())]
    parsed = value["role"] == "assistant" and all(p["type"] == "text" for p in value["content"])
    for part in value["content"]:
        if part["type"] in waiting:
            parts.append(next(waiting[part["type"]]))
        else:
            # a thought that goes on behind an image must stay open before it
            parts += _spoken(part["text"], bool(calls)) if parsed else [Text(part["text"])]
    return Message(value["role"], (*parts, *filter(None, calls)))


def _spoken(text: str, calls: bool) -> list[Part]:
    """The parts of what the assistant wrote; the blanks between a thought and a call train."""
    parts = list(parse_parts(text, blanks=True))
    match parts[-2:]:
        case [Thinking(), Text(blank)] if blank.isspace():
            kept = blank.removesuffix("\n") if calls else ""  # a call brings a line break itself
            parts[-1:] = [Text(kept)] if kept else []
    return parts


def _images(named: Sequence[Any], before: Sequence[Image], opening: Opening) -> list[Image]:
    """The images that are `named`; a crop's `crop_of` counts those `before` them too."""
    found = list(before)
    for value in named:
        cut = isinstance(value, Mapping) and "crop_of" in value
        found.append(_cropped(value, found, opening) if cut else opening.open_image(value))
    return found[len(before) :]


def _cropped(value: Mapping[str, Any], known: Sequence[Image], opening: Opening) -> Image:
    at = value["crop_of"]
    if not isinstance(at, int) or not 0 <= at < len(known):
        which = f"in 0..{len(known) - 1}" if known else "an earlier image, of which there is none"
        raise ValueError(f"expected 'crop_of' {which}, found {brief(at)}")
    (region,) = regions_of([value.get("bbox")], known[at])
    return opening.crop(known[at], region)


def _regions(native: Native, said: Conversation) -> tuple[Region, ...]:
    boxes = native.get("regions", [])
    if not isinstance(boxes, list):
        raise ValueError(f"expected a list in 'regions', found {brief(boxes)}")
    if not boxes:
        return ()
    first = next((image for m in said for image in m.images), None)
    if first is None:
        raise ValueError("expected an image for 'regions', found none")
    return regions_of(boxes, first)


def _offered(native: Native) -> Conversation:
    """The tools on offer, as the system says them."""
    tools = [_tool(tool) for tool in listed_tools(native.get("tools"))]
    return (message("system", *tools),) if tools else ()


def listed_tools(value: Any) -> list[Any]:
    """The tools that a row offers, a list or, as other toolkits write it, JSON of one.

    Raises:
        ValueError: it is something else.
    """
    found = _loaded(value, "tools") if isinstance(value, str) else value
    if isinstance(found, Mapping):
        found = [found]
    if not isinstance(found, list | None):
        raise ValueError(f"expected a list in 'tools', found {brief(value)}")
    return [_loaded(each, "tools") if isinstance(each, str) else each for each in found or []]


def _loaded(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"expected JSON in {where!r}, found {brief(text)}") from None


def _tool(value: Any) -> ToolSpec:
    function = value.get("function", value) if isinstance(value, Mapping) else {}
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ValueError(f"expected a tool with a name, found {brief(value)}")
    parameters = function.get("parameters") or {}
    if isinstance(parameters, str):  # as parquet holds them
        parameters = _loaded(parameters, "parameters")
    if not isinstance(parameters, Mapping):
        raise ValueError(f"expected a schema in 'parameters', found {brief(parameters)}")
    return ToolSpec(function["name"], str(function.get("description") or ""), parameters)


def _untrained(native: Native, key: str, offset: int) -> frozenset[int]:
    """Indices of messages that say `"loss": false`; no reply in a prompt trains."""
    return frozenset(
        offset + i
        for i, m in enumerate(native.get(key, ()))
        if m.get("loss") is False or (key == "prompt" and m["role"] == "assistant")
    )


def _answer(native: Fields, choices: Sequence[str]) -> str | None:
    if "answer" not in native:
        return None
    answer = text_in(native, "answer")
    if error := choice_error(answer, choices):
        raise ValueError(error)
    return answer


def _problem_type(value: Any) -> str:
    if not value:
        return ""
    known = {each.lower(): each for each in PROBLEM_TYPES}
    if not isinstance(value, str) or value.strip().lower() not in known:
        raise ValueError(
            f"expected a 'problem_type' of {', '.join(PROBLEM_TYPES)}, found {brief(value)}: or "
            "--ignore problem_type"
        )
    return known[value.strip().lower()]


def _check_sides(key: str, asked: Conversation, good: Conversation, bad: Conversation) -> None:
    if key == "prompt" and not good and asked and asked[-1].role == "assistant":
        raise ValueError(
            "expected a 'prompt' that ends with the user or a tool, found a reply at its end: "
            "give it as 'completion' to learn it, or remove it (no answer can be begun for a model)"
        )
    if good and good == bad:
        raise ValueError("expected sides that differ, found 'chosen' equal to 'rejected'")


def choices_of(native: Fields) -> tuple[str, ...]:
    """The answers to choose from; () where there are none.

    They are a list, or in a string: one with | between, or a list as JSON or Python writes it. A
    list of one leaves nothing to choose: the question is open. A text in which no second choice is
    found is refused: another sign may stand between them.

    Raises:
        ValueError: they are something else, or in a text there is one alone.
    """
    value = native.get("choices", [])
    choices = _listed(value) if isinstance(value, str) else value
    if not isinstance(choices, list) or not all(map(_is_choice, choices)):
        raise ValueError(f"expected a list in 'choices', found {brief(value)}")
    if len(choices) == 1 and isinstance(value, str):
        raise ValueError(f"expected two choices or more in 'choices', found {brief(value)}")
    return tuple(str(c).strip() for c in choices) if len(choices) > 1 else ()


def _listed(text: str) -> Any:
    """The list that `text` writes; what stands between |, where it writes none."""
    if text.lstrip().startswith("["):
        for read in (json.loads, ast.literal_eval):
            with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
                return read(text.strip())
    return text.split("|")


def _is_choice(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else True
