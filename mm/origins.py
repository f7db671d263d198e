"""What tells images apart, and where each came from: values, so that a trace can be replayed and
checked."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, get_args

from .geometry import Region, Size

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels


@dataclass(frozen=True)
class Loaded:
    """The image came from outside: a file path, or "" when it was handed over in memory."""

    source: str = ""


@dataclass(frozen=True)
class Cropped:
    """Cut from image `parent` (its id) at `region`, then resized to `size`.

    `copy` counts, from 0, the images of the same pixels that one prompt shows.
    """

    parent: str
    region: Region
    size: Size
    copy: int = 0


@dataclass(frozen=True)
class Drawn:
    """Made from image `parent` (its id); `what` names the drawing: "depth", "tiles", ..."""

    parent: str
    what: str


@dataclass(frozen=True)
class FrameOf:
    """A frame of the clip `video` (its source), shown from `time_s` seconds on; where two share
    their visual tokens, the second is shown from `second_s` on."""

    video: str
    time_s: float
    second_s: float | None = None

    @property
    def times_s(self) -> tuple[float, ...]:
        """When what it shows is shown, in seconds."""
        return (self.time_s,) if self.second_s is None else (self.time_s, self.second_s)


Origin = Loaded | Cropped | Drawn | FrameOf


_ORIGINS = {kind.__name__: kind for kind in get_args(Origin)}


def image_id(*frames: Pixels) -> str:
    """Sixteen hex digits of a hash over mode, size and pixels."""
    digest = hashlib.blake2b(digest_size=8)
    for pixels in frames:
        digest.update(f"{pixels.mode} {pixels.size}".encode())
        digest.update(pixels.tobytes())
    return digest.hexdigest()


def origin_row(origin: Origin) -> dict[str, Any]:
    """An origin as a row of JSON."""
    return {"kind": type(origin).__name__, **asdict(origin)}


def read_origin(row: dict[str, Any]) -> Origin:
    """The origin that `origin_row` wrote.

    Raises:
        KeyError, TypeError: the row is no such one.
    """
    facts: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
    kind = _ORIGINS[facts.pop("kind")]
    if "region" in facts:
        facts["region"] = Region(**facts["region"])
    return kind(**facts)
