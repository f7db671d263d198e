"""Reads clips with PyAV: what is right where readers disagree.

Times come from the packets, so nothing is decoded to learn them. Frames hidden by an edit list are
left out; of several video streams FFmpeg's best one is taken; frames are turned as they are shown.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mm.errors import first_line
from mm.geometry import Size

from .frames import BadVideo, ClipInfo, end_s
from .tone import to_rgb

if TYPE_CHECKING:
    from av.container import InputContainer
    from PIL.Image import Image as Pixels

MAX_FRAMES = 2_000_000
"""Nine hours at 60 frames a second; more is refused."""

# files that hold their frames themselves: a playlist would open others, or the network
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,nut,mxf,dv,rm,ivf,"
    "av1,obu,h264,hevc,vc1,m4v,gif,apng,yuv4mpegpipe"
)

_EARLIER = (0, 1, 2, 4, 8)
"""By how many key frames a seek is moved back where it lands too late."""

_USUAL_RATE = 25.0
"""Frames a second where nothing tells, as FFmpeg takes them."""

_NO_SOUND = "its sound is ignored"


@dataclass(frozen=True)
class Index:
    """Where the frames of a video stream are.

    Attributes:
        info: the same for people.
        pts: the presentation time stamp of each frame shown, rising, in units of the stream.
        keys: those of the frames that decoding can begin at, rising.
        step: where no frame has a stamp, from one to the next: they are counted from the file's
            start, and nothing is sought; else 0.
    """

    info: ClipInfo
    pts: tuple[int, ...] = field(repr=False)
    keys: tuple[int, ...] = field(repr=False)
    step: int = 0


def read_index(path: Path) -> Index:
    """The index of the best video stream of `path`.

    Raises:
        BadVideo: it is not a clip, or holds no frames.
    """
    with _opened(path) as container:
        stream = _best_stream(container, path)
        pts, keys, last, step = _stamps(container, stream) or _decoded_stamps(path)
        if not pts:
            raise BadVideo(f"{path}: there are no frames in it")
        base = float(stream.time_base)
        times = tuple((each - pts[0]) * base for each in pts)
        notes = (_NO_SOUND,) if container.streams.audio else ()
        info = ClipInfo(
            source=str(path),
            size=_shown_size(path),
            times_s=times,
            duration_s=end_s(times, (last - pts[0]) * base, _rate(stream)),
            codec=stream.codec_context.codec.canonical_name,
            notes=notes,
        )
    return Index(info, pts, keys, step)


def read_frames(
    path: Path, index: Index, wanted: Sequence[int], size: Size | None = None
) -> Iterator[tuple[int, Pixels]]:
    """The frames at the positions `wanted`, in rising order, each once, resized to `size`.

    Decoding begins at the last key frame before a wanted one, unless it is already past that.

    Raises:
        BadVideo: the file is damaged before a wanted frame.
    """
    with _decoding(path) as (container, stream):
        jumps = _seeks(container, index)
        left = sorted(set(wanted), reverse=True)
        while left:
            found = False
            for frame in _decoded_from(path, container, stream, index, left[-1]):
                while left and index.pts[left[-1]] < frame.pts:
                    _lost(path, index, left[-1])
                if left and frame.pts == index.pts[left[-1]]:
                    yield left.pop(), upright(frame, stream, size)
                    found = True
                if not left or (found and jumps and _better_to_seek(index, frame.pts, left[-1])):
                    break
            if not found:
                _lost(path, index, left[-1])


def upright(frame: Any, stream: Any, size: Size | None = None) -> Pixels:
    """A decoded frame as it is shown: square pixels, turned, 8-bit RGB; resized to `size`."""
    from PIL import Image

    pixels = to_rgb(frame)
    wide = _square_width(frame.width, stream)
    if wide != frame.width:
        pixels = pixels.resize((wide, frame.height), Image.Resampling.BICUBIC)
    if turned := round(frame.rotation) % 360:
        pixels = pixels.rotate(turned, expand=True)  # counter-clockwise, as the file means it
    return pixels if size in (None, pixels.size) else pixels.resize(size, Image.Resampling.BICUBIC)


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    """`path`, opened; FFmpeg's errors inside become one line."""
    import av
    from av import logging
    from av.error import FFmpegError

    # no level at all: with one, FFmpeg's threads wait for Python's lock, which may wait for them
    logging.set_level(None)
    try:
        options = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
        with av.open(f"file:{path}", options=options) as container:  # a name may hold a colon
            yield container
    except (FFmpegError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or first_line(error)
        raise BadVideo(
            f"{path} cannot be read as a clip: {why}: is it a clip, and whole?"
        ) from error


def _best_stream(container: InputContainer, path: Path) -> Any:
    stream = container.streams.best("video")
    if stream is None:
        what = "sound only" if container.streams.audio else "no video"
        raise BadVideo(f"{path} holds {what}: give a clip with frames")
    return stream


@contextmanager
def _decoding(path: Path) -> Iterator[tuple[InputContainer, Any]]:
    """`path`, opened, and its best video stream, which several threads decode."""
    with _opened(path) as container:
        stream = _best_stream(container, path)
        stream.thread_type = "AUTO"
        yield container, stream


class _Stamps(NamedTuple):
    """Time stamps of the frames shown and of key frames, and where the last frame ends; `step` as
    `Index` has it."""

    shown: tuple[int, ...]
    keys: tuple[int, ...]
    last: int
    step: int = 0


def _stamps(container: Any, stream: Any) -> _Stamps | None:
    """What the packets say; None where one has no time."""
    shown, keys, last = [], [], 0
    for packet in container.demux(stream):
        if packet.size == 0:
            continue
        pts = packet.pts if packet.pts is not None else packet.dts
        if pts is None:
            return None
        if packet.is_keyframe:
            keys.append(pts)
        if not packet.is_discard:
            shown.append(pts)
            last = max(last, pts + (packet.duration or 0))
        _check_length(container.name, len(shown))
    return _Stamps(tuple(sorted(set(shown))), tuple(sorted(keys)), last)


def _check_length(name: str, frames: int) -> None:
    if frames > MAX_FRAMES:
        raise BadVideo(f"{name}: more than {MAX_FRAMES:,} frames: cut it first")


def _decoded_stamps(path: Path) -> _Stamps:
    """The same by decoding, for files whose packets have no times.

    Where frames have none either, as in H.264 without a container, they are numbered by the rate.
    """
    with _decoding(path) as (container, stream):  # anew: such files cannot be sought in
        decoded = islice(container.decode(stream), MAX_FRAMES + 1)
        frames = [(frame.pts, frame.key_frame) for frame in decoded]
        _check_length(path.name, len(frames))
        step = max(round(1 / (_rate(stream) or _USUAL_RATE) / stream.time_base), 1)
    stamped = [(pts, key) for pts, key in frames if pts is not None]
    if not stamped and frames:
        shown = tuple(n * step for n in range(len(frames)))
        return _Stamps(shown, shown[:1], shown[-1] + step, step)
    shown = tuple(sorted({pts for pts, _ in stamped}))
    step = min((b - a for a, b in pairwise(shown)), default=0)
    keys = tuple(sorted({pts for pts, key in stamped if key}))
    return _Stamps(shown, keys, shown[-1] + step if shown else 0)


def _rate(stream: Any) -> float | None:
    """Frames a second; None where nothing tells."""
    rate = stream.guessed_rate or stream.average_rate
    return float(rate) if rate else None


def _decoded_from(
    path: Path, container: Any, stream: Any, index: Index, position: int
) -> Iterator[Any]:
    """Decoded frames, from the last key frame that the one at `position` can be decoded from.

    Where a container seeks past that, from an earlier one; at last from the start.
    """
    target = index.pts[position]
    for key in _keys_before(index, target) if _seeks(container, index) else ():
        container.seek(key, stream=stream, backward=True)
        first = next(frames := _frames(container, stream), None)
        if first is not None and first.key_frame and first.pts <= target:
            yield first
            yield from frames
            return
    yield from _from_start(path, index.step)


def _keys_before(index: Index, target: int) -> list[int]:
    """Key frames to seek to: the last one before `target`, then earlier ones."""
    place = bisect_right(index.keys, target) - 1
    return [index.keys[place - back] for back in _EARLIER if place >= back]


def _seeks(container: Any, index: Index) -> bool:
    """Whether seeking is trusted: in an MPEG program stream it gives frames with wrong stamps, and
    frames without stamps cannot be sought."""
    return container.format.name != "mpeg" and not index.step


def _from_start(path: Path, step: int) -> Iterator[Any]:
    """All frames, in a container opened anew: seeking to the start may fail too."""
    with _decoding(path) as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            if step:
                frame.pts = number * step
            if frame.pts is not None:
                yield frame


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    return (frame for frame in container.decode(stream) if frame.pts is not None)


def _better_to_seek(index: Index, here: int, position: int) -> bool:
    """Whether a key frame lies between the stamp `here` and the frame at `position`."""
    place = bisect_right(index.keys, index.pts[position]) - 1
    return place >= 0 and index.keys[place] > here


def _lost(path: Path, index: Index, position: int) -> None:
    time_s = index.info.times_s[position]
    raise BadVideo(f"{path}: the frame at {time_s:.2f} s cannot be decoded: the file is damaged")


def _shown_size(path: Path) -> Size:
    """The size of a first frame, as shown: its rotation is known from decoding one."""
    with _opened(path) as container:  # anew: not every file can be sought in
        stream = _best_stream(container, path)
        frame = next(container.decode(stream), None)
        if frame is None:
            raise BadVideo(f"{path}: none of its frames can be decoded")
        wide, high = _square_width(frame.width, stream), frame.height
    return (high, wide) if round(frame.rotation) % 180 else (wide, high)


def _square_width(width: int, stream: Any) -> int:
    """The width in square pixels."""
    ratio = stream.sample_aspect_ratio
    return width if not ratio or math.isclose(ratio, 1) else round(width * float(ratio))
