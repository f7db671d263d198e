"""Reads clips with PyAV: what is right where readers disagree.

Frames are turned as they are shown. Little more is decoded than the wanted ones need.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm.geometry import Size

from .frames import BadVideo
from .pyav_index import Index, decoding, square_width
from .pyav_index import read_index as read_index  # one module is a reader
from .tone import HLG, PQ, to_rgb

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

_EARLIER = (0, 1, 2, 4, 8)
"""By how many key frames a seek is moved back where it lands too late."""

_NEAR = 1
"""So many unwanted frames before a key frame are decoded rather than sought past: the packet after
a wanted frame's is decoded anyway."""

_DECODERS = 4
"""The most that work at once, each on frames of its own: all of them hold frames in memory."""

Sent = Callable[[Any], object]
"""Is called with each packet that a decoder is given."""


@dataclass(frozen=True)
class _Open:
    """A clip that is being read."""

    path: Path
    index: Index
    container: Any
    stream: Any
    sent: Sent | None


def read_frames(
    path: Path,
    index: Index,
    wanted: Sequence[int],
    size: Size | None = None,
    *,
    sent: Sent | None = None,
) -> Iterator[tuple[int, Pixels]]:
    """The frames at the positions `wanted`, in rising order, each once, resized to `size`.

    Decoding begins at the last key frame before a wanted one, unless it is already near that, and
    ends with the packet after that of the wanted one. Frames far apart are decoded several at a
    time.

    Raises:
        BadVideo: the file is damaged before a wanted frame.
    """
    runs = list(_runs(index, sorted(set(wanted))))
    count = _decoders(runs)
    threads = 0 if count == 1 else max(_cores() // count, 1)
    dealt = [[place for run in runs[n::count] for place in run] for n in range(count)]
    each = [_read(path, index, own, size, sent, threads) for own in dealt]
    yield from _in_turns(each, [n % count for n, run in enumerate(runs) for _ in run])


def _runs(index: Index, wanted: Iterable[int]) -> Iterator[list[int]]:
    """Positions, which rise, in groups that are decoded without a seek between their frames."""
    run: list[int] = []
    for position in wanted:
        if run and index.seeks and _better_to_seek(index, index.pts[run[-1]], position):
            yield run
            run = []
        run.append(position)
    if run:
        yield run


def _better_to_seek(index: Index, here: int, position: int) -> bool:
    """Whether a key frame lies between the stamp `here` and the frame at `position`, and not near
    `here`."""
    place = bisect_right(index.keys, index.pts[position]) - 1
    if place < 0 or index.keys[place] <= here:
        return False
    return bisect_left(index.pts, index.keys[place]) - bisect_right(index.pts, here) > _NEAR


def _decoders(runs: Sequence[Sequence[int]]) -> int:
    """How many work at once: one whose threads share its frames, where most of a run is wanted."""
    frames = sum(len(run) for run in runs)
    return max(min(_cores(), len(runs), _DECODERS), 1) if frames < 2 * len(runs) else 1


def _cores() -> int:
    """Those that this process may use, where the system tells."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def _in_turns(each: Sequence[Iterator[Any]], turns: Iterable[int]) -> Generator[Any]:
    """The next of one of the iterators, for each of `turns`; all are ahead by one, in threads."""
    if len(each) == 1:
        yield from each[0]
        return
    with ThreadPoolExecutor(len(each)) as pool:
        ahead = [pool.submit(next, one, None) for one in each]
        for turn in turns:
            found = ahead[turn].result()
            ahead[turn] = pool.submit(next, each[turn], None)
            yield found


def _read(
    path: Path,
    index: Index,
    wanted: Sequence[int],
    size: Size | None,
    sent: Sent | None,
    threads: int,
) -> Iterator[tuple[int, Pixels]]:
    """The frames at the positions `wanted`, which rise, by one decoder."""
    sparing = True
    with decoding(path, threads) as (container, stream):
        clip = _Open(path, index, container, stream, sent)
        left = list(reversed(wanted))
        while left:
            run, found = _first_run(index, left), False
            for frame in _decoded_from(clip, run, sparing):
                if frame.pts > index.pts[left[-1]]:
                    break  # passed by
                if frame.pts == index.pts[left[-1]]:
                    yield left.pop(), upright(frame, stream, size)
                    found = True
                    if frame.pts == run[-1]:
                        break
            if not found and not sparing:
                _lost(path, index, left[-1])
            sparing = sparing and found


def _first_run(index: Index, left: Sequence[int]) -> list[int]:
    """Stamps of the first run of `left`, whose order falls."""
    return [index.pts[position] for position in next(_runs(index, reversed(left)))]


def upright(frame: Any, stream: Any, size: Size | None = None) -> Pixels:
    """A decoded frame as it is shown: square pixels, turned, 8-bit RGB; resized to `size`."""
    from PIL import Image

    pixels = to_rgb(frame) if frame.color_trc in (PQ, HLG) else _converted(frame)
    wide = square_width(frame.width, stream)
    if wide != frame.width:
        pixels = pixels.resize((wide, frame.height), Image.Resampling.BICUBIC)
    if turned := round(frame.rotation) % 360:
        pixels = pixels.rotate(turned, expand=True)  # counter-clockwise, as the file means it
    return pixels if size in (None, pixels.size) else pixels.resize(size, Image.Resampling.BICUBIC)


def _converted(frame: Any) -> Pixels:
    """What `frame.to_image()` gives, which copies row by row: at 1080p ten times as long."""
    from PIL import Image

    return Image.fromarray(frame.to_ndarray(format="rgb24"))


def _decoded_from(clip: _Open, run: Sequence[int], sparing: bool) -> Iterator[Any]:
    """Decoded frames, from the last key frame that the first of `run` can be decoded from: where
    `sparing`, few more than `run` needs.

    Where a container seeks past that key frame, from an earlier one; at last from the start.
    """
    for key in _keys_before(clip.index, run[0]) if clip.index.seeks else ():
        clip.container.seek(key, stream=clip.stream, backward=True)
        packets = _packets(clip.container, clip.stream, clip.sent)
        frames = _needed(packets, clip.stream, run) if sparing else _all(packets, clip.stream)
        first = next(frames, None)
        if first is not None and first.key_frame and first.pts <= run[0]:
            yield first
            yield from frames
            return
    yield from _from_start(clip)


def _packets(container: Any, stream: Any, sent: Sent | None) -> Iterator[Any]:
    for packet in container.demux(stream):
        if sent and packet.size:
            sent(packet)
        yield packet


def _needed(packets: Iterable[Any], stream: Any, run: Sequence[int]) -> Iterator[Any]:
    """Frames of `run`, and those they need: not what no other refers to, and nothing after them.

    The packet after a wanted one is decoded too: it may hold the other field of its frame, or be
    what makes the decoder show it.
    """
    context, wanted, unsent = stream.codec_context, frozenset(run), set(run)
    before = True
    for packet in packets:
        over, here = not unsent, packet.pts is None or packet.pts in wanted
        if context.name == "h264":  # which says in each packet whether others refer to it
            whole = here or before or packet.is_keyframe
            context.skip_frame = "DEFAULT" if whole else "NONREF"
        yield from _stamped(packet.decode())
        if over:
            yield from _stamped(context.decode(None) if packet.size else ())
            return
        unsent.discard(packet.pts)
        before = here


def _all(packets: Iterable[Any], stream: Any) -> Iterator[Any]:
    stream.codec_context.skip_frame = "DEFAULT"
    for packet in packets:
        yield from _stamped(packet.decode())


def _stamped(frames: Iterable[Any]) -> Iterator[Any]:
    return (frame for frame in frames if frame.pts is not None)


def _keys_before(index: Index, target: int) -> list[int]:
    """Key frames to seek to: the last one before `target`, then earlier ones."""
    place = bisect_right(index.keys, target) - 1
    return [index.keys[place - back] for back in _EARLIER if place >= back]


def _from_start(clip: _Open) -> Iterator[Any]:
    """All frames, in a container opened anew: seeking to the start may fail too."""
    with decoding(clip.path) as (container, stream):
        packets = _packets(container, stream, clip.sent)
        decoded = (frame for packet in packets for frame in packet.decode())
        for number, frame in enumerate(decoded):
            if clip.index.step:
                frame.pts = number * clip.index.step
            if frame.pts is not None:
                yield frame


def _lost(path: Path, index: Index, position: int) -> None:
    time_s = index.info.times_s[position]
    raise BadVideo(f"{path}: the frame at {time_s:.2f} s cannot be decoded: the file is damaged")
