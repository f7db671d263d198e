"""Whether a clip is read where the first reader never returns, and what is left behind.

    python -m training.benchmarks.clips_hanging --out clips-hanging.json

In turns PyAV hangs from the start, and after the frames of its first answer; decord has to give
what is missing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import psutil
import typer
from rich.progress import track

from training.evaluation.results import Row, command_line, envelope
from training.evaluation.views import counts
from video.decode import by_readers
from video.frames import BadVideo
from video.reader_process import AT_ONCE, ReaderProcess

from .clips import place
from .clips_made import LongClip

CLIP = LongClip(8, (160, 96))
FRAMES = 2 * AT_ONCE
"""Asked for: two answers of a reader."""

_FOR_EVER = "import time; time.sleep(1e6)"
_AFTER_ONE_ANSWER = f"""
import sys, time
from video import pyav_reader, reader_process
read = pyav_reader.read_frames
def hanging(*about):
    for number, frame in enumerate(read(*about)):
        if number == {AT_ONCE}:
            time.sleep(1e6)
        yield frame
pyav_reader.read_frames = hanging
reader_process.serve("pyav")
"""
HANGS = {"from the start": _FOR_EVER, "after some frames": _AFTER_ONE_ANSWER}
"""What the process of a reader runs instead, by when it hangs."""


@dataclass(frozen=True)
class Ended:
    """One time of reading: whether all frames came, in how many seconds, and whether no process of
    the hanging reader was left."""

    answered: bool
    seconds: float
    gone: bool


def read_past(path: Path, code: str, other: ReaderProcess, timeout_s: float) -> Ended:
    """Read a clip by a reader that runs `code`, and where it does not answer by `other`."""
    before, began = _children(), time.monotonic()
    stuck = ReaderProcess("pyav", timeout_s=timeout_s, command=(sys.executable, "-c", code))
    try:
        video = by_readers(path, [stuck, other])
        times = [n / CLIP.fps for n in CLIP.spread(FRAMES)]
        answered = [round(f.time_s, 3) for f in video.frames_at(times)] == _rounded(times)
    except BadVideo:
        answered = False
    taken = time.monotonic() - began
    return Ended(answered, taken, _children() <= before)


def _rounded(times: Sequence[float]) -> list[float]:
    return [round(each, 3) for each in times]


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def rows_of(times: int, timeout_s: float) -> list[Row]:
    """A row for each way to hang, and one for what is left behind; `slowest_s` of one reading.

    Answered within the timeout is within that of the one that hangs and that of the other.
    """
    other = ReaderProcess("decord", timeout_s=timeout_s)
    with TemporaryDirectory() as folder:
        path = CLIP.write(Path(folder))
        other.info(path)
        found = {
            when: [read_past(path, code, other, timeout_s) for _ in track(range(times), when)]
            for when, code in HANGS.items()
        }
    other.close()
    return [
        *(_row(f"hangs {when}: read in time", found[when], timeout_s) for when in found),
        {
            "what": "the hanging process is gone",
            "right": sum(each.gone for ended in found.values() for each in ended),
            "n": times * len(found),
        },
    ]


def _row(what: str, ended: Sequence[Ended], timeout_s: float) -> Row:
    right = sum(each.answered and each.seconds < 2 * timeout_s for each in ended)
    slowest = max(each.seconds for each in ended)
    return {"what": what, "right": right, "n": len(ended), "slowest_s": slowest}


def main(
    times: Annotated[int, typer.Option(min=1, help="For each way to hang.")] = 100,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="Of a reader's silence.")] = 1.0,
    out: Annotated[Path | None, typer.Option(help="Write the rows as JSON.")] = None,
) -> None:
    """How often a clip is read all the same."""
    rows = rows_of(times, timeout_s)
    print(*counts([{"rows": rows}]), sep="\n")
    if out:
        about = {"command": command_line(), "timeout_s": timeout_s, **place()}
        said = json.dumps(envelope(rows, [], **about), indent=1)
        out.write_text(said + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
