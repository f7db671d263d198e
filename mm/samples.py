"""A question about images, in one line."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .images import open_image
from .trace import Sample
from .types import Image, message, user

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels


def question(
    text: str,
    *images: Image | Pixels | str | Path,
    id: str | None = None,
    target: str | None = None,
    choices: Sequence[str] = (),
    system: str | None = None,
) -> Sample:
    """A sample with one user message: the images, then `text`.

    `id` is by default a hash of the images, the text and the choices.

    Raises:
        BadImage: an image cannot be opened.
    """
    opened = tuple(open_image(image) for image in images)
    if id is None:
        content = "\0".join([*(i.id for i in opened), text, *choices])
        id = hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    sample = Sample(id, (user(*opened, text),), target=target, choices=tuple(choices))
    return instructed(sample, system)


def instructed(sample: Sample, system: str | None) -> Sample:
    """`sample` with a system message before its question; as it is where there is none."""
    if not system:
        return sample
    return replace(sample, prompt=(message("system", system), *sample.prompt))
