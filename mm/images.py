"""Images from outside, opened the way a person sees them or refused in one line."""

from __future__ import annotations

import io
import math
import os
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .errors import BadImage
from .geometry import Size
from .origins import Loaded
from .types import Image

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels


MAX_PIXELS = 100_000_000
"""Width * height an image may have unless told otherwise: 300 MB once decoded."""

MAX_ASPECT = 200.0
"""How many times longer one side may be than the other unless told otherwise."""

Source = str | Path | bytes | BinaryIO

# Pillow would run other programs for some of the rest (EPS starts Ghostscript)
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "MPO", "JPEG2000", "PPM", "ICO")

_URL = re.compile(r"(?:[a-z][a-z0-9+.-]+://|data:)", re.IGNORECASE)

# one filter for the whole process: catch_warnings would need a lock around all decoding
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)

_PNG = b"\x89PNG\r\n\x1a\n"
_SHOWN_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf")

_MISTAKEN = (
    (b"<!doctype html", "it is a web page: download the image itself"),
    (b"<html", "it is a web page: download the image itself"),
    (b"version https://git-lfs", "it is a pointer of Git LFS: run `git lfs pull` for the image"),
)

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""EXIF's orientations, and what turns the pixels upright."""


def open_image(
    source: Source | Pixels | Image,
    *,
    max_pixels: int | None = None,
    max_aspect: float | None = None,
) -> Image:
    """The image at `source` as a person sees it: upright, 8-bit RGB, on white, the first frame.

    Args:
        source: a path, the bytes of a file, an open binary file, or a PIL image; an `Image` comes
            back as it is.
        max_pixels: the most width * height; None means MM_MAX_PIXELS, or 100 million. More than
            Pillow itself allows raises Pillow's limit in this process.
        max_aspect: the longest side over the shortest; None means MM_MAX_ASPECT, or 200.

    Raises:
        BadImage: there is no such file, it is not an image Pillow can read, or it is over a limit.
            Nothing over a limit is decoded.
    """
    if isinstance(source, Image):
        return source
    limits = _Limits(max_pixels, max_aspect)
    _prepare(limits)
    if isinstance(source, (str, Path)):
        with _open_file(str(source)) as file:
            return Image(_decode(repr(str(source)), file, limits), Loaded(str(source)))
    if isinstance(source, bytes):
        return Image(_decode(f"an image of {len(source)} bytes", io.BytesIO(source), limits))
    if hasattr(source, "read"):
        file = io.BytesIO(source.read())  # type: ignore[union-attr]
        return Image(_decode(repr(getattr(source, "name", "an open file")), file, limits))
    if hasattr(source, "getbands"):
        return Image(_convert("an image in memory", source, limits))  # type: ignore[arg-type]
    raise TypeError(f"an image is a path, bytes, an open file or a PIL image, got {type(source)}")


def is_animated(path: str | Path) -> bool:
    """Whether the file at `path` is an image of several frames; not where it cannot be read."""
    from PIL import Image as pil

    try:
        _prepare(_Limits(None, None))
        with _open_file(str(path)) as file, pil.open(file) as image:
            return getattr(image, "is_animated", False)
    except Exception:  # Pillow's readers raise anything on bad bytes; `open_image` says what
        return False


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
                f" the limit is {self.aspect:g}: cut it into pieces; max_aspect or MM_MAX_ASPECT"
                " raise it for models that take more (Qwen's take 200)"
            )


def _from_environment(name: str, default: float, given: float | None) -> float:
    if given is not None:
        return given
    written = os.environ.get(name, "")
    try:
        number = float(written) if written else default
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadImage(f"{name} must be a number, got {written!r}")
    return number


def _open_file(path: str) -> BinaryIO:
    if _URL.match(path):
        raise BadImage(f"{path[:80]!r} is a URL: download it and give the path of the file")
    try:
        if os.path.isdir(path):
            raise BadImage(f"{path!r} is a folder: give one image in it")
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


class _Unreadable(BadImage):
    """Pillow's reader gave up."""


def _decode(name: str, file: BinaryIO, limits: _Limits) -> Pixels:
    try:
        return _read(name, file, limits)
    except _Unreadable:
        bare = _bare_png(file)
        if bare is None:
            raise
    return _read(name, bare, limits)


def _read(name: str, file: BinaryIO, limits: _Limits) -> Pixels:
    from PIL import Image as pil

    try:
        pixels = pil.open(file, formats=[f for f in _FORMATS if f in pil.OPEN])
    except pil.DecompressionBombError as error:
        raise BadImage(
            f"{name}: {error} Shrink it, or raise max_pixels or MM_MAX_PIXELS"
            f" (now {limits.pixels:,.0f})"
        ) from None
    except Exception as error:  # Pillow's readers raise anything on bad bytes
        why = _why_unreadable(file, error)
        raise _Unreadable(f"{name} is not an image this Pillow can read: {why}") from error
    with pixels:
        return _convert(name, pixels, limits)


def _prepare(limits: _Limits) -> None:
    """Pillow with its readers, without its warnings, and with no lower limit than ours."""
    from PIL import Image as pil

    pil.init()
    if _QUIET not in warnings.filters:
        warnings.filterwarnings("ignore", module=_QUIET[3].pattern)
    # it refuses from twice its limit on
    if pil.MAX_IMAGE_PIXELS is not None and limits.pixels > 2 * pil.MAX_IMAGE_PIXELS:
        pil.MAX_IMAGE_PIXELS = math.ceil(limits.pixels / 2)


def _bare_png(file: BinaryIO) -> BinaryIO | None:
    """The PNG in `file` without notes, profiles and frames; None where it is no PNG.

    Pillow refuses a sound image for a text of over a megabyte, or a wrong checksum in a note.
    """
    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    if file.read(8) != _PNG:
        return None
    bare = io.BytesIO(_PNG)
    bare.seek(0, io.SEEK_END)
    while len(head := file.read(8)) == 8:
        body = min(int.from_bytes(head[:4], "big") + 4, end - file.tell())
        if head[4:] in _SHOWN_CHUNKS:
            bare.write(head + file.read(body))
        else:
            file.seek(body, io.SEEK_CUR)
    return bare


def _convert(name: str, pixels: Pixels, limits: _Limits) -> Pixels:
    limits.check(name, pixels.size)
    try:
        pixels.load()
        return to_rgb(pixels)
    except Exception as error:  # as above
        why = " ".join(str(error).split())
        raise _Unreadable(f"{name} is cut off or damaged: {why}") from error


def _why_unreadable(file: BinaryIO, error: Exception) -> str:
    from PIL import UnidentifiedImageError

    file.seek(0)
    begin = file.read(64).lstrip().lower()
    for mistaken, why in _MISTAKEN:
        if begin.startswith(mistaken):
            return why
    if not begin:
        return "it is empty (0 bytes)"
    if isinstance(error, UnidentifiedImageError):
        return "save it as JPEG or PNG (HEIC, SVG, RAW and PDF need converting too)"
    return " ".join(str(error).split())


def _upright(pixels: Pixels) -> Pixels:
    from PIL import Image as pil

    turn = _UPRIGHT.get(_orientation(pixels))
    return pixels if turn is None else pixels.transpose(pil.Transpose[turn])


def _orientation(pixels: Pixels) -> int:
    try:
        found = pixels.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged notes do not damage the image
        return 1
    return found if isinstance(found, int) else 1


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
