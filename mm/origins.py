"""Where an image came from: values, so that a trace can be replayed and checked."""

from __future__ import annotations

from dataclasses import dataclass

from .geometry import Region, Size


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
