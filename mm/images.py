"""Pictures from outside, opened the way a person sees them or refused in one line."""

from __future__ import annotations

import io
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .errors import BadImage
from .geometry import Size
from .types import Image, Loaded

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels


MAX_PIXELS = 100_000_000
"""Width * height a picture may have unless told otherwise: 300 MB once decoded."""

MAX_ASPECT = 200.0
"""How many times longer one side may be than the other unless told otherwise."""

Source = str | Path | bytes | BinaryIO

# Pillow would run other programs for some of the rest (EPS starts Ghostscript)
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "MPO", "JPEG2000", "PPM", "ICO")

_URL = re.compile(r"(?:[a-z][a-z0-9+.-]+://|data:)", re.IGNORECASE)

_warnings = threading.Lock()  # catch_warnings changes the whole process: one thread at a time


def open_image(
    source: Source | Pixels | Image,
    *,
    max_pixels: int | None = None,
    max_aspect: float | None = None,
) -> Image:
    """The picture at `source` as a person sees it: upright, 8-bit RGB, on white, the first frame.

    Args:
        source: a path, the bytes of a file, an open binary file, or a PIL image; an `Image` comes
            back as it is.
        max_pixels: the most width * height; None means MM_MAX_PIXELS, or 100 million.
        max_aspect: the longest side over the shortest; None means MM_MAX_ASPECT, or 200.

    Raises:
        BadImage: there is no such file, it is no picture Pillow can read, or it is over a limit.
            Nothing over a limit is decoded.
    """
    if isinstance(source, Image):
        return source
    limits = _Limits(max_pixels, max_aspect)
    if isinstance(source, (str, Path)):
        with _open_file(str(source)) as file:
            return Image(_decode(repr(str(source)), file, limits), Loaded(str(source)))
    if isinstance(source, bytes):
        return Image(_decode(f"a picture of {len(source)} bytes", io.BytesIO(source), limits))
    if hasattr(source, "read"):
        file = io.BytesIO(source.read())  # type: ignore[union-attr]
        return Image(_decode(repr(getattr(source, "name", "an open file")), file, limits))
    if hasattr(source, "getbands"):
        return Image(_convert("a picture in memory", source, limits))  # type: ignore[arg-type]
    raise TypeError(f"a picture is a path, bytes, an open file or a PIL image, got {type(source)}")


def to_rgb(pixels: Pixels) -> Pixels:
    """A copy of `pixels` as a person sees them: upright, 8-bit RGB, on white."""
    from PIL import Image as pil

    pixels = _upright(pixels)
    if pixels.mode[0] in "IF":
        return _to_8_bits(pixels).convert("RGB")
    if not pixels.has_transparency_data:
        return pixels.convert("RGB")
    pixels = (pixels.convert("LA") if pixels.mode == "La" else pixels).convert("RGBA")
    return pil.alpha_composite(pil.new("RGBA", pixels.size, "white"), pixels).convert("RGB")


class _Limits:
    """What may be decoded."""

    def __init__(self, max_pixels: int | None, max_aspect: float | None) -> None:
        self.pixels = _from_environment("MM_MAX_PIXELS", MAX_PIXELS, max_pixels)
        self.aspect = _from_environment("MM_MAX_ASPECT", MAX_ASPECT, max_aspect)

    def check(self, name: str, size: Size) -> None:
        width, height = size
        if not width or not height:
            raise BadImage(f"{name} is {width}x{height}: it has no pixels")
        if width * height > self.pixels:
            raise BadImage(
                f"{name} is {width}x{height}, {width * height:,} pixels; the limit is"
                f" {self.pixels:,.0f}: shrink it, or raise max_pixels or MM_MAX_PIXELS"
            )
        if max(size) > self.aspect * min(size):
            raise BadImage(
                f"{name} is {width}x{height}, {max(size) / min(size):.0f} times as long as wide;"
                f" the limit is {self.aspect:g}: cut it, or raise max_aspect or MM_MAX_ASPECT"
            )


def _from_environment(name: str, default: float, given: float | None) -> float:
    if given is not None:
        return given
    written = os.environ.get(name, "")
    try:
        return float(written) if written else default
    except ValueError:
        raise ValueError(f"{name} must be a number, got {written!r}") from None


def _open_file(path: str) -> BinaryIO:
    if _URL.match(path):
        raise BadImage(f"{path[:80]!r} is a URL: download it and give the path of the file")
    try:
        if os.path.isdir(path):
            raise BadImage(f"{path!r} is a folder: give one picture in it")
        if os.path.exists(path) and not os.path.isfile(path):
            raise BadImage(f"{path!r} is a device or a pipe: copy its content to a file")
        return open(path, "rb")
    except FileNotFoundError:
        raise BadImage(f"{path!r} does not exist (looked in {os.getcwd()!r})") from None
    except PermissionError:
        raise BadImage(f"{path!r} may not be read: check its permissions") from None
    except OSError as error:
        raise BadImage(f"{path!r} cannot be opened: {error.strerror}") from None
    except BadImage:
        raise
    except ValueError as error:  # a NUL in the name
        raise BadImage(f"{path!r} is no path: {error}") from None


def _decode(name: str, file: BinaryIO, limits: _Limits) -> Pixels:
    from PIL import Image as pil

    pil.init()
    with _without_warnings():
        try:
            pixels = pil.open(file, formats=[f for f in _FORMATS if f in pil.OPEN])
        except pil.DecompressionBombError as error:
            raise BadImage(
                f"{name}: {error} Shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS and max_pixels"
                f" (now {limits.pixels:,.0f}; MM_MAX_PIXELS in the environment)"
            ) from None
        except Exception as error:  # Pillow's readers raise anything on bad bytes
            empty = not file.seek(0, io.SEEK_END)
            why = "it is empty (0 bytes)" if empty else _why_unreadable(error)
            raise BadImage(f"{name} is not a picture this Pillow can read: {why}") from None
    with pixels:
        return _convert(name, pixels, limits)


def _convert(name: str, pixels: Pixels, limits: _Limits) -> Pixels:
    limits.check(name, pixels.size)
    with _without_warnings():
        try:
            pixels.load()
            return to_rgb(pixels)
        except Exception as error:  # as above
            why = " ".join(str(error).split())
            raise BadImage(f"{name} is cut off or damaged: {why}") from None


def _why_unreadable(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "save it as JPEG or PNG (HEIC, SVG, RAW and PDF need converting too)"
    return " ".join(str(error).split())


@contextmanager
def _without_warnings() -> Iterator[None]:
    with _warnings, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _upright(pixels: Pixels) -> Pixels:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(pixels)
    except Exception:  # damaged notes do not damage the picture
        return pixels


def _to_8_bits(pixels: Pixels) -> Pixels:
    """Grey levels scaled down from 0..1, 0..255 or 0..65535, or else from their own range."""
    import numpy as np
    from PIL import Image as pil

    values = np.nan_to_num(np.asarray(pixels, dtype=np.float64), posinf=0, neginf=0)
    low, high = 0.0, float(values.max())
    if pixels.mode.startswith("I;16") or (pixels.mode == "I" and 255 < high <= 65535):
        high = 65535.0
    elif pixels.mode == "F" and high <= 1:
        high = 1.0
    elif high <= 255:
        high = 255.0
    if values.min() < 0 or high > 65535:
        low = float(values.min())
    scaled = (values - low) / max(high - low, 1e-9) * 255
    return pil.fromarray(scaled.round().astype(np.uint8))
