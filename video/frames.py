"""What is known of a clip, and its frames: values."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mm.errors import UserError
from mm.geometry import Size

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

SAME_S = 1e-4
"""Times closer than this, in seconds, are the same: no frame is so short, no rounding so long."""


LEAST_S = 1e-3
"""A last frame that is said to be shown for less, in seconds, says nothing."""


class BadVideo(UserError):
    """A clip that cannot be used; one line that names it and says the remedy."""


@dataclass(frozen=True)
class Frame:
    """A frame as it is shown: upright, RGB.

    Attributes:
        time_s: when it is shown, as `ClipInfo.times_s` has it.
    """

    time_s: float
    pixels: Pixels = field(repr=False, compare=False)


@dataclass(frozen=True)
class Cue:
    """What subtitles say from `start_s` to `end_s`, in one line."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class ClipInfo:
    """What is in a clip, found without decoding it.

    Attributes:
        source: the path it was opened by, or a name for frames given in memory.
        size: (width, height) as shown: rotation and the shape of pixels taken into account.
        times_s: when each frame is shown, rising, in seconds from the first one's; of frames in
            memory as their times were given.
        duration_s: from the first frame's time until the last one goes.
        codec: its name, such as "h264"; "" where there is none.
        notes: what a person should know, such as that the sound is ignored.
        cues: subtitles by their starts; none but those that were given.
    """

    source: str
    size: Size
    times_s: tuple[float, ...] = field(repr=False)
    duration_s: float
    codec: str = ""
    notes: tuple[str, ...] = ()
    cues: tuple[Cue, ...] = field(default=(), repr=False)

    @property
    def start_s(self) -> float:
        """When the first frame is shown."""
        return self.times_s[0]

    @property
    def fps(self) -> float:
        """Frames a second, on average."""
        return len(self.times_s) / self.duration_s if self.duration_s > 0 else 0.0

    def index_at(self, time_s: float) -> int:
        """The frame shown at `time_s`; the first before the start, the last after the end."""
        return max(bisect_right(self.times_s, time_s + SAME_S) - 1, 0)


def end_s(times_s: Sequence[float], said_s: float, fps: float | None = None) -> float:
    """When the last of the frames shown from `times_s` on goes, in seconds.

    Where the file does not say, which is where `said_s` is no later than that frame, it stays as
    long as the one before it; a single frame for one at `fps`, or for a second.
    """
    if said_s - times_s[-1] >= LEAST_S:
        return said_s
    step = times_s[-1] - times_s[-2] if len(times_s) > 1 else 1 / fps if fps else 1.0
    return times_s[-1] + max(step, LEAST_S)
