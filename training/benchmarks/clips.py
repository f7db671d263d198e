"""How long reading frames of clips takes, against plain PyAV and decord, which read equal frames.

    python -m training.benchmarks.clips --out clips-read.json

All sides take turns in one process and open the clip anew every time. The clips are made for it:
ten minutes, and an hour of 1080p.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import psutil
import typer

from training.evaluation.results import Row, command_line, envelope
from training.evaluation.views import numbers
from video.decode import open_video

from .clips_made import LongClip
from .clips_packets import given_packets, needed_packets
from .measure import Measured, processor, row_of, seconds

Read = Callable[[Path, LongClip, Sequence[int]], Sequence[Any]]
"""The frames of a clip at rising positions: RGB images, or arrays (H, W, 3)."""

COMPARED = 16
"""Frames that are compared before any are timed."""

HOUR_FRAMES = 64
HOUR_KEYS_S = (2, 10)
"""Seconds between the key frames of the clips of an hour."""

SAMPLED_S = 0.02
"""How often memory is looked at."""


def ours(path: Path, clip: LongClip, wanted: Sequence[int]) -> list[Any]:
    """By this toolkit."""
    video = open_video(path)
    return [frame.pixels for frame in video.frames_at([n / clip.fps for n in wanted])]


def decoded(path: Path, clip: LongClip, wanted: Sequence[int]) -> list[Any]:
    """By plain PyAV, which decodes all frames from the start to the last one wanted."""
    import av

    places, found = set(wanted), []
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for number, frame in enumerate(container.decode(video=0)):
            if number in places:
                found.append(frame.to_image())
            if number == wanted[-1]:
                break
    return found


def sought(path: Path, clip: LongClip, wanted: Sequence[int]) -> list[Any]:
    """By plain PyAV, which seeks to the key frame before each frame and decodes from there."""
    import av

    found = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        assert stream.time_base
        for number in wanted:
            stamp = round(number / clip.fps / stream.time_base)
            found.append(_sought(container, stream, stamp))
    return found


def sought_by_packets(path: Path, clip: LongClip, wanted: Sequence[int]) -> list[Any]:
    """The same where nobody says the frames' times, which are then read from all packets: of a clip
    of variable rate there is no other way to know them."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        stamps = sorted(
            {packet.pts for packet in container.demux(stream) if packet.pts is not None}
        )
        return [_sought(container, stream, stamps[number]) for number in wanted]


def _sought(container: Any, stream: Any, stamp: int) -> Any:
    container.seek(stamp, stream=stream)
    later = (f for f in container.decode(stream) if f.pts is not None and f.pts >= stamp)
    return next(later).to_image()


def by_decord(path: Path, clip: LongClip, wanted: Sequence[int]) -> Sequence[Any]:
    """By decord, in one batch."""
    import decord

    return decord.VideoReader(str(path)).get_batch(list(wanted)).asnumpy()


OTHERS: Mapping[str, Read] = {
    "PyAV decoding from the start": decoded,
    "PyAV seeking": sought,
    "PyAV seeking, times found": sought_by_packets,
    "decord": by_decord,
}


def differs(
    read: Read, path: Path, clip: LongClip, wanted: Sequence[int], right: Read = decoded
) -> bool:
    """Whether `read` gives other frames than `right`."""
    expected, found = (_digests(side(path, clip, wanted)) for side in (right, read))
    return found != expected


def _digests(frames: Sequence[Any]) -> list[bytes]:
    """Equal for equal frames: those of two sides would fill the memory."""
    return [sha256(np.asarray(frame).tobytes()).digest() for frame in frames]


def sides_on(path: Path, clip: LongClip) -> dict[str, Read]:
    """Who gives the right frames of a clip, by name; who does not, or is not installed, is left
    out.

    Raises:
        ValueError: ours are wrong.
    """
    wanted = clip.spread(COMPARED)
    if differs(ours, path, clip, wanted):
        raise ValueError(f"{path.name}: frames differ from those of decoding it from the start")
    able = {name: read for name, read in OTHERS.items() if name != "decord" or _version("decord")}
    return {n: read for n, read in able.items() if not differs(read, path, clip, wanted)}


def turns(
    path: Path,
    clip: LongClip,
    wanted: Sequence[int],
    sides: Mapping[str, Read],
    rounds: int,
    *,
    warming: int = 1,
) -> dict[str, tuple[float, ...]]:
    """Seconds of each side, round by round, after rounds that do not count."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(warming + rounds):
        for name, read in sides.items():
            with _anew(path) as same:
                found[name].append(seconds(partial(read, same, clip, wanted)))
    return {name: tuple(taken[warming:]) for name, taken in found.items()}


def spread_frames(
    folder: Path, clip: LongClip, counts: Sequence[int], rounds: int
) -> Iterator[Measured]:
    """So many frames, spread over a clip, against each of the others."""
    path = clip.write(folder)
    sides = sides_on(path, clip)
    for number in counts:
        taken = turns(path, clip, clip.spread(number), {"ours": ours, **sides}, rounds)
        for name in sides:
            yield Measured(f"{_named(clip, number)}, {name}", "s", taken["ours"], taken[name])


def against_seeking(path: Path, clip: LongClip, number: int, rounds: int) -> Measured:
    """So many frames, spread over a clip too long to be decoded.

    Raises:
        ValueError: ours are wrong.
    """
    if differs(ours, path, clip, clip.spread(COMPARED), right=sought):
        raise ValueError(f"{path.name}: frames differ from those that PyAV seeks")
    sides: dict[str, Read] = {"ours": ours, "PyAV": sought}
    taken = turns(path, clip, clip.spread(number), sides, rounds, warming=0)
    what = f"{_named(clip, number)}, {_keyed(clip)}, PyAV seeking"
    return Measured(what, "s", taken["ours"], taken["PyAV"])


def hours(folder: Path) -> Iterator[Measured]:
    """An hour of 1080p; first the memory, while no reader has begun."""
    for key_s in HOUR_KEYS_S:
        clip = LongClip(3600, (1920, 1080), key_s=key_s, short_s=max(4, key_s))
        path, wanted = clip.write(folder), clip.spread(HOUR_FRAMES)
        if key_s == HOUR_KEYS_S[0]:
            peak = memory_of(partial(ours, path, clip, wanted))
            what = f"{_named(clip, HOUR_FRAMES)}: memory while all are held"
            yield Measured(what, "MB", (peak / 1e6,))
        yield against_seeking(path, clip, HOUR_FRAMES, rounds=1)
        given, needed = float(given_packets(path, wanted)), float(needed_packets(path, wanted))
        what = f"{_named(clip, HOUR_FRAMES)}, {_keyed(clip)}: decoded, against what they need"
        yield Measured(what, "packets", (given,), (needed,))


def _named(clip: LongClip, number: int) -> str:
    return f"{number} frames of {clip.seconds / 60:g} min of {clip.size[1]}p"


def _keyed(clip: LongClip) -> str:
    return f"a key frame every {clip.key_s} s"


def memory_of(work: Callable[[], object]) -> float:
    """The most bytes that this process and those it starts hold in `work`, above their start."""
    done, before, most = threading.Event(), _held(), [0.0]

    def watch() -> None:
        while not done.wait(SAMPLED_S):
            most[0] = max(most[0], _more(before, _held()))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        result = work()
        most[0] = max(most[0], _more(before, _held()))
        del result
    finally:
        done.set()
        watching.join()
    return most[0]


def _more(before: Mapping[int, int], now: Mapping[int, int]) -> float:
    """By how much processes grew; one that has ended meanwhile hides nothing."""
    return sum(max(size - before.get(pid, 0), 0) for pid, size in now.items())


def _held() -> dict[int, int]:
    """Resident bytes, by the numbers of processes that come and go."""
    found: dict[int, int] = {}
    own = psutil.Process()
    for process in (own, *own.children(recursive=True)):
        with suppress(psutil.Error):
            found[process.pid] = process.memory_info().rss
    return found


@contextmanager
def _anew(path: Path) -> Iterator[Path]:
    """The file by another name: readers remember what they know of a clip."""
    same = path.with_name(f"{next(_numbers)}{path.suffix}")
    os.link(path, same)
    try:
        yield same
    finally:
        same.unlink()


_numbers = count()


def place() -> Row:
    """What the numbers depend on: the processor, its cores, and the versions of readers."""
    readers = {name: said for name in ("av", "decord") if (said := _version(name))}
    return {"processor": processor(), "cores": os.cpu_count(), "readers": readers}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def measures(minutes: int, hour: bool, rounds: int, counts: Sequence[int]) -> Iterator[Measured]:
    """All rows."""
    with TemporaryDirectory() as folder:
        if hour:
            yield from hours(Path(folder))
        yield from spread_frames(Path(folder), LongClip(60 * minutes, (640, 360)), counts, rounds)


def main(
    minutes: Annotated[int, typer.Option(min=1, help="Of the clip of 360p.")] = 10,
    frames: Annotated[str, typer.Option(help="How many of it: a,b.")] = "16,64,256",
    hour: Annotated[bool, typer.Option(help="Also read an hour of 1080p (a gigabyte).")] = True,
    rounds: Annotated[int, typer.Option(min=1, help="That count, of the clip of 360p.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Write the rows as JSON.")] = None,
) -> None:
    """Seconds of reading equal frames, and memory."""
    counts = [int(each) for each in frames.split(",") if each.isdigit()]
    if not counts or min(counts) < 1:
        raise typer.BadParameter(f"--frames takes whole numbers from 1, got {frames!r}")
    rows = []
    for measured in measures(minutes, hour, rounds, counts):
        rows.append(row_of(measured))
        print(numbers([{"rows": rows}])[-1], flush=True)  # as soon as it is measured
    if out:
        said = json.dumps(envelope(rows, [], command=command_line(), **place()), indent=1)
        out.write_text(said + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
