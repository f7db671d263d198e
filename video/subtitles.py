"""Subtitles of clips: SRT and WebVTT files as they are found, and cues beside frames."""

from __future__ import annotations

import codecs
import html
import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise, takewhile
from pathlib import Path

from mm.types import Clip

from .decode import open_video
from .frames import BadVideo, Cue

MAX_BYTES = 10_000_000
"""Of a file: a day of talk is a tenth of it."""

MARKED = re.compile(r"<subtitles: [^<>]*>")
"""How subtitles stand in a prompt; they hold neither sign themselves."""

_ARROW = "-->"
_TIME = r"(?:(\d{1,4}):)?([0-5]?\d):([0-5]?\d)(?:[.,](\d{1,3}))?"
_TIMES = re.compile(rf"\s*{_TIME}\s*{_ARROW}\s*{_TIME}(?:\s.*)?")
_TAG = re.compile(r"</?[a-zA-Z\d][^<>]*>|\{\\[^{}]*\}")
_NO_SIGNS = str.maketrans("<>", "\u2039\u203a")


def subtitled(clip: str | Path, subtitles: str | Path) -> Clip:
    """The clip at `clip` with the subtitles in the SRT or WebVTT file `subtitles`: wherever frames
    are shown, so is what is said between them.

    Times count from the clip's first frame.

    Raises:
        BadVideo: one of them cannot be read.
    """
    return Clip(str(clip), open_video(clip).with_cues(read_subtitles(subtitles)))


def read_subtitles(path: str | Path) -> tuple[Cue, ...]:
    """The cues of a file, by their starts; those without words left out.

    Raises:
        BadVideo: it cannot be read, has a cue whose times are none, or has no cues.
    """
    cues = sorted(_cues(_text(path), path), key=lambda cue: (cue.start_s, cue.end_s))
    if not cues:
        raise BadVideo(f"{path}: there are no subtitles in it: give SRT or WebVTT")
    return tuple(cues)


def between(cues: Sequence[Cue], start_s: float, end_s: float) -> tuple[Cue, ...]:
    """Those shown at some time from `start_s` to `end_s`."""
    return tuple(cue for cue in cues if cue.start_s < end_s and cue.end_s > start_s)


def beside(cues: Sequence[Cue], times_s: Sequence[float]) -> list[str]:
    """What stands beside each of the frames at `times_s`, rising: the cues that start before the
    next one; earlier ones stand beside the first. "" where there are none."""
    said: list[list[str]] = [[] for _ in times_s]
    for cue in cues:
        place = max(bisect_right(times_s, cue.start_s) - 1, 0)
        if cue.text not in said[place][-1:]:  # automatic captions repeat the line before
            said[place].append(cue.text)
    return [f"<subtitles: {' '.join(texts)}>" if texts else "" for texts in said]


def _text(path: str | Path) -> str:
    if not os.path.isfile(path):
        raise BadVideo(f"{path}: there is no such file of subtitles")
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise BadVideo(f"{path}: more than {MAX_BYTES:,} bytes: are these subtitles?")
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return data.decode("utf-16" if wide else "utf-8-sig")
    except OSError as error:
        raise BadVideo(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadVideo(f"{path}: subtitles must be UTF-8 text: convert the file") from error


def _cues(text: str, path: str | Path) -> Iterator[Cue]:
    lines = re.split(r"\r\n|\r|\n", text)
    starts = [number for number, line in enumerate(lines) if _ARROW in line]
    for start, following in pairwise([*starts, len(lines)]):
        start_s, end_s = _times(lines[start], start + 1, path)
        if words := _words(lines[start + 1 : following], last=following == len(lines)):
            yield Cue(start_s, end_s, words)


def _times(line: str, number: int, path: str | Path) -> tuple[float, float]:
    if found := _TIMES.fullmatch(line):
        start_s, end_s = _seconds(found.groups()[:4]), _seconds(found.groups()[4:])
        if start_s <= end_s:
            return start_s, end_s
    raise BadVideo(
        f"{path}: line {number} tells no times of a cue, {line.strip()[:60]!r}: write them as "
        "00:00:01,000 --> 00:00:02,500, the earlier first"
    )


def _seconds(parts: Sequence[str | None]) -> float:
    hours, minutes, seconds, fraction = (part or "0" for part in parts)
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction}")


def _words(lines: Sequence[str], *, last: bool) -> str:
    """The text of a cue up to an empty line, without tags, and the number of a cue right after."""
    texts = list(takewhile(str.strip, lines))
    if len(texts) == len(lines) and not last and texts and texts[-1].strip().isdecimal():
        texts.pop()
    plain = html.unescape(_TAG.sub("", " ".join(texts))).translate(_NO_SIGNS)
    return " ".join(plain.split())
