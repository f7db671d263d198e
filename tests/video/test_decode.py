"""Frames by time equal those of decoding the whole file, whatever the file is made of."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from av import logging
from clips import drawing, write_clip, write_cut_at_start, write_sound
from fuzzing import mutated, rounds
from PIL import Image as pil

from video import decode, decord_reader, pyav_reader
from video.decode import open_video, video_of
from video.frames import BadVideo, end_s
from video.pyav_reader import read_frames, read_index, upright
from video.reader_process import AT_ONCE, REMEMBERED, ReaderProcess, _Desk

ROOT = Path(__file__).parents[2]

UNEVEN = [i * 41 + i % 5 * 7 for i in range(48)]

B_FRAMES = {"bf": "3", "b_strategy": "0", "sc_threshold": "0"}
"""Left to choose, x264 makes none of drawings like ours."""

CLIPS: dict[str, Callable[[Path], Path]] = {
    "h264.mp4": write_clip,
    "b-frames.mkv": lambda p: write_clip(p, options=B_FRAMES),
    "hevc-open-gop.mp4": lambda p: write_clip(
        p, "libx265", options={"x265-params": "log-level=none:open-gop=1"}
    ),
    "vp8.webm": lambda p: write_clip(p, "libvpx", options={"deadline": "realtime"}),
    "vp9.webm": lambda p: write_clip(p, "libvpx-vp9", options={"deadline": "realtime"}),
    "av1.mkv": lambda p: write_clip(p, "libsvtav1", frames=12, options={"preset": "12"}),
    "mpeg4.avi": lambda p: write_clip(p, "mpeg4"),
    "uneven.mkv": lambda p: write_clip(p, times_ms=UNEVEN),
    "late-start.mkv": lambda p: write_clip(p, times_ms=[8333 + t for t in UNEVEN]),
    "odd-size.mkv": lambda p: write_clip(p, size=(97, 63), pixels="yuv444p"),
    "ten-bit.mkv": lambda p: write_clip(p, "libx265", frames=12, pixels="yuv420p10le"),
    "rotated.mp4": lambda p: write_clip(p, rotation=90),
    "one-frame.mp4": lambda p: write_clip(p, frames=1),
    "edit-list.mp4": lambda p: write_cut_at_start(
        p, write_clip(p.with_name("whole.mp4"), options={"bf": "0"}), hidden=5
    ),
    "transport.ts": lambda p: write_clip(p, frames=96, options=B_FRAMES),
    "mpeg2.m2ts": lambda p: write_clip(p, "mpeg2video", frames=96),
    "program.mpg": lambda p: write_clip(p, "mpeg2video", frames=96),
    "windows.wmv": lambda p: write_clip(p, "wmv2", frames=96),
    "with-sound.mp4": lambda p: write_clip(p, sound=True),
    "flash.flv": lambda p: write_clip(p, "flv1"),
    "one-frame.flv": lambda p: write_clip(p, "flv1", frames=1),
    "bare.h264": lambda p: write_clip(p, options=B_FRAMES),
    "bare.hevc": lambda p: write_clip(p, "libx265"),
}
BARE = ("bare.h264", "bare.hevc")
"""Their frames have no time stamps."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("clips")


def clip(folder: Path, name: str) -> Path:
    path = folder / name
    return path if path.exists() else CLIPS[name](path)


def whole(path: Path) -> list[tuple[int, np.ndarray]]:
    """Every frame, decoded in order."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        assert stream
        frames = container.decode(stream)
        return [(f.pts, np.asarray(upright(f, stream))) for f in frames if f.pts is not None]  # type: ignore[misc]


@pytest.mark.parametrize("name", [name for name in CLIPS if name not in BARE])
def test_frames_by_position_are_those_of_the_whole_file(folder, name):
    path = clip(folder, name)
    index, expected = read_index(path), whole(path)
    assert list(index.pts) == [pts for pts, _ in expected]
    wanted = np.random.default_rng(0).permutation(len(expected))[:9].tolist()
    got = {i: np.asarray(pixels) for i, pixels in read_frames(path, index, wanted)}
    assert list(got) == sorted(wanted)
    assert all(np.array_equal(got[i], expected[i][1]) for i in wanted)
    assert (index.info.size[1], index.info.size[0]) == expected[0][1].shape[:2]


X264: dict[str, dict[str, str]] = {
    "b-frames that others refer to": {**B_FRAMES, "b-pyramid": "normal"},
    "b-frames that none refers to": {**B_FRAMES, "b-pyramid": "none"},
    "open groups": {**B_FRAMES, "x264-params": "open-gop=1"},
    "interlaced": {**B_FRAMES, "flags": "+ildct+ilme"},
    "refreshed without key frames": {"x264-params": "intra-refresh=1:keyint=12"},
}


@pytest.mark.parametrize("suffix", ["mp4", "ts"])
@pytest.mark.parametrize("options", X264.values(), ids=X264)
def test_each_frame_by_itself_is_that_of_the_whole_file(tmp_path, options, suffix):
    path = write_clip(tmp_path / f"a.{suffix}", options=options, frames=30)
    index, expected = read_index(path), whole(path)
    assert list(index.pts) == [pts for pts, _ in expected]
    for i, (_, pixels) in enumerate(expected):
        ((_, got),) = read_frames(path, index, [i])
        assert np.array_equal(np.asarray(got), pixels)


def test_frames_that_no_other_refers_to_are_not_decoded(folder):
    index = read_index(path := clip(folder, "b-frames.mkv"))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = list(container.demux(stream))
        stamps = [f.pts for f in pyav_reader._needed(packets, stream, [index.pts[11]])]
    assert index.pts[11] in stamps
    assert len(stamps) < 11


def test_what_a_sparing_reader_misses_is_decoded_in_full(folder, monkeypatch):
    index, expected = read_index(path := clip(folder, "h264.mp4")), whole(clip(folder, "h264.mp4"))
    needed = pyav_reader._needed
    monkeypatch.setattr(pyav_reader, "_needed", lambda *about: islice(needed(*about), 2))
    got = dict(read_frames(path, index, [0, 7, 30]))
    assert all(np.array_equal(np.asarray(got[i]), expected[i][1]) for i in (0, 7, 30))


@pytest.mark.parametrize("cores", [1, 2, 3, 9])
def test_several_decoders_give_what_one_does(folder, monkeypatch, cores):
    expected = whole(path := clip(folder, "transport.ts"))
    monkeypatch.setattr(pyav_reader, "_cores", lambda: cores)
    wanted = [0, 1, 20, 33, 50, 51, 70, 95]
    got = list(read_frames(path, read_index(path), wanted))
    assert [i for i, _ in got] == wanted
    assert all(np.array_equal(np.asarray(pixels), expected[i][1]) for i, pixels in got)


@pytest.mark.parametrize(
    ("runs", "decoders"),
    [
        pytest.param([], 1, id="none"),
        pytest.param([[0]], 1, id="one"),
        pytest.param([[0], [9]], 2, id="far apart"),
        pytest.param([[0], [9], [20], [30], [40], [50]], 4, id="no more than hold little memory"),
        pytest.param([[0, 1, 2], [9, 10, 11]], 1, id="close together: its threads share them"),
    ],
)
def test_how_many_decoders_work_at_once(monkeypatch, runs, decoders):
    monkeypatch.setattr(pyav_reader, "_cores", lambda: 8)
    assert pyav_reader._decoders(runs) == decoders


def test_decoders_take_turns_and_end_with_the_reading():
    each = [iter(range(at, 100, 10)) for at in range(3)]
    taken, before = pyav_reader._in_turns(each, [0, 1, 2, 2, 0]), threading.active_count()
    assert [next(taken) for _ in range(4)] == [0, 1, 2, 12]
    taken.close()
    assert (threading.active_count(), next(each[2])) == (before, 32)


def test_what_a_decoder_raises_comes_in_its_turn():
    def broken():
        yield 5
        raise BadVideo("damaged")

    taken = pyav_reader._in_turns([iter([1, 2]), broken()], [0, 1, 0, 1])
    assert [next(taken) for _ in range(3)] == [1, 5, 2]
    with pytest.raises(BadVideo, match="damaged"):
        next(taken)


def test_neighbours_are_decoded_once_though_each_is_a_key_frame(tmp_path):
    sent, path = [], write_clip(tmp_path / "a.mkv", "mjpeg", pixels="yuvj420p", key_every=1)
    list(read_frames(path, read_index(path), range(0, 40, 2), sent=sent.append))
    assert 39 <= len(sent) <= 40


@pytest.mark.parametrize("name", ["h264.mp4", "odd-size.mkv", "ten-bit.mkv"])
def test_colours_are_those_that_pyav_gives(folder, name):
    with av.open(str(clip(folder, name))) as container:
        frame = next(container.decode(video=0))
        ours = upright(frame, container.streams.video[0])
        assert np.array_equal(np.asarray(ours), np.asarray(frame.to_image()))


@pytest.mark.parametrize("name", BARE)
def test_frames_without_stamps_are_numbered_by_the_rate(folder, name):
    path = clip(folder, name)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        expected = [np.asarray(upright(f, stream)) for f in container.decode(stream)]
    video = open_video(path)
    assert video.info.times_s == pytest.approx([n / 24 for n in range(48)])
    assert (video.info.duration_s, len(expected)) == (pytest.approx(2.0), 48)
    got = list(video.frames_at([n / 24 for n in (3, 11, 12, 40)]))
    for frame, n in zip(got, (3, 11, 12, 40), strict=True):
        assert frame.time_s == pytest.approx(n / 24)
        assert np.array_equal(np.asarray(frame.pixels), expected[n])


@pytest.mark.parametrize(
    ("name", "duration_s"),
    [
        pytest.param("flash.flv", 2.0, id="as long as the one before"),
        pytest.param("one-frame.flv", 1 / 24, id="one frame: by the rate"),
        pytest.param("h264.mp4", 2.0, id="as the file says"),
    ],
)
def test_the_last_frame_has_a_duration(folder, name, duration_s):
    assert open_video(clip(folder, name)).info.duration_s == pytest.approx(duration_s, abs=1.2e-3)


@pytest.mark.parametrize(
    ("times", "said", "fps", "expected"),
    [
        pytest.param((0.0, 0.5), 0.6, 9.0, 0.6, id="said"),
        pytest.param((0.0, 0.5), 0.5, 9.0, 1.0, id="as the one before"),
        pytest.param((0.0,), 0.0, 4.0, 0.25, id="by the rate"),
        pytest.param((0.0,), 0.0, None, 1.0, id="a second"),
        pytest.param((0.0,), 1e-4, None, 1.0, id="said, but too short"),
    ],
)
def test_when_the_last_frame_goes(times, said, fps, expected):
    assert end_s(times, said, fps) == expected


@pytest.mark.parametrize(
    ("name", "asked_s", "shown_s"),
    [
        pytest.param("h264.mp4", [0.5, 0.52, 99, -1], [0.0, 0.5, 47 / 24], id="between, outside"),
        pytest.param("late-start.mkv", [0, 0.048], [0.0, 0.048], id="from the first frame"),
        pytest.param("uneven.mkv", [0.06, 1.0], [0.048, 0.964], id="uneven"),
        pytest.param("edit-list.mp4", [0], [0.0], id="edit list"),
    ],
)
def test_times_count_from_the_first_frame_shown(folder, name, asked_s, shown_s):
    video = open_video(clip(folder, name))
    assert [frame.time_s for frame in video.frames_at(asked_s)] == pytest.approx(shown_s, abs=2e-3)


def test_frames_that_an_edit_list_hides_are_not_shown(folder):
    video = open_video(clip(folder, "edit-list.mp4"))
    (first,) = video.frames_at([0])
    assert len(video.info.times_s) == 43
    assert abs(np.asarray(first.pixels)[0, 0, 0].astype(int) - drawing(5, 96, 64)[0, 0, 0]) < 12


def test_a_rotated_clip_stands_upright(folder):
    video = open_video(clip(folder, "rotated.mp4"))
    (frame,) = video.frames_at([0])
    assert frame.pixels.size == video.info.size == (64, 96)


def test_frames_are_resized_where_they_are_read(folder):
    (frame,) = open_video(clip(folder, "h264.mp4")).frames_at([1], size=(48, 32))
    assert frame.pixels.size == (48, 32)


def test_sound_is_said_to_be_ignored(folder):
    assert open_video(clip(folder, "with-sound.mp4")).info.notes == ("its sound is ignored",)


def damaged(folder: Path, name: str) -> Path:
    path = folder / f"bad-{name}"
    if name == "sound":
        return write_sound(path.with_suffix(".m4a"))
    if name == "cut":
        whole_file = clip(folder, "h264.mp4").read_bytes()
        path.write_bytes(whole_file[: len(whole_file) // 2])
    elif name == "empty":
        path.write_bytes(b"")
    elif name == "text":
        path.write_text("not a clip " * 100)
    elif name == "playlist":
        path.write_text(f"ffconcat version 1.0\nfile {clip(folder, 'h264.mp4').name}\n")
    elif name == "list.mp4":
        path.write_text(f"#EXTM3U\n#EXTINF:2\n{clip(folder, 'h264.mp4').name}\n#EXT-X-ENDLIST\n")
    elif name == "marked.mp4":
        path.write_text("\ufeff#EXTM3U\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("reader", ["auto", "pyav", "decord"])
@pytest.mark.parametrize("name", ["list.mp4", "marked.mp4", "playlist"])
def test_playlists_are_not_opened(folder, name, reader):
    with pytest.raises(BadVideo, match="it is a playlist: give what it names"):
        open_video(damaged(folder, name), reader=reader)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        pytest.param("sound", "holds sound only", id="sound only"),
        pytest.param("cut", "cannot be read as a clip", id="cut off, its index gone"),
        pytest.param("empty", "cannot be read as a clip", id="empty"),
        pytest.param("text", "cannot be read as a clip", id="text"),
        pytest.param("playlist", "cannot be read as a clip", id="names another clip"),
        pytest.param("absent", "there is no such clip", id="absent"),
        pytest.param(f"{'a' * 300}.mp4", "there is no such clip", id="a long name"),
    ],
)
def test_what_is_no_clip_is_one_line(folder, name, complaint):
    with pytest.raises(BadVideo, match=complaint) as caught:
        open_video(damaged(folder, name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["h264.mp4", "uneven.mkv", "moving.gif"])
def test_a_mutated_clip_is_read_or_refused_in_one_line(folder, name, tmp_path):
    if name == "moving.gif":
        first, *rest = [pil.new("RGB", (12, 8), (n * 40, 0, 0)) for n in range(5)]
        first.save(folder / name, save_all=True, append_images=rest, duration=100)
    sound, path = clip(folder, name).read_bytes(), tmp_path / name
    rng, said = random.Random(name), []
    for _ in range(rounds(40)):
        path.write_bytes(mutated(sound, rng))
        try:
            frames = list(open_video(path, timeout_s=20).frames_at([0.0, 0.9]))
            said.append(f"{len(frames)} frames")
        except BadVideo as error:
            said.append(str(error))
    assert len(set(said)) > 1
    assert not [line for line in said if "\n" in line or len(line) > 600]
    assert not [line for line in said if "did not answer" in line]


@pytest.mark.parametrize("source", ["http://127.0.0.1/a.mp4", "file:///etc/passwd", "rtsp://a/b"])
def test_addresses_are_not_opened(source):
    with pytest.raises(BadVideo, match="addresses are not opened"):
        open_video(source)


def test_a_matroska_cut_in_the_middle_gives_what_is_there(folder):
    path = folder / "cut.mkv"
    data = clip(folder, "b-frames.mkv").read_bytes()
    path.write_bytes(data[: len(data) // 2])
    video = open_video(path)
    frames = list(video.frames_at(video.info.times_s[:4]))
    assert 0 < len(video.info.times_s) < 48
    assert len(frames) == 4


def test_decord_reads_what_it_can_be_trusted_with(folder):
    pytest.importorskip("decord")
    video = open_video(clip(folder, "h264.mp4"), reader="decord")
    (theirs,) = video.frames_at([1.0])
    (ours,) = open_video(clip(folder, "h264.mp4")).frames_at([1.0])
    difference = np.asarray(theirs.pixels).astype(int) - np.asarray(ours.pixels)
    assert (video.reader, theirs.time_s) == ("decord", pytest.approx(ours.time_s))
    assert np.abs(difference).mean() < 3  # another conversion of colours
    with pytest.raises(BadVideo, match="decord cannot open it"):
        open_video(clip(folder, "av1.mkv"), reader="decord")


def test_decord_is_admitted_without_holding_all_frames(folder, tmp_path):
    pytest.importorskip("decord")
    path = write_clip(tmp_path / "large.mp4", size=(1280, 720), frames=120)
    tracemalloc.start()
    try:
        decord_reader.read_index(path)
        assert tracemalloc.get_traced_memory()[1] < 10 * 1280 * 720 * 3
    finally:
        tracemalloc.stop()


def sleeper(reader: str, answers: int = 0) -> ReaderProcess:
    """A process that gives nothing, for ever."""
    code = "import time; time.sleep(1000)"
    return ReaderProcess(reader, timeout_s=0.3, command=(sys.executable, "-c", code))


def test_a_reader_that_never_returns_is_ended_and_the_other_asked(folder):
    pytest.importorskip("decord")
    stuck = sleeper("pyav")
    began = time.monotonic()
    video = decode.by_readers(
        clip(folder, "h264.mp4"), [stuck, ReaderProcess("decord", timeout_s=60)]
    )
    assert video.reader == "decord"
    assert time.monotonic() - began < 30
    assert stuck._process is None


def test_a_reader_that_crashes_is_one_line(folder):
    dead = ReaderProcess("pyav", command=(sys.executable, "-c", "import os; os._exit(9)"))
    with pytest.raises(BadVideo, match="pyav crashed on it"):
        decode.by_readers(clip(folder, "h264.mp4"), [dead])


def test_decoders_do_not_log_through_python(folder):
    """Their threads would wait for Python's lock, and Python for them."""
    read_index(clip(folder, "h264.mp4"))
    assert logging.get_level() is None


def test_a_process_goes_with_its_last_user(folder):
    process = ReaderProcess("pyav")
    process.info(clip(folder, "h264.mp4"))
    running = process._process
    del process
    assert running is not None
    assert running.wait(timeout=10) is not None


def test_frames_that_nobody_wants_any_more_disturb_no_later_answer(folder):
    video = open_video(clip(folder, "h264.mp4"))
    next(video.frames_at([0.0, 0.5, 1.0]))
    assert [round(f.time_s, 2) for f in video.frames_at([1.5])] == [1.5]


@pytest.mark.timeout(60)
def test_two_clips_may_be_read_in_turns(folder):
    videos = [open_video(clip(folder, name)) for name in ("h264.mp4", "uneven.mkv")]
    steps = zip(*(video.frames_at(video.info.times_s[:20]) for video in videos), strict=True)
    assert [[frame.time_s for frame in step] for step in steps] == [
        list(times) for times in zip(*(v.info.times_s[:20] for v in videos), strict=True)
    ]


class Counting:
    """A reader that notes what it is asked for."""

    def __init__(self) -> None:
        self.indexed: list[str] = []
        self.asked: list[int] = []

    def read_index(self, path: Path) -> str:
        self.indexed.append(path.name)
        return path.name

    def read_frames(self, path: Path, index: str, wanted: Sequence[int], size: object):
        self.asked.append(len(wanted))
        return ((n, pil.new("RGB", (1, 1))) for n in wanted)


def test_a_question_for_the_rest_goes_on_where_reading_stopped():
    reader, wanted = Counting(), tuple(range(AT_ONCE * 2 + 1))
    desk, paths = _Desk(reader), [Path("/a.mp4"), Path("/b.mp4")]
    for at in range(0, len(wanted), AT_ONCE):
        for path in paths:
            got = [position for position, *_ in desk.answers("frames", path, wanted[at:], None)]
            assert got == list(wanted[at : at + AT_ONCE])
    assert (reader.indexed, reader.asked) == (["a.mp4", "b.mp4"], [len(wanted)] * 2)
    list(desk.answers("frames", paths[0], wanted[1:], None))
    assert len(reader.asked) == 3


def test_a_process_remembers_few_clips():
    desk = _Desk(reader := Counting())
    for n in [*range(REMEMBERED + 1), REMEMBERED, 0]:
        list(desk.answers("frames", Path(f"/{n}.mp4"), (0,), None))
    assert [int(name[0]) for name in reader.indexed] == [*range(REMEMBERED + 1), 0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_question_leaves_no_answer_for_the_next(folder, monkeypatch, error):
    process, path = ReaderProcess("pyav"), clip(folder, "h264.mp4")
    asked = process._asked

    def interrupted(*question):
        yield next(asked(*question))
        raise error

    monkeypatch.setattr(process, "_asked", interrupted)
    with pytest.raises(error):
        list(process.frames(path, [0, 12, 24]))
    monkeypatch.undo()
    assert [position for position, _ in process.frames(path, [6])] == [6]


def test_a_relative_path_is_of_the_folder_that_it_was_opened_in(tmp_path, monkeypatch):
    videos = []
    for name, frames in (("one", 5), ("other", 3)):
        (tmp_path / name).mkdir()
        write_clip(tmp_path / name / "a.mp4", frames=frames)
        monkeypatch.chdir(tmp_path / name)
        videos.append(open_video("a.mp4"))
    assert [len(video.info.times_s) for video in videos] == [5, 3]
    assert {video.info.source for video in videos} == {"a.mp4"}
    assert [len(list(video.frames_at(video.info.times_s))) for video in videos] == [5, 3]


def test_what_is_wrong_is_said_of_the_path_as_it_was_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.mp4").write_text("not a clip")
    with pytest.raises(BadVideo, match=r"^text\.mp4 cannot be read as a clip"):
        open_video("text.mp4")


def test_where_the_other_reader_fails_too_the_first_ones_error_is_told(folder):
    path, crash = clip(folder, "h264.mp4"), (sys.executable, "-c", "import os; os._exit(9)")
    info = open_video(path).info
    processes = [ReaderProcess(name, command=crash) for name in ("pyav", "decord")]
    with pytest.raises(BadVideo, match="pyav crashed on it"):
        list(decode._read(path, info, processes, [0], None))


def test_a_folder_of_images_is_read_by_its_numbers(tmp_path):
    for number in (10, 9, 1):
        pil.new("RGB", (8, 6), (number * 20, 0, 0)).save(tmp_path / f"{number}.png")
    video = open_video(tmp_path)
    assert [f.pixels.getpixel((0, 0))[0] for f in video.frames_at([0, 1, 2])] == [20, 180, 200]  # type: ignore[index]
    assert video.info.notes == ("3 images, taken to be 1 s apart",)


@pytest.mark.parametrize("broken", ["1.png", "2.png"], ids=["the first", "a later one"])
def test_a_broken_image_of_a_folder_is_a_clip_that_cannot_be_read(tmp_path, broken):
    for number in (1, 2):
        pil.new("RGB", (8, 6)).save(tmp_path / f"{number}.png")
    (tmp_path / broken).write_bytes(b"no image")
    with pytest.raises(BadVideo, match=broken):
        list(open_video(tmp_path).frames_at([0, 1]))


def test_hidden_files_of_a_folder_are_no_frames(tmp_path):
    pil.new("RGB", (8, 6)).save(tmp_path / "0.png")
    (tmp_path / "._0.png").write_bytes(b"as macOS leaves it")
    assert len(open_video(tmp_path).info.times_s) == 1


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_animated_images_keep_their_own_times(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    first, *rest = (pil.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue"))
    first.save(path, save_all=True, append_images=rest, duration=[100, 300, 200], lossless=True)
    video = open_video(path)
    assert video.info.times_s == pytest.approx((0, 0.1, 0.4))
    assert video.info.duration_s == pytest.approx(0.6)
    (frame,) = video.frames_at([0.39])
    assert frame.pixels.getpixel((0, 0)) == (0, 255, 0)


def test_frames_of_10_ms_or_less_are_shown_as_browsers_show_them(tmp_path):
    first, *rest = (pil.new("RGB", (8, 6), (n * 60, 0, 0)) for n in range(4))
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest, duration=[0, 10, 0, 20])
    info = open_video(tmp_path / "a.gif").info
    assert info.times_s == pytest.approx((0, 0.1, 0.2, 0.3))
    assert info.duration_s == pytest.approx(0.32)


WHITE = (255, 255, 255)
BLACK = (0, 0, 0)


@pytest.mark.parametrize(
    ("second", "size", "expected"),
    [
        pytest.param((10, 40), None, [BLACK, WHITE, BLACK], id="tall: bars beside it"),
        pytest.param((10, 40), (20, 10), [BLACK, WHITE, BLACK], id="tall, made smaller"),
        pytest.param((20, 10), None, [WHITE] * 3, id="smaller, of the same shape"),
        pytest.param((81, 40), None, [WHITE] * 3, id="a pixel wider"),
        pytest.param((1, 150), None, [BLACK, WHITE, BLACK], id="a line"),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_a_frame_of_another_shape_keeps_it_between_bars(tmp_path, kind, second, size, expected):
    frames = [pil.new("RGB", (80, 40)), pil.new("RGB", second, WHITE)]
    for n, frame in enumerate(frames):
        frame.save(tmp_path / f"{n}.png")
    video = open_video(tmp_path) if kind == "folder" else video_of(frames, [0.0, 1.0])
    _, other = video.frames_at([0.0, 1.0], size)
    wide, high = other.pixels.size
    assert (wide, high) == (size or (80, 40))
    row = [other.pixels.getpixel((x, high // 2)) for x in (0, (wide - 1) // 2, wide - 1)]
    assert row == expected


@pytest.mark.parametrize(
    ("count", "times", "complaint"),
    [
        pytest.param(0, [], "no frames", id="none"),
        pytest.param(2, [0.0], "2 frames, and 1 times", id="too few times"),
        pytest.param(2, [1.0, 1.0], "must rise", id="times stand still"),
    ],
)
def test_frames_in_memory_need_rising_times(count, times, complaint):
    with pytest.raises(BadVideo, match=complaint):
        video_of([pil.new("RGB", (4, 4))] * count, times)


def test_frames_in_memory_are_a_clip():
    video = video_of([pil.new("RGB", (4, 4), c) for c in ("red", "blue")], [2.0, 2.5])
    assert video.info.times_s == (2.0, 2.5)
    assert video.info.duration_s == 1.0
    assert [f.pixels.getpixel((0, 0)) for f in video.frames_at([2.6])] == [(0, 0, 255)]


def test_a_name_may_hold_a_colon(folder, tmp_path):
    path = tmp_path / "2024-01-01T12:30:00.mp4"
    path.write_bytes(clip(folder, "h264.mp4").read_bytes())
    assert open_video(path).info.times_s


def test_a_users_module_of_the_same_name_is_not_run(folder, tmp_path):
    (tmp_path / "video.py").write_text("raise SystemExit('not this one')\n")
    program = (
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from video.decode import open_video\n"
        f"print(len(open_video({str(clip(folder, 'h264.mp4'))!r}).info.times_s))\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert int(done.stdout) > 0, done.stderr


def test_a_folder_of_images_may_count_in_other_digits(tmp_path):
    for name in ("1²3.png", "2.png"):
        pil.new("RGB", (8, 8)).save(tmp_path / name)
    assert len(open_video(tmp_path).info.times_s) == 2


def test_the_last_words_of_a_reader_that_crashes_are_told(folder):
    code = "import sys; sys.stderr.write('warned\\nNo module named av\\n'); sys.exit(1)"
    dead = ReaderProcess("pyav", command=(sys.executable, "-c", code))
    with pytest.raises(BadVideo, match=r"pyav crashed on it \(No module named av\)$"):
        dead.info(clip(folder, "h264.mp4"))


def test_a_package_beside_this_one_does_not_hide_the_standard_library(folder, tmp_path):
    """As where this package is installed beside one that is called as a part of Python is."""
    packages = tmp_path / "site-packages"
    packages.mkdir()
    for name in ("mm", "vision", "video"):
        (packages / name).symlink_to(ROOT / name)
    (packages / "dataclasses.py").write_text("raise RuntimeError('hides the library')")
    code = f"""
import sys
sys.path[:] = [p for p in sys.path if p != {str(ROOT)!r}] + [{str(packages)!r}]
from pathlib import Path
from video.reader_process import ReaderProcess
print(ReaderProcess("pyav").info(Path(sys.argv[1])).size)
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(clip(folder, "h264.mp4"))],
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
