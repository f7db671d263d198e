"""A reader in a process of its own: kept warm between clips, killed where it never returns.

Decoders are C code that hangs or crashes on some files; neither may take the caller along.
It talks pickles over its pipes.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import struct
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mm.geometry import Size

from .frames import BadVideo, ClipInfo

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

READERS = ("pyav", "decord")
"""By name; the first is the default, and decides what is right."""

AT_ONCE = 8
"""Frames that one question gives: so many are in memory at once."""

REMEMBERED = 8
"""Clips whose indexes a process holds, since threads read theirs in turns."""

_LENGTHS = struct.Struct(">QQ")
"""Of a pickle, and of the pixels that follow it."""

_PIPE_BYTES = 2**20
"""What a pipe holds where the system allows it: with its usual 64 KiB, a frame stops and wakes both
ends a dozen times."""


_LONGEST_LINE = 300
"""Of what is kept of its last words."""

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from video.reader_process import serve; serve(sys.argv[1])"
)
"""The process finds modules where the parent does: a folder of packages in PYTHONPATH would come
before the standard library."""


class ReaderTimeout(BadVideo):
    """A reader did not answer in time, and was ended."""


class ReaderDied(BadVideo):
    """A reader's process ended in the middle of its work."""


class ReaderProcess:
    """A process that runs one reader; starts when it is first asked.

    Any number of threads may ask, and of clips be read in turns; one question is answered at a
    time. Paths are absolute: the working directory may change after the process has begun.

    Args:
        reader: one of `READERS`.
        timeout_s: the longest silence between two answers.
        command: what to run in place of the reader's own process, for tests.
    """

    def __init__(
        self, reader: str, *, timeout_s: float = 60.0, command: Sequence[str] | None = None
    ) -> None:
        self.reader = reader
        self.timeout_s = timeout_s
        self._command = command or (sys.executable, "-P", "-c", _START, reader, _paths())
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._said: deque[str] = deque(maxlen=1)
        self._overhears: threading.Thread | None = None
        self._lock = threading.Lock()
        weakref.finalize(self, _end, holder := [None])
        self._holder: list[subprocess.Popen[bytes] | None] = holder

    def info(self, path: Path) -> ClipInfo:
        """What is in a clip.

        Raises:
            BadVideo: the reader cannot read it, or did not answer.
        """
        (info,) = self._answers_to("info", path)
        return info

    def frames(
        self, path: Path, wanted: Sequence[int], size: Size | None = None
    ) -> Iterator[tuple[int, Pixels]]:
        """Frames by position, rising, each once; read a few at a time, as they are taken.

        Raises:
            BadVideo: the file is damaged before a wanted frame, or the reader did not answer.
        """
        from PIL import Image

        left = tuple(sorted(set(wanted)))
        while left:
            for position, shape, pixels in self._answers_to("frames", path, left, size):
                yield position, Image.frombytes("RGB", shape, pixels)
            left = left[AT_ONCE:]

    def _answers_to(self, *question: Any) -> list[Any]:
        """All answers to one question: none is left for the next one, whatever happens."""
        with self._lock:
            try:
                return list(self._asked(*question))
            except BadVideo:
                raise
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """End the process; the next question starts another."""
        _end(self._holder)
        self._process = None

    def _asked(self, *question: Any) -> Iterator[Any]:
        process = self._running()
        assert process.stdin is not None
        try:
            _write(process.stdin, question)
        except OSError:
            self.close()
            raise ReaderDied(self._died(question)) from None
        while True:
            try:
                kind, value = self._answers.get(timeout=self.timeout_s)
            except queue.Empty:
                self.close()
                raise ReaderTimeout(
                    f"{question[1]}: {self.reader} did not answer within {self.timeout_s:g} s"
                ) from None
            if kind == "value":
                yield value
            elif kind == "end":
                return
            elif kind == "died":
                self.close()
                raise ReaderDied(self._died(question))
            else:
                raise BadVideo(value)

    def _died(self, question: Sequence[Any]) -> str:
        if self._overhears:
            self._overhears.join(timeout=1)
        said = "".join(self._said).strip()
        return f"{question[1]}: {self.reader} crashed on it" + (f" ({said})" if said else "")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._answers = queue.SimpleQueue()
            self._said = deque(maxlen=1)
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, stderr=pipe)
            self._holder[0] = self._process
            _widen(self._process.stdout)
            _begin(_listen, self._process.stdout, self._answers)
            self._overhears = _begin(_overhear, self._process.stderr, self._said)
        return self._process


def _end(holder: list[subprocess.Popen[bytes] | None]) -> None:
    process, holder[0] = holder[0], None
    if process is not None:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):  # the other one's thread closes it
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()


def _listen(pipe: IO[bytes], answers: queue.SimpleQueue[Any]) -> None:
    try:
        while (answer := _read(pipe)) is not None:
            answers.put(answer)
    except (OSError, ValueError, EOFError, MemoryError, pickle.UnpicklingError):
        pass
    answers.put(("died", None))


def _begin(work: Callable[..., None], *of: object) -> threading.Thread:
    thread = threading.Thread(target=work, args=of, daemon=True)
    thread.start()
    return thread


def _overhear(pipe: IO[bytes], said: deque[str]) -> None:
    """Keep the last line that is printed, of decoders that may print much."""
    with contextlib.suppress(OSError, ValueError), pipe:
        while line := pipe.readline(_LONGEST_LINE):
            said.append(line.decode("utf-8", "replace"))


def _paths() -> str:
    """Where modules are looked for here, in this order; this package's in place of the
    current folder."""
    root = str(Path(__file__).parent.parent)
    here = [str(path) or root for path in sys.path]
    return json.dumps(here if root in here else [*here, root])


def _widen(pipe: IO[bytes] | None) -> None:
    """Let a pipe hold more, where that can be: a frame then passes in few steps."""
    with contextlib.suppress(ImportError, AttributeError, OSError):  # not Linux, or not allowed
        from fcntl import F_SETPIPE_SZ, fcntl

        if pipe:
            fcntl(pipe, F_SETPIPE_SZ, _PIPE_BYTES)


def _write(pipe: IO[bytes], value: Any) -> None:
    """Write a value; the pixels in it, at most one `PickleBuffer`, go as they are: no copies."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    pixels = buffers[0].raw() if buffers else b""
    pipe.write(_LENGTHS.pack(len(data), len(pixels)) + data)
    pipe.write(pixels)
    pipe.flush()


def _read(pipe: IO[bytes]) -> Any:
    header = pipe.read(_LENGTHS.size)
    if len(header) < _LENGTHS.size:
        return None
    length, pixels = _LENGTHS.unpack(header)
    data = pipe.read(length)
    buffers = [pipe.read(pixels)] if pixels else []
    return pickle.loads(data, buffers=buffers)  # written by our own other end


def serve(reader: str) -> None:
    """Answer questions from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints must not break the answers
    desk = _Desk(_backend(reader))
    while (question := _read(sys.stdin.buffer)) is not None:
        try:
            for value in desk.answers(*question):
                _write(answers, ("value", value))
            _write(answers, ("end", None))
        except BrokenPipeError:
            return
        except BadVideo as error:
            _write(answers, ("error", str(error)))
        except Exception as error:
            _write(answers, ("error", f"{question[1]}: {reader} failed on it: {error!r}"))


def _backend(reader: str) -> Any:
    if reader == "decord":
        from . import decord_reader

        return decord_reader
    from . import pyav_reader

    return pyav_reader


@dataclass
class _Known:
    """The index of a clip, and where reading it stopped: a question, and the frames from there."""

    index: Any
    rest: tuple[tuple[Any, ...], Iterator[Any]] | None = None


class _Desk:
    """Answers with a reader; remembers the clips that it was asked about last."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._clips: dict[tuple[Path, int], _Known] = {}

    def answers(self, what: str, path: Path, *more: Any) -> Iterator[Any]:
        clip = self._known(path)
        return iter([clip.index.info]) if what == "info" else self._frames(clip, path, *more)

    def _known(self, path: Path) -> _Known:
        key = (path, path.stat().st_mtime_ns if path.exists() else 0)
        clip = self._clips.pop(key, None) or _Known(self._backend.read_index(path))
        self._clips[key] = clip  # the last one that was asked about stands last
        if len(self._clips) > REMEMBERED:
            del self._clips[next(iter(self._clips))]
        return clip

    def _frames(
        self, clip: _Known, path: Path, wanted: Sequence[int], size: Size | None
    ) -> Iterator[Any]:
        """The first `AT_ONCE` of the frames `wanted`; a question for the rest goes on from there,
        so that nothing is decoded twice."""
        rest, clip.rest = clip.rest, None
        if rest is not None and rest[0] == (wanted, size):
            frames = rest[1]
        else:
            frames = self._backend.read_frames(path, clip.index, wanted, size)
        for position, pixels in islice(frames, AT_ONCE):
            yield position, pixels.size, pickle.PickleBuffer(pixels.tobytes())
        if left := wanted[AT_ONCE:]:
            clip.rest = (left, size), frames
