"""Reads clips with decord, which knows no edit lists and seeks wrongly in some files.

It is admitted for a file only after the frames that it seeks are those that it reads in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm.errors import first_line
from mm.geometry import Size

from .frames import BadVideo, ClipInfo, end_s

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

_SAMPLES = 3
"""Seeked frames that must equal those read in order."""

_IN_ORDER = 240
"""The most frames read in order for that, from the start."""


@dataclass(frozen=True)
class Index:
    """A reader that was admitted, and what it says of the clip."""

    info: ClipInfo
    reader: Any


def read_index(path: Path) -> Index:
    """The index of a clip that decord can be trusted with.

    Raises:
        BadVideo: decord cannot open it, or seeks to other frames than it reads.
    """
    reader = _opened(path)
    if len(reader) == 0:
        raise BadVideo(f"{path}: there are no frames in it")
    _check_seeks(path, reader)
    starts = [float(start) for start, _ in reader.get_frame_timestamp(range(len(reader)))]
    ends = reader.get_frame_timestamp(len(reader) - 1)
    high, wide, _ = reader[0].shape
    times = tuple(start - starts[0] for start in starts)
    info = ClipInfo(
        source=str(path),
        size=(wide, high),
        times_s=times,
        duration_s=end_s(times, float(ends[1]) - starts[0], reader.get_avg_fps()),
    )
    return Index(info, reader)


def read_frames(
    path: Path, index: Index, wanted: Sequence[int], size: Size | None = None
) -> Iterator[tuple[int, Pixels]]:
    """The frames at the positions `wanted`, in rising order, each once, resized to `size`."""
    from PIL import Image

    for position in sorted(set(wanted)):
        (array,) = index.reader.get_batch([position]).asnumpy()
        pixels = Image.fromarray(array)
        if size not in (None, pixels.size):
            pixels = pixels.resize(size, Image.Resampling.BICUBIC)
        yield position, pixels


def _opened(path: Path) -> Any:
    try:
        import decord
    except ImportError:
        raise BadVideo("decord is not installed here: take another reader") from None
    try:
        return decord.VideoReader(str(path), num_threads=1)
    except Exception as error:  # its own class, made at run time
        raise BadVideo(f"{path}: decord cannot open it: {first_line(error)}") from error


def _check_seeks(path: Path, reader: Any) -> None:
    count = min(len(reader), _IN_ORDER)
    wanted = sorted({count * k // _SAMPLES for k in range(_SAMPLES)} | {count - 1})
    in_order, expected = _opened(path), {}
    for position in range(count):
        frame = in_order.next()
        if position in wanted:  # all of them would be gigabytes
            expected[position] = frame.asnumpy()
    for position in reversed(wanted):
        seeked = reader.get_batch([position]).asnumpy()[0]
        if not (seeked == expected[position]).all():
            raise BadVideo(f"{path}: decord seeks to a wrong frame at position {position}")
