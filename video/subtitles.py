"""Subtitles of clips: SRT and WebVTT files as they are found, and cues beside frames."""

from __future__ import annotations

import codecs
import html
import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
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
_START = re.compile(rf"\s*\d.*{_ARROW}")
"""Of a line that means to start a cue; what is said may hold an arrow too."""

_TAG = re.compile(
    r"</?(?:[bius]|c|v|lang|ruby|rt|font)(?:\.[^\s<>]*)?\s*>"
    r"|<(?:v|lang|font)(?:\.[^\s<>]*)?\s[^<>]*>"  # the others have no words in them
    r"|<(?:\d+:)?[0-5]\d:[0-5]\d\.\d{3}>"
    r"|\{\\[^{}]*\}",
    re.IGNORECASE,
)
"""The tags of SRT, WebVTT and, in braces, of SubStation; any other sign is what is said."""

_NO_SIGNS = str.maketrans("<>", "\u2039\u203a")


def subtitled(clip: str | Path, subtitles: str | Path) -> Clip:
    """The clip at `clip` with the subtitles in the SRT or WebVTT file `subtitles`: wherever frames
    are shown, so is what is said between them.

    Times count from the clip's first frame. `info.notes` says how many cues could not be read.

    Raises:
        BadVideo: one of them cannot be read.
    """
    cues, notes = _read(subtitles)
    video = open_video(clip).with_cues(cues)
    video.info = replace(video.info, notes=(*video.info.notes, *notes))
    return Clip(str(clip), video)


def read_subtitles(path: str | Path) -> tuple[Cue, ...]:
    """The cues of a file, by their starts; those without words, and those whose times cannot be
    read or end before they start, left out.

    Raises:
        BadVideo: it cannot be read, or no cue is left.
    """
    return _read(path)[0]


def _read(path: str | Path) -> tuple[tuple[Cue, ...], tuple[str, ...]]:
    """The cues of a file, and what a person should know of them."""
    read = list(_cues(_text(path)))
    faults = [each for each in read if isinstance(each, str)]
    cues = [each for each in read if isinstance(each, Cue) and each.text]
    if not cues and faults:
        raise BadVideo(
            f"{path}: {faults[0]}: write them as 00:00:01,000 --> 00:00:02,500, the earlier first"
        )
    if not cues:
        raise BadVideo(f"{path}: there are no subtitles in it: give SRT or WebVTT")
    notes = [f"{path}: {len(faults)} of {len(read)} cues left out: {each}" for each in faults[:1]]
    return tuple(sorted(cues, key=lambda cue: (cue.start_s, cue.end_s))), tuple(notes)


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


def _cues(text: str) -> Iterator[Cue | str]:
    """The cues of `text`; in the place of one that cannot be read, what is wrong with it."""
    lines = re.split(r"\r\n|\r|\n", text)
    starts = [number for number, line in enumerate(lines) if _START.match(line)]
    for start, following in pairwise([*starts, len(lines)]):
        if times := _times(lines[start]):
            said = lines[start + 1 : following]
            yield Cue(*times, _words(said, last=following == len(lines)))
        else:
            yield f"line {start + 1} tells no times of a cue, {lines[start].strip()[:60]!r}"


def _times(line: str) -> tuple[float, float] | None:
    """When a cue starts and ends, in seconds; None where `line` does not say, or turns it round."""
    if found := _TIMES.fullmatch(line):
        start_s, end_s = _seconds(found.groups()[:4]), _seconds(found.groups()[4:])
        return (start_s, end_s) if start_s <= end_s else None
    return None


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
