"""The images of a folder of traces: a PNG for each, by its id."""

from __future__ import annotations

import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from .errors import first_line
from .geometry import Region
from .image_id import image_id
from .origins import Origin
from .trace import Trace
from .types import Image

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

_ORIGINS = {kind.__name__: kind for kind in get_args(Origin)}


def named(kind: str, image: Image) -> dict[str, Any]:
    """The ids of the files that hold its pixels, and its origin, as a row of JSON has them."""
    files = {name: id for name, (id, _) in zip((kind, "second"), _pixels(image), strict=False)}
    return {**files, "origin": {"kind": type(image.origin).__name__, **asdict(image.origin)}}


def _pixels(image: Image) -> list[tuple[str, Pixels]]:
    """What is kept of it, each with its id."""
    if image.second is None:
        return [(image.id, image.pixels)]
    return [(image_id(each), each) for each in (image.pixels, image.second)]


def _read_origin(row: dict[str, Any]) -> Origin:
    facts: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
    kind = _ORIGINS[facts.pop("kind")]
    if "region" in facts:
        facts["region"] = Region(**facts["region"])
    return kind(**facts)


def save_images(trace: Trace, folder: Path) -> None:
    """Write the images of a trace that `folder` lacks.

    Raises:
        OSError: they cannot be written.
    """
    (folder / "images").mkdir(exist_ok=True)
    messages = [*trace.sample.prompt, *(step.message for step in trace.steps)]
    for seen in (seen for message in messages for seen in message.visuals):
        for id, pixels in _pixels(seen.source):
            file = folder / "images" / f"{id}.png"
            if not file.exists():
                unfinished = file.with_suffix(".part")
                pixels.save(unfinished, "PNG")
                os.replace(unfinished, file)


class StoredImages:
    """The images of a folder, each read and checked once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened: dict[str, Pixels] = {}

    def image(self, id: str, row: dict[str, Any]) -> Image:
        """What `named` has written as `row`; `id` is that of its first file.

        Raises:
            ValueError: a file cannot be read, or was changed.
        """
        second = self._open(row["second"]) if "second" in row else None
        return Image(self._open(id), _read_origin(row["origin"]), second)

    def _open(self, id: str) -> Pixels:
        if id not in self._opened:
            self._opened[id] = self._read(id)
        return self._opened[id]

    def _read(self, id: str) -> Pixels:
        from PIL import Image as pil

        if not re.fullmatch("[0-9a-f]{16}", id):
            raise ValueError(f"image id must be sixteen hex digits, got {id!r}")
        file = self._folder / "images" / f"{id}.png"
        try:
            with pil.open(file, formats=["PNG"]) as pixels:
                pixels.load()
        except Exception as error:  # Pillow's readers raise anything on bad bytes
            raise ValueError(f"{file} cannot be read: {first_line(error)}") from error
        if (found := Image(pixels).id) != id:
            raise ValueError(f"{file} was changed: its pixels have the id {found}")
        return pixels
