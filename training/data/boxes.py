"""Boxes that rows bring: regions of an image, and ms-swift's `objects` in text."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mm.geometry import Region
from mm.types import Image

from .formats.declaration import Native, refuse_keys
from .readers import brief

if TYPE_CHECKING:
    from mm.tokens.builder import TokenBuilder

WriteBox = Callable[[Region, Image], str]
"""A box of an image as a model writes it."""

_TAG = re.compile("<ref-object>|<bbox>")


def box_writer(builder: TokenBuilder) -> WriteBox:
    """Boxes as the family of `builder` writes them: four numbers in brackets, in its frame."""

    def write(region: Region, image: Image) -> str:
        seen = builder.seen_size(image.size, image.kind)
        return json.dumps(builder.traits.box_format.write(region, seen))

    return write


def regions_of(boxes: Sequence[Any], image: Image) -> tuple[Region, ...]:
    """`boxes` in pixels of `image`; in shares of it where all numbers are in [0, 1] and not all
    whole.

    Raises:
        ValueError: one is no box, or reaches outside: unlike a model's, that is an error.
    """
    numbers = [n for box in boxes for n in _four(box)]
    shares = all(0 <= n <= 1 for n in numbers) and not all(float(n).is_integer() for n in numbers)
    size = (1, 1) if shares else image.size
    return tuple(_region(box, size) for box in boxes)


def filled(
    sides: Sequence[Sequence[Native]],
    objects: Any,
    images: Sequence[Image],
    write: WriteBox | None,
) -> list[list[Native]]:
    """Conversations whose `<ref-object>` and `<bbox>` are the names and boxes of `objects`.

    They are taken in order, over all of `sides`.

    Raises:
        ValueError: there are more tags than objects, or a box would be lost; or nobody says how a
            model writes boxes.
    """
    names, boxes = _read(objects, images)
    if boxes and write is None:
        raise ValueError("'objects' needs a model, which says how boxes are written: mm data check")
    refs = iter(names)
    written = iter([write(region, image) for region, image in boxes] if write else [])
    done = [[_filled(said, refs, written) for said in side] for side in sides]
    if lost := [*refs, *written]:
        raise ValueError(f"expected a tag in text for each object, found none for {lost[0]!r}")
    return done


def has_box_tags(sides: Sequence[Sequence[Native]]) -> bool:
    """Whether text holds a tag that stands for an object."""
    return any(
        _TAG.search(part.get("text", ""))
        for side in sides
        for said in side
        for part in said["content"]
    )


def _filled(said: Native, refs: Iterator[str], boxes: Iterator[str]) -> Native:
    def value(tag: re.Match[str]) -> str:
        found = next(refs if tag[0] == "<ref-object>" else boxes, None)
        if found is None:
            raise ValueError(f"expected an object for each {tag[0]}, found too few in 'objects'")
        return found

    content = [
        {**part, "text": _TAG.sub(value, part["text"])} if part["type"] == "text" else part
        for part in said["content"]
    ]
    return {**said, "content": content}


def _read(objects: Any, images: Sequence[Image]) -> tuple[list[str], list[tuple[Region, Image]]]:
    if isinstance(objects, str):
        try:
            objects = json.loads(objects)
        except (ValueError, RecursionError):
            raise ValueError(f"expected JSON in 'objects', found {brief(objects)}") from None
    if not isinstance(objects, Mapping):
        raise ValueError(f"expected 'objects' with 'ref' and 'bbox', found {brief(objects)}")
    refuse_keys(objects, ("ref", "bbox", "bbox_type", "image_id"), "'objects'")
    names, boxes = objects.get("ref") or [], objects.get("bbox") or []
    kind = objects.get("bbox_type") or "real"
    known = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not known or not isinstance(boxes, list) or kind not in ("real", "norm1"):
        found = brief(dict(objects))
        raise ValueError(f"expected 'ref', 'bbox' and 'bbox_type' real or norm1, found {found}")
    at = objects.get("image_id") or 0
    at = [at] * len(boxes) if isinstance(at, int) else at
    if not isinstance(at, list) or len(at) != len(boxes):
        raise ValueError(f"expected an 'image_id' for each box, found {brief(at)}")
    shown = [_at(images, index) for index in at]
    sizes = [(1, 1) if kind == "norm1" else image.size for image in shown]
    regions = [_region(box, size) for box, size in zip(boxes, sizes, strict=True)]
    return names, list(zip(regions, shown, strict=True))


def _at(images: Sequence[Image], index: Any) -> Image:
    if not isinstance(index, int) or not 0 <= index < len(images):
        raise ValueError(f"expected 'image_id' below {len(images)}, found {brief(index)}")
    return images[index]


def _four(box: Any) -> list[float]:
    numbers = box if isinstance(box, list) and len(box) == 4 else None
    if numbers is None or not all(_is_number(n) for n in numbers):
        raise ValueError(f"expected a box of four numbers, found {brief(box)}")
    return numbers


def _is_number(value: Any) -> bool:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return known and math.isfinite(value)


def _region(box: Any, size: tuple[int, int]) -> Region:
    x0, y0, x1, y1 = _four(box)
    width, height = size
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise ValueError(f"expected a box x0,y0,x1,y1 inside {width}x{height}, found {brief(box)}")
    return Region.from_pixels((x0, y0, x1, y1), size)
