"""Traces on disk: a JSON line each in `traces.jsonl`, and every image as `images/ID.png`.

A line is written in one piece after its images, so a program that dies while writing leaves at
most one line cut off at the end. Reading warns and leaves it out; the next append removes it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import stat
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import BadTrace, door, first_line, quote
from .geometry import Region
from .origins import image_id, origin_row, read_origin
from .trace import Sample, Step, Trace
from .types import (
    Clip,
    Cost,
    Features,
    Image,
    Latents,
    Message,
    Part,
    Text,
    Thinking,
    ToolCall,
    ToolSpec,
)

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

log = logging.getLogger(__name__)

FILE = "traces.jsonl"
_REMEDY = "give a folder that `save_traces` or --save-trace wrote"


def save_traces(traces: Iterable[Trace], folder: str | Path) -> None:
    """Write `traces` to `folder`, in place of those it held.

    Raises:
        BadTrace: a trace holds something that JSON has no word for, or it cannot be written.
    """
    folder = Path(folder)
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"{FILE}.part"
        with unfinished.open("wb") as file:
            for trace in traces:
                line = _line(trace)
                _save_images(trace, folder)
                file.write(line)
        os.replace(unfinished, folder / FILE)


def append_trace(trace: Trace, folder: str | Path) -> None:
    """Add `trace` to those in `folder`, one program at a time; a cut-off last line goes first.

    Raises:
        BadTrace: as for `save_traces`.
    """
    folder, line = Path(folder), _line(trace)
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _save_images(trace, folder)
        _mend(folder / FILE)
        with (folder / FILE).open("ab", buffering=0) as file:
            file.write(line)


def check_folder(folder: str | Path) -> None:
    """Refuse a folder that no trace could be written to, before anything is done for one.

    Raises:
        BadTrace: it is a file, its name is none, or nobody may write there.
    """
    with _writing(Path(folder)):
        try:
            mode = os.stat(folder).st_mode
        except FileNotFoundError:
            mode = stat.S_IFDIR
        whole = Path(folder).absolute()
        there = next(each for each in (whole, *whole.parents) if each.exists())
        if not os.access(there, os.W_OK):
            raise BadTrace(f"cannot write traces to {str(folder)!r}: it may not be written to")
    if not stat.S_ISDIR(mode):
        raise BadTrace(f"traces go to a folder, and {str(folder)!r} is a file")


def load_traces(folder: str | Path) -> list[Trace]:
    """The traces in `folder`, in the order they were written. Images they share are read once.

    Raises:
        BadTrace: there is no `traces.jsonl`, a line is not a trace, or an image is not the one that
            was saved; says which.
    """
    file = Path(folder) / FILE
    images = _Images(Path(folder))
    traces = []
    with door(f"cannot read {str(file)!r}", BadTrace, _REMEDY):
        for number, line in _lines(file):
            with door(f"{file}, line {number}", BadTrace):
                traces.append(_read_trace(json.loads(line), images))
    return traces


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, BadTrace):
            raise
        why = getattr(error, "strerror", None) or first_line(error)
        raise BadTrace(f"cannot write traces to {str(folder)!r}: {why}") from error


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n") and not _is_json(line):
                log.warning(
                    "%s, line %d is cut off and left out: its writer was stopped", file, number
                )
            elif line.strip():
                yield number, line


def _mend(file: Path) -> None:
    """Make `file` end with a line break: a last line without one stays only if it is whole."""
    if not file.exists() or not file.stat().st_size:
        return
    with file.open("r+b") as lines:
        lines.seek(-1, os.SEEK_END)
        if lines.read() == b"\n":
            return
        lines.seek(0)
        *_, last = lines
        if _is_json(last):
            lines.write(b"\n")
        else:
            lines.truncate(file.stat().st_size - len(last))


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _line(trace: Trace) -> bytes:
    row = {
        "sample": {
            "id": trace.sample.id,
            "prompt": [_message(m) for m in trace.sample.prompt],
            "target": trace.sample.target,
            "choices": trace.sample.choices,
            "tags": dict(trace.sample.tags),
        },
        "strategy": trace.strategy,
        "steps": [_step(step) for step in trace.steps],
        "chosen": trace.chosen,
        "error": trace.error,
        "settings": dict(trace.settings),
    }
    try:
        return json.dumps(row).encode() + b"\n"
    except TypeError as error:
        raise BadTrace(f"trace of {quote(trace.sample.id)} cannot be saved: {error}") from None


def _read_trace(row: dict[str, Any], images: _Images) -> Trace:
    sample = row["sample"]
    prompt = tuple(_read_message(m, images) for m in sample["prompt"])
    sample = Sample(
        sample["id"], prompt, sample["target"], tuple(sample["choices"]), sample["tags"]
    )
    settings = row.get("settings", {})  # traces of older versions have none
    trace = Trace(
        sample, row["strategy"], chosen=row["chosen"], error=row["error"], settings=settings
    )
    for step in row["steps"]:
        trace.add(_read_step(step, images))
    if trace.chosen is not None and not 0 <= trace.chosen < len(trace.steps):
        raise ValueError(f"chosen {trace.chosen} is not one of {len(trace.steps)} steps")
    return trace


def _step(step: Step) -> dict[str, Any]:
    return {
        "message": _message(step.message),
        "parent": step.parent,
        "sampled": step.sampled,
        "logprobs": step.logprobs,
        "scores": dict(step.scores),
        "cost": asdict(step.cost),
        "finish": step.finish,
    }


def _read_step(row: dict[str, Any], images: _Images) -> Step:
    return Step(
        _read_message(row["message"], images),
        row["parent"],
        sampled=row["sampled"],
        logprobs=tuple(row["logprobs"]),
        scores=row["scores"],
        cost=Cost(**row["cost"]),
        finish=row.get("finish"),
    )


def _message(message: Message) -> dict[str, Any]:
    parts = [_part(part) for part in message.parts]
    return {"role": message.role, "parts": parts, "tokens": message.tokens}


def _read_message(row: dict[str, Any], images: _Images) -> Message:
    tokens = row["tokens"]
    parts = tuple(_read_part(part, images) for part in row["parts"])
    return Message(row["role"], parts, None if tokens is None else tuple(tokens))


def _part(part: Part) -> dict[str, Any]:
    match part:
        case Image():
            return _named("image", part)
        case Features():
            of = {"region": asdict(part.region), "pool": part.pool, "snapshot": part.snapshot}
            of = {**of, "copy": part.copy}
            return {**_named("features", part.image), **of}
        case Latents(image, key):
            of = {"key": key, "vectors": _written(part.vectors)}
            return {**_named("latents", image), **of}
        case Text(text):
            return {"text": text}
        case Thinking(text, closed):
            return {"thinking": text} if closed else {"thinking": text, "closed": False}
        case ToolCall(name, arguments):
            return {"call": name, "arguments": dict(arguments)}
        case ToolSpec(name, description, parameters):
            return {"tool": name, "description": description, "parameters": dict(parameters)}
        case Clip(source):
            return {"clip": source}


def _written(vectors: Any) -> dict[str, Any]:
    numbers = vectors.astype("<f4")
    return {"shape": list(numbers.shape), "base64": b64encode(numbers.tobytes()).decode()}


def _read_vectors(row: dict[str, Any]) -> Any:
    import numpy as np

    return np.frombuffer(b64decode(row["base64"]), "<f4").reshape(row["shape"])


def _read_part(row: dict[str, Any], images: _Images) -> Part:
    match row:
        case {"image": id}:
            return images.image(id, row)
        case {"features": id, "region": region, "pool": p, "snapshot": snapshot}:
            image = images.image(id, row)
            return Features(image, Region(**region), p, snapshot, row.get("copy", 0))
        case {"latents": id, "key": key, "vectors": vectors}:
            image = images.image(id, row)
            return Latents(image, key, _read_vectors(vectors))
        case {"text": text}:
            return Text(text)
        case {"thinking": text}:
            return Thinking(text, row.get("closed", True))
        case {"call": name, "arguments": arguments}:
            return ToolCall(name, arguments)
        case {"tool": name, "description": description, "parameters": parameters}:
            return ToolSpec(name, description, parameters)
        case {"clip": source}:
            return Clip(source)
    raise ValueError(f"no such part: {', '.join(row)}")


def _named(kind: str, image: Image) -> dict[str, Any]:
    """The ids of the files that hold its pixels, and its origin, as a row of JSON has them."""
    files = {name: id for name, (id, _) in zip((kind, "second"), _pixels(image), strict=False)}
    return {**files, "origin": origin_row(image.origin)}


def _pixels(image: Image) -> list[tuple[str, Pixels]]:
    """What is kept of it, each with its id."""
    if image.second is None:
        return [(image.id, image.pixels)]
    return [(image_id(each), each) for each in (image.pixels, image.second)]


def _save_images(trace: Trace, folder: Path) -> None:
    (folder / "images").mkdir(exist_ok=True)
    messages = [*trace.sample.prompt, *(step.message for step in trace.steps)]
    for seen in (seen for message in messages for seen in message.visuals):
        for id, pixels in _pixels(seen.source):
            file = folder / "images" / f"{id}.png"
            if not file.exists():
                unfinished = file.with_suffix(".part")
                pixels.save(unfinished, "PNG")
                os.replace(unfinished, file)


class _Images:
    """The images of a folder, each read and checked once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened: dict[str, Pixels] = {}

    def image(self, id: str, row: dict[str, Any]) -> Image:
        """What `_named` has written as `row`; `id` is that of its first file."""
        second = self._open(row["second"]) if "second" in row else None
        return Image(self._open(id), read_origin(row["origin"]), second)

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
