"""A question about images and clips, in one line."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .images import is_animated, open_image
from .trace import Sample
from .types import Clip, Image, message, user

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels


def question(
    text: str,
    *images: Image | Pixels | Clip | str | Path,
    id: str | None = None,
    target: str | None = None,
    choices: Sequence[str] = (),
    system: str | None = None,
) -> Sample:
    """A sample with one user message: the images and clips, then `text`.

    A path with the suffix of a clip, to an animated GIF or WebP, or to a folder, is a `Clip`; so is
    what `video.clip_of` makes.
    `id` is by default a hash of the images, the clips' paths, the text and the choices.

    Raises:
        BadImage: an image cannot be opened.
    """
    opened = tuple(_opened(image) for image in images)
    if id is None:
        named = (i.source if isinstance(i, Clip) else i.id for i in opened)
        content = "\0".join([*named, text, *choices])
        id = hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    sample = Sample(id, (user(*opened, text),), target=target, choices=tuple(choices))
    return instructed(sample, system)


CLIPS = frozenset(
    f".{name}"
    for name in (
        *("3g2", "3gp", "264", "265", "asf", "avi", "divx", "dv", "f4v", "flv", "h264", "h265"),
        *("hevc", "ivf", "m1v", "m2ts", "m2v", "m4v", "mj2", "mkv", "mov", "mp4", "mpe", "mpeg"),
        *("mpg", "mts", "mxf", "nut", "obu", "ogv", "qt", "rm", "rmvb", "ts", "vc1", "vob"),
        *("webm", "wmv", "y4m"),
    )
)
"""Suffixes of clips."""

_ANIMATED = (".gif", ".webp")


def is_clip(path: str | Path) -> bool:
    """Whether `path` names a clip: by its suffix, because it is a folder, of frames, or because it
    is a GIF or WebP of several frames."""
    suffix = Path(path).suffix.lower()
    known = suffix in CLIPS or os.path.isdir(path)  # Path.is_dir raises on a long name
    return known or (suffix in _ANIMATED and is_animated(path))


def _opened(source: Image | Pixels | Clip | str | Path) -> Image | Clip:
    if isinstance(source, Clip):
        return source
    if isinstance(source, str | Path) and is_clip(source):
        return Clip(str(source))
    return open_image(source)


def instructed(sample: Sample, system: str | None) -> Sample:
    """`sample` with a system message before its question; as it is where there is none."""
    if not system:
        return sample
    return replace(sample, prompt=(message("system", system), *sample.prompt))
