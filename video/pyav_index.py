"""Where the frames of a clip are, as PyAV finds it.

Times come from the packets: one frame is decoded, for the size. Frames hidden by an edit list are
left out; of several video streams FFmpeg's best one is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mm.errors import first_line
from mm.geometry import Size

from .frames import BadVideo, ClipInfo, end_s

if TYPE_CHECKING:
    from av.container import InputContainer

MAX_FRAMES = 2_000_000
"""Nine hours at 60 frames a second; more is refused."""

# files that hold their frames themselves: a playlist would open others, or the network
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,nut,mxf,dv,rm,ivf,"
    "av1,obu,h264,hevc,vc1,m4v,gif,apng,yuv4mpegpipe"
)

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
            start; else 0.
        seeks: whether seeking is trusted.
    """

    info: ClipInfo
    pts: tuple[int, ...] = field(repr=False)
    keys: tuple[int, ...] = field(repr=False)
    step: int = 0
    seeks: bool = True


def read_index(path: Path) -> Index:
    """The index of the best video stream of `path`.

    Raises:
        BadVideo: it is not a clip, or holds no frames.
    """
    with _opened(path) as container:
        stream = _best_stream(container, path)
        first: list[Any] = []
        packets = _with_first_frame(container.demux(stream), first)
        pts, keys, last, step = _stamps(container.name, packets) or _decoded_stamps(path)
        if not pts:
            raise BadVideo(f"{path}: there are no frames in it")
        base = float(stream.time_base)
        times = tuple((each - pts[0]) * base for each in pts)
        notes = (_NO_SOUND,) if container.streams.audio else ()
        info = ClipInfo(
            source=str(path),
            size=_shown_size(first[0], stream) if first else _decoded_size(path),
            times_s=times,
            duration_s=end_s(times, (last - pts[0]) * base, _rate(stream)),
            codec=stream.codec_context.codec.canonical_name,
            notes=notes,
        )
        # an MPEG program stream gives wrong stamps then, and what has none cannot be sought
        seeks = container.format.name != "mpeg" and not step
    return Index(info, pts, keys, step, seeks)


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
    """The stream to read; packets of others are no longer read."""
    from av.stream import Discard

    stream = container.streams.best("video")
    if stream is None:
        what = "sound only" if container.streams.audio else "no video"
        raise BadVideo(f"{path} holds {what}: give a clip with frames")
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    return stream


@contextmanager
def decoding(path: Path, threads: int = 0) -> Iterator[tuple[InputContainer, Any]]:
    """`path`, opened, and its best video stream, which so many threads decode; 0 for as many as
    there are cores."""
    with _opened(path) as container:
        stream = _best_stream(container, path)
        stream.thread_type, stream.codec_context.thread_count = "AUTO", threads
        yield container, stream


class _Stamps(NamedTuple):
    """Time stamps of the frames shown and of key frames, and where the last frame ends; `step` as
    `Index` has it."""

    shown: tuple[int, ...]
    keys: tuple[int, ...]
    last: int
    step: int = 0


def _with_first_frame(packets: Iterator[Any], found: list[Any]) -> Iterator[Any]:
    """`packets`, which are decoded until there is a frame in `found`: no seek back is needed."""
    for packet in packets:
        found += packet.decode()[:1]
        yield packet
        if found:
            break
    yield from packets


def _stamps(name: str, packets: Iterator[Any]) -> _Stamps | None:
    """What the packets say; None where one has no time."""
    shown, keys, last = [], [], 0
    for packet in packets:
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
        _check_length(name, len(shown))
    return _Stamps(tuple(sorted(set(shown))), tuple(sorted(keys)), last)


def _check_length(name: str, frames: int) -> None:
    if frames > MAX_FRAMES:
        raise BadVideo(f"{name}: more than {MAX_FRAMES:,} frames: cut it first")


def _decoded_stamps(path: Path) -> _Stamps:
    """The same by decoding, for files whose packets have no times.

    Where frames have none either, as in H.264 without a container, they are numbered by the rate.
    """
    with decoding(path) as (container, stream):  # anew: such files cannot be sought in
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


def _decoded_size(path: Path) -> Size:
    """As `_shown_size`, where the packets that were read gave no frame."""
    with _opened(path) as container:  # anew: not every file can be sought in
        stream = _best_stream(container, path)
        frame = next(container.decode(stream), None)
        if frame is None:
            raise BadVideo(f"{path}: none of its frames can be decoded")
        return _shown_size(frame, stream)


def _shown_size(frame: Any, stream: Any) -> Size:
    """The size of a frame as shown: its rotation is known from decoding one."""
    wide, high = square_width(frame.width, stream), frame.height
    return (high, wide) if round(frame.rotation) % 180 else (wide, high)


def square_width(width: int, stream: Any) -> int:
    """The width in square pixels."""
    ratio = stream.sample_aspect_ratio
    return width if not ratio or math.isclose(ratio, 1) else round(width * float(ratio))
