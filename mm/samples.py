"""A question about pictures, in one line."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .images import open_image
from .trace import Sample
from .types import Image, user

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels


def question(
    text: str,
    *images: Image | Pixels | str | Path,
    id: str | None = None,
    target: str | None = None,
    choices: Sequence[str] = (),
) -> Sample:
    """A sample with one user message: the pictures, then `text`.

    `id` is by default a hash of the pictures, the text and the choices.

    Raises:
        BadImage: a picture cannot be opened.
    """
    opened = tuple(open_image(image) for image in images)
    if id is None:
        content = "\0".join([*(i.id for i in opened), text, *choices])
        id = hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return Sample(id, (user(*opened, text),), target=target, choices=tuple(choices))
