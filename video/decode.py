"""Opens clips: files of any codec, folders of frames, animated images, frames in memory.

Two readers stand behind one function: PyAV, which decides what is right, and decord, by name or
where PyAV fails. Each runs in a process of its own.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from mm.errors import first_line
from mm.geometry import Size
from mm.images import BadImage, open_image

from .frames import BadVideo, ClipInfo, Cue, Frame
from .reader_process import READERS, ReaderDied, ReaderProcess, ReaderTimeout

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

ReaderName = Literal["auto", "pyav", "decord"]

STILLS_FPS = 1.0
"""Frames a second of a folder of images, whose files say no times."""

_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_ANIMATED = (".gif", ".webp")
_PLAYLISTS = (b"#EXTM3U", b"ffconcat")
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_NATURAL = re.compile(r"(\d+)")


class Reading(Protocol):
    """Gives frames of one clip by position."""

    def __call__(
        self, wanted: Sequence[int], size: Size | None
    ) -> Iterator[tuple[int, Pixels]]: ...


class Video:
    """An open clip.

    Attributes:
        info: what is in it.
        reader: what reads it: "pyav", "decord", "images" or "memory".
    """

    def __init__(self, info: ClipInfo, reader: str, reading: Reading) -> None:
        self.info = info
        self.reader = reader
        self._reading = reading

    def frames_at(self, times_s: Sequence[float], size: Size | None = None) -> Iterator[Frame]:
        """The frames shown at `times_s`, rising, each once, with the times they begin at.

        Args:
            size: (width, height) to resize each to; None keeps the clip's.

        Raises:
            BadVideo: a frame cannot be decoded.
        """
        wanted = sorted({self.info.index_at(time_s) for time_s in times_s})
        for position, pixels in self._reading(wanted, size):
            yield Frame(self.info.times_s[position], pixels)

    def with_cues(self, cues: Sequence[Cue]) -> Video:
        """The same clip with subtitles, which are told beside its frames."""
        return Video(replace(self.info, cues=tuple(cues)), self.reader, self._reading)


_PROCESSES: dict[tuple[str, float], ReaderProcess] = {}


def open_video(
    source: str | Path, *, reader: ReaderName = "auto", timeout_s: float = 60.0
) -> Video:
    """The clip at `source`: a file, an animated GIF or WebP, or a folder of frames.

    Args:
        reader: "auto" takes PyAV, and decord where PyAV fails.
        timeout_s: the longest a reader may be silent; then the other one is asked.

    Raises:
        BadVideo: there is no such clip, or no reader can read it; one line says why.
    """
    if _URL.match(str(source)):
        raise BadVideo(f"{source}: give a file of this machine; addresses are not opened")
    path = Path(source).absolute()  # frames may be read after the working directory has changed
    named = partial(_named, path, str(Path(source)))
    with named():
        video = _opened(path, READERS if reader == "auto" else (reader,), timeout_s)
    info = replace(video.info, source=str(Path(source)))
    return Video(info, video.reader, partial(_reading_named, named, video))


def _opened(path: Path, readers: Sequence[str], timeout_s: float) -> Video:
    if os.path.isdir(path):  # Path.is_dir raises on a long name
        return _stills(path)
    if not os.path.isfile(path):
        raise BadVideo(f"{path}: there is no such clip")
    if path.suffix.lower() in _ANIMATED:
        return _animated(path)
    _check_no_playlist(path)
    return by_readers(path, [_process(name, timeout_s) for name in readers])


def _check_no_playlist(path: Path) -> None:
    """Refuse what names other files, or addresses: decord would open them."""
    try:
        with path.open("rb") as file:
            start = file.read(16).removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise BadVideo(f"{path} cannot be read as a clip: {error.strerror}") from error
    if start.startswith(_PLAYLISTS):
        raise BadVideo(f"{path} cannot be read as a clip: it is a playlist: give what it names")


@contextmanager
def _named(path: Path, source: str) -> Iterator[None]:
    """What is wrong with the clip at `path` is said of `source`, as the user wrote it."""
    try:
        yield
    except BadVideo as error:
        raise type(error)(str(error).replace(str(path), source)) from error


def _reading_named(
    named: Callable[[], AbstractContextManager[None]],
    video: Video,
    wanted: Sequence[int],
    size: Size | None,
) -> Iterator[tuple[int, Pixels]]:
    with named():
        yield from video._reading(wanted, size)


def by_readers(path: Path, processes: Sequence[ReaderProcess]) -> Video:
    """The clip as the first of `processes` reads it that can."""
    faults: list[BadVideo] = []
    for place, process in enumerate(processes):
        try:
            info = process.info(path)
        except BadVideo as error:
            faults.append(error)
        else:
            reading = partial(_read, path, info, processes[place:])
            return Video(info, process.reader, reading)
    raise faults[0]


def _read(
    path: Path,
    info: ClipInfo,
    processes: Sequence[ReaderProcess],
    wanted: Sequence[int],
    size: Size | None,
) -> Iterator[tuple[int, Pixels]]:
    """Frames from the first of `processes`; what it leaves where it hangs or crashes, from the next
    one that finds as many frames in the clip."""
    process, *others = processes
    left = list(wanted)
    try:
        for position, pixels in process.frames(path, wanted, size):
            left.remove(position)
            yield position, pixels
    except (ReaderTimeout, ReaderDied):
        if not others or not _finds_as_many(others[0], path, info):
            raise
        yield from _read(path, info, others, left, size)


def _finds_as_many(process: ReaderProcess, path: Path, info: ClipInfo) -> bool:
    try:
        return len(process.info(path).times_s) == len(info.times_s)
    except BadVideo:
        return False


def video_of(frames: Sequence[Pixels], times_s: Sequence[float], name: str = "frames") -> Video:
    """A clip of frames in memory, shown from `times_s` on, in seconds, at the first one's size.

    Raises:
        BadVideo: there are none, or the times do not rise, or are not as many.
    """
    if not frames:
        raise BadVideo(f"{name}: there are no frames in it")
    if len(frames) != len(times_s):
        raise BadVideo(f"{name}: {len(frames)} frames, and {len(times_s)} times")
    steps = [later - earlier for earlier, later in pairwise(times_s)]
    if min(steps, default=1.0) <= 0:
        raise BadVideo(f"{name}: the times of frames must rise, got {list(times_s)}")
    last = steps[-1] if steps else 1.0
    shown = tuple(float(t) for t in times_s)
    info = ClipInfo(name, frames[0].size, shown, shown[-1] - shown[0] + last)

    def reading(wanted: Sequence[int], size: Size | None) -> Iterator[tuple[int, Pixels]]:
        return ((i, _sized(frames[i].convert("RGB"), info.size, size)) for i in wanted)

    return Video(info, "memory", reading)


def _process(name: str, timeout_s: float) -> ReaderProcess:
    """The warm process of a reader."""
    return _PROCESSES.setdefault((name, timeout_s), ReaderProcess(name, timeout_s=timeout_s))


def _stills(folder: Path) -> Video:
    """Images of a folder, by the numbers in their names, a second each; of the first one's size."""
    try:
        files = [file for file in folder.iterdir() if _is_still(file)]
    except OSError as error:
        raise BadVideo(f"{folder} cannot be read as a clip: {error.strerror}") from error
    if not files:
        raise BadVideo(f"{folder}: there are no images in it ({', '.join(_IMAGES)})")
    files.sort(key=lambda file: [int(p) if p.isdecimal() else p for p in _NATURAL.split(file.name)])
    times = tuple(i / STILLS_FPS for i in range(len(files)))
    note = f"{len(files)} images, taken to be {1 / STILLS_FPS:g} s apart"
    size = _still(files[0]).size
    info = ClipInfo(str(folder), size, times, len(files) / STILLS_FPS, notes=(note,))

    def reading(wanted: Sequence[int], size: Size | None) -> Iterator[tuple[int, Pixels]]:
        return ((i, _sized(_still(files[i]), info.size, size)) for i in wanted)

    return Video(info, "images", reading)


def _is_still(file: Path) -> bool:
    """Whether it is a frame; what other systems leave beside files begins with a point."""
    return file.suffix.lower() in _IMAGES and not file.name.startswith(".")


def _still(file: Path) -> Pixels:
    try:
        return open_image(file).pixels
    except BadImage as error:
        raise BadVideo(str(error)) from error


def _animated(path: Path) -> Video:
    """The frames of an animated GIF or WebP, for as long as each says."""
    from PIL import ImageSequence

    with _animation(path) as image:
        size = open_image(path).size  # refuses too large a canvas before all frames are decoded
        durations = [_duration_s(frame) for frame in ImageSequence.Iterator(image)]
    starts = tuple(accumulate(durations, initial=0.0))
    info = ClipInfo(str(path), size, starts[:-1], starts[-1])

    def reading(wanted: Sequence[int], size: Size | None) -> Iterator[tuple[int, Pixels]]:
        with _animation(path) as image:
            for position in wanted:
                image.seek(position)
                yield position, _sized(open_image(image.copy()).pixels, info.size, size)

    return Video(info, "images", reading)


@contextmanager
def _animation(path: Path) -> Iterator[Any]:
    """An open animated image; whatever is wrong with it is one line.

    Raises:
        BadVideo: it cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=("GIF", "WEBP")) as image:
            yield image
    except Exception as error:  # what Pillow's readers raise depends on the damage
        why = first_line(error)
        raise BadVideo(f"{path} cannot be read as an animated image: {why}") from error


def _duration_s(frame: Pixels) -> float:
    """How long a frame of an animated image is shown; 0.1 s where it says 10 ms or less, or
    nothing: so all browsers show it."""
    frame.load()  # WebP says it only of frames that were decoded
    said_ms = frame.info.get("duration", 0)
    return said_ms / 1000 if said_ms > 10 else 0.1


def _sized(pixels: Pixels, shape: Size, size: Size | None) -> Pixels:
    """A frame of a clip of the size `shape`, resized to `size`; one of another shape keeps its own,
    between black bars."""
    from PIL import Image

    if not _same_shape(pixels.size, shape):
        pixels = _between_bars(pixels, shape)
    size = size or shape
    return pixels if size == pixels.size else pixels.resize(size, Image.Resampling.BICUBIC)


def _same_shape(size: Size, shape: Size) -> bool:
    """Whether `size`, made as large as `shape`, is that but for a pixel of rounding."""
    return all(abs(a - b) <= 1 for a, b in zip(_inside(size, shape), shape, strict=True))


def _inside(size: Size, shape: Size) -> Size:
    """`size` enlarged or reduced to where it fills `shape` to one side, and stays inside it."""
    scale = min(shape[0] / size[0], shape[1] / size[1])
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def _between_bars(pixels: Pixels, shape: Size) -> Pixels:
    from PIL import Image

    wide, high = _inside(pixels.size, shape)
    canvas = Image.new("RGB", shape)
    corner = (shape[0] - wide) // 2, (shape[1] - high) // 2
    canvas.paste(pixels.resize((wide, high), Image.Resampling.BICUBIC), corner)
    return canvas
