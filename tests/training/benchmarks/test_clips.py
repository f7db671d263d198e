"""Timings of readers: the clips made for them, who is compared, and readers that hang."""

from __future__ import annotations

import mmap
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from training.benchmarks import clips
from training.benchmarks.clips import OTHERS, decoded, memory_of, ours, sides_on, turns
from training.benchmarks.clips_hanging import CLIP, HANGS, Ended, _row, read_past
from training.benchmarks.clips_made import LongClip
from training.benchmarks.clips_packets import given_packets, needed_packets
from video.pyav_reader import read_index
from video.reader_process import ReaderProcess

SMALL = LongClip(12, (96, 64), fps=10, key_s=2, short_s=4)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return SMALL.write(tmp_path_factory.mktemp("long"))


def test_a_long_clip_has_even_times_and_key_frames(path):
    index = read_index(path)
    assert (index.info.size, index.info.duration_s) == (SMALL.size, pytest.approx(12.0))
    assert index.info.times_s == pytest.approx([n / 10 for n in range(120)])
    step = index.pts[20] - index.pts[0]
    assert index.keys == tuple(n * step for n in range(6))


def test_frames_of_a_period_differ(path):
    period = range(SMALL.short_s * SMALL.fps)
    assert len(set(clips._digests(decoded(path, SMALL, period)))) == len(period)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        pytest.param(1, [60], id="the middle"),
        pytest.param(3, [20, 60, 100], id="middles of thirds"),
        pytest.param(120, list(range(120)), id="all"),
    ],
)
def test_positions_are_spread(count, expected):
    assert SMALL.spread(count) == expected


def off_by_one(path, clip, wanted):
    return decoded(path, clip, [n + 1 for n in wanted])


def too_few(path, clip, wanted):
    return decoded(path, clip, wanted[:-1])


@pytest.mark.parametrize("wrong", [off_by_one, too_few])
def test_who_gives_other_frames_is_left_out(path, monkeypatch, wrong):
    monkeypatch.setattr(clips, "OTHERS", {**OTHERS, "wrong": wrong})
    assert {*OTHERS} - {"decord"} <= sides_on(path, SMALL).keys() <= {*OTHERS}


def test_wrong_frames_of_ours_are_an_error(path, monkeypatch):
    monkeypatch.setattr(clips, "ours", off_by_one)
    with pytest.raises(ValueError, match="frames differ"):
        sides_on(path, SMALL)


def test_sides_take_turns_on_a_clip_that_none_has_opened(path, tmp_path):
    copy, seen = Path(shutil.copy(path, tmp_path)), []

    def side(name, at, clip, wanted):
        assert at.samefile(copy)
        seen.append((name, at))
        return wanted

    named = {name: partial(side, name) for name in ("a", "b")}
    taken = turns(copy, SMALL, [0], named, rounds=2)
    assert [name for name, _ in seen] == ["a", "b"] * 3
    assert len({at for _, at in seen} - {copy}) == 6
    assert {name: len(each) for name, each in taken.items()} == {"a": 2, "b": 2}
    assert list(tmp_path.iterdir()) == [copy]


def mapped(size: int) -> mmap.mmap:
    """Memory that the system gives anew: what an allocator hands out again is resident already."""
    memory = mmap.mmap(-1, size)
    for at in range(0, size, mmap.PAGESIZE):
        memory[at] = 1
    return memory


@pytest.mark.parametrize(
    ("wanted", "needed", "more"),
    [
        pytest.param([0], 1, 1, id="a key frame"),
        pytest.param([19], 20, 1, id="the last one before a key frame"),
        pytest.param([19, 20], 21, 1, id="the next one is near: no seek"),
        pytest.param([19, 60], 21, 2, id="two groups: a packet more for each"),
        pytest.param(list(range(120)), 120, 0, id="all"),
    ],
)
def test_little_more_is_decoded_than_frames_need(path, wanted, needed, more):
    assert needed_packets(path, wanted) == needed
    assert needed <= given_packets(path, wanted) <= needed + more


def test_memory_counts_what_is_held_at_the_end_and_other_processes(path):
    assert 220e6 < memory_of(partial(mapped, 256_000_000)) < 300e6
    fresh = ReaderProcess("pyav")
    try:
        assert memory_of(lambda: fresh.info(path)) > 10e6  # an interpreter and FFmpeg
    finally:
        fresh.close()


@pytest.mark.parametrize("when", list(HANGS))
def test_a_clip_is_read_past_a_reader_that_hangs(tmp_path, when):
    pytest.importorskip("decord")
    other, path = ReaderProcess("decord"), CLIP.write(tmp_path)
    other.info(path)
    ended = read_past(path, HANGS[when], other, timeout_s=1.0)
    other.close()
    assert (ended.answered, ended.gone) == (True, True)
    assert ended.seconds >= 1.0


def test_a_process_that_is_left_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(ReaderProcess, "close", lambda self: None)
    broken = ReaderProcess("decord", command=("false",))
    ended = read_past(CLIP.write(tmp_path), HANGS["from the start"], broken, timeout_s=0.2)
    assert (ended.answered, ended.gone) == (False, False)


@pytest.mark.parametrize(
    ("ended", "right"),
    [
        pytest.param(Ended(True, 1.9, True), 1, id="in time"),
        pytest.param(Ended(True, 2.1, True), 0, id="late"),
        pytest.param(Ended(False, 1.0, True), 0, id="not answered"),
    ],
)
def test_what_counts_as_read_in_time(ended, right):
    row = _row("what", [ended], timeout_s=1.0)
    assert (row["right"], row["n"], row["slowest_s"]) == (right, 1, ended.seconds)


def test_ours_reads_what_plain_pyav_decodes(path):
    assert not clips.differs(ours, path, SMALL, SMALL.spread(5))
    assert clips.differs(off_by_one, path, SMALL, SMALL.spread(5))


def test_an_hour_is_read_in_few_rounds(tmp_path, monkeypatch):
    small = LongClip(8, (96, 64), fps=10)
    monkeypatch.setattr(clips, "LongClip", lambda *_, key_s, short_s: replace(small, key_s=key_s))
    monkeypatch.setattr(clips, "HOUR_KEYS_S", (2, 4))
    memory, first, counted, second, _ = clips.hours(tmp_path)
    assert (counted.unit, counted.ours[0] >= counted.theirs[0] > 0) == ("packets", True)
    assert (memory.unit, first.unit, len(first.theirs), len(memory.theirs)) == ("MB", "s", 1, 0)
    assert ["every 2 s" in first.measure, "every 4 s" in second.measure] == [True, True]


@pytest.mark.parametrize("wrong", [off_by_one, too_few])
def test_wrong_frames_of_an_hour_are_an_error(path, monkeypatch, wrong):
    monkeypatch.setattr(clips, "ours", wrong)
    with pytest.raises(ValueError, match="frames differ"):
        clips.against_seeking(path, SMALL, 4, rounds=1)
