"""A row's images: from a path beside the file, bytes, base64, or, if allowed, a URL."""

from __future__ import annotations

import base64
import os
import re
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.request import Request, urlopen

from mm.errors import BadImage
from mm.images import open_image
from mm.types import Image

from .readers import brief

MAX_BYTES = 50 * 2**20
"""The largest image that is downloaded."""

MAX_PATH = 4096
"""The longest path of an image."""

_PATIENCE_S = 20
_URL = re.compile(r"(?:[a-z][a-z0-9+.-]+://)", re.IGNORECASE)
_DATA = re.compile(r"data:(?:image/[\w.+-]+|application/octet-stream)?;base64,", re.IGNORECASE)
_BASE64 = re.compile(
    r"(?:(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR)[A-Za-z0-9+/\s]{40,}|[A-Za-z0-9+/\s]{256,})={0,2}\s*"
)
"""Base64 that begins as images do, or is longer than any file's name may be."""


@dataclass(frozen=True)
class Access:
    """What a file of rows may name besides images in its own folder.

    Attributes:
        absolute_paths: images anywhere on this machine, `..` too.
        urls: images on the web, downloaded each time they are read.
    """

    absolute_paths: bool = False
    urls: bool = False


def open_row_image(value: Any, folder: Path, access: Access) -> Image:
    """The image that a row names.

    `value` is a path from `folder`, a URL, a data URI or its bare base64, bytes, a PIL image, or
    Arrow's `{"bytes", "path"}`.

    Raises:
        ValueError: it names no image, may not be read, or cannot be.
    """
    if isinstance(value, dict) and {"bytes", "path"} & value.keys():
        value = value.get("bytes") or value.get("path")
    try:
        return open_image(_source(value, folder, access))
    except BadImage as error:
        raise ValueError(f"expected an image, found that {error}") from None


def row_file(value: Any, folder: Path, access: Access) -> str:
    """Where a file lies that a row names besides its images, such as a depth map or a clip.

    Raises:
        ValueError: it is no path, may not be read, or is not there.
    """
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_PATH:
        raise ValueError(f"expected the path of a file, found {brief(value)}")
    if _URL.match(value):
        found = f"found the URL {value[:80]!r}"
        raise ValueError(f"expected the path of a file, {found}: download it (images alone may be)")
    if not access.absolute_paths and _leaves_folder(value):
        raise ValueError(
            f"expected a path inside the file's folder, found {brief(value)}"
            " (--allow-absolute-paths)"
        )
    path = folder / value
    if not os.path.exists(path):  # Path.exists raises on a long name
        raise ValueError(f"expected a file, found none at {brief(value)}")
    return str(path)


def _source(value: Any, folder: Path, access: Access) -> Any:
    if isinstance(value, bytes) or hasattr(value, "getbands"):
        return value
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"expected the path of an image, found {brief(value)}")
    if found := _DATA.match(value):
        return _decoded(value[found.end() :])
    if _BASE64.fullmatch(value):
        return _decoded(value)
    if _URL.match(value) or value.startswith("data:"):
        return _downloaded(value, access)
    if not access.absolute_paths and _leaves_folder(value):
        raise ValueError(
            f"expected a path inside the file's folder, found {brief(value)}"
            " (--allow-absolute-paths)"
        )
    if len(value) > MAX_PATH:
        raise ValueError(f"expected a path of at most {MAX_PATH} characters, found {brief(value)}")
    return folder / value


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError as error:
        raise ValueError(f"expected base64 of an image, found {error}") from None


def _downloaded(url: str, access: Access) -> bytes:
    if not url.lower().startswith(("http://", "https://")):
        raise ValueError(f"expected a path, found the URL {url[:80]!r}: give the image's path")
    if not access.urls:
        remedy = "download it, or give --allow-urls to mm data or mm train"
        raise ValueError(f"expected a path, found the URL {url[:80]!r}: {remedy}")
    try:
        request = Request(url, headers={"User-Agent": "multimodal-reasoning"})
        with urlopen(request, timeout=_PATIENCE_S) as reply:
            content = reply.read(MAX_BYTES + 1)
    except (OSError, ValueError, HTTPException) as error:
        raise ValueError(f"expected an image at {url[:80]!r}, found that {error}") from None
    if len(content) > MAX_BYTES:
        raise ValueError(f"expected at most {MAX_BYTES >> 20} MiB at {url[:80]!r}, found more")
    return content


def _leaves_folder(path: str) -> bool:
    windows = PureWindowsPath(path)  # understands both slashes
    return bool(windows.anchor or ".." in windows.parts)
