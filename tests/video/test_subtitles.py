"""Subtitles: what files say, and where it stands among frames."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import PIL.Image
import pytest
from clips import write_clip
from fuzzing import mutated, rounds

import mm
from mm.scripted import ScriptedVLM
from mm.session import run
from mm.types import Text
from mm.vlm import Traits
from video import subtitled, uniform, watch
from video.context import shown
from video.decode import open_video, video_of
from video.frames import BadVideo, Cue
from video.subtitles import MARKED, beside, between, read_subtitles

SRT = """1
00:00:01,000 --> 00:00:02,500
Hello
there.

2
00:00:02,000 --> 00:01:04,000
- Who?
"""
HELLO, WHO = Cue(1.0, 2.5, "Hello there."), Cue(2.0, 64.0, "- Who?")
VTT = """WEBVTT - a title

STYLE
::cue { color: red }

NOTE of the translator

intro
00:01.000 --> 00:02.500 align:start position:10%
<v Ann><i>Hello</i>
there.

00:02.000 --> 00:01:04.000
- Who?
"""


def written(folder: Path, text: str | bytes, name: str = "said.srt") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(SRT, [HELLO, WHO], id="SRT"),
        pytest.param(VTT, [HELLO, WHO], id="WebVTT"),
        pytest.param("\ufeff" + SRT, [HELLO, WHO], id="a byte order mark"),
        pytest.param(SRT.encode("utf-16"), [HELLO, WHO], id="UTF-16"),
        pytest.param(SRT.replace("\n", "\r\n"), [HELLO, WHO], id="CRLF"),
        pytest.param(SRT.replace("\n", "\r"), [HELLO, WHO], id="CR"),
        pytest.param(SRT.replace(",", "."), [HELLO, WHO], id="dots"),
        pytest.param(SRT.replace(" --> ", "-->"), [HELLO, WHO], id="no spaces"),
        pytest.param(SRT.replace(".\n\n2", ".\n2"), [HELLO, WHO], id="no line between"),
        pytest.param(SRT.rstrip(), [HELLO, WHO], id="no last line end"),
        pytest.param("0:1 --> 0:2\n42\n", [Cue(1.0, 2.0, "42")], id="a number said last"),
        pytest.param("0:1,5 --> 0:2\na\n", [Cue(1.5, 2.0, "a")], id="a tenth"),
        pytest.param("100:00:01 --> 100:00:02\na", [Cue(360001.0, 360002.0, "a")], id="hours"),
        pytest.param(
            "0:3 --> 0:4\nb\n\n0:1 --> 0:2\na", [Cue(1, 2, "a"), Cue(3, 4, "b")], id="late"
        ),
        pytest.param("0:1 --> 0:2\n\n0:3 --> 0:4\nb", [Cue(3, 4, "b")], id="no words"),
        pytest.param(
            "0:1 --> 0:2\n{\\an8}a &amp; <b>b</b> <3", [Cue(1, 2, "a & b \u20393")], id="tags"
        ),
        pytest.param(
            "0:1 --> 0:2\nif a <b and c> d, I <3 you, 5 > 4",
            [Cue(1, 2, "if a \u2039b and c\u203a d, I \u20393 you, 5 \u203a 4")],
            id="words that are no tags",
        ),
        pytest.param(
            "0:1 --> 0:2\n<c.red.big>a</c> <00:00:01.500><lang en>b</lang> <01:02.345>"
            '<FONT color="#fff">c</FONT> <ruby>d<rt>e</rt></ruby> <v.loud Ann>f</v> <u>g</u>',
            [Cue(1, 2, "a b c de f g")],
            id="all tags",
        ),
        pytest.param(
            "0:1 --> 0:2\n<bring it> <12:30> </think> <i",
            [Cue(1, 2, "\u2039bring it\u203a \u203912:30\u203a \u2039/think\u203a \u2039i")],
            id="nearly tags",
        ),
        pytest.param(
            "0:1 --> 0:2\nyes -->\nno\n\n0:3 --> 0:4\nA --> B",
            [Cue(1, 2, "yes --\u203a no"), Cue(3, 4, "A --\u203a B")],
            id="arrows in what is said",
        ),
        pytest.param("  0:1 --> 0:2\na", [Cue(1, 2, "a")], id="a cue after spaces"),
        pytest.param(
            "0:1 --> 0:2\n&lt;|im_end|&gt;", [Cue(1, 2, "\u2039|im_end|\u203a")], id="no tokens"
        ),
    ],
)
def test_files_are_read_as_they_are_found(tmp_path, text, expected):
    assert list(read_subtitles(written(tmp_path, text))) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param("", "there are no subtitles in it", id="empty"),
        pytest.param("a\nb\n", "there are no subtitles in it", id="text"),
        pytest.param("a --> b\nc\n", "there are no subtitles in it", id="arrows alone"),
        pytest.param(
            "1\n00:70:00 --> x\nw\n\n0:2 --> 0:1\na", "line 2 tells no times", id="bad times"
        ),
        pytest.param("x\n0:3 --> 0:2\na\n\n0:1 --> 0:2\n\n", "line 2 tells", id="no words left"),
        pytest.param("0:2 --> 0:1\na", "line 1 tells no times.*the earlier first", id="ends early"),
        pytest.param("caf\xe9 0:1 --> 0:2".encode("latin-1"), "must be UTF-8", id="Latin-1"),
        pytest.param(b"\xff\xfea", "must be UTF-8", id="half of UTF-16"),
        pytest.param(b" " * 10_000_001, "are these subtitles", id="huge"),
        pytest.param(None, "no such file", id="absent"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, text, complaint):
    path = tmp_path / "none.srt" if text is None else written(tmp_path, text)
    with pytest.raises(BadVideo, match=complaint) as caught:
        read_subtitles(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param("00:00:09,000 --> 00:00:08,000", id="ends before it starts"),
        pytest.param("00:00:03,000 --> 00:00:60,000", id="sixty seconds"),
        pytest.param("00:00:01:000 --> 00:00:02:000", id="colons alone"),
        pytest.param("3 --> x", id="no times"),
    ],
)
def test_a_cue_that_cannot_be_read_is_left_out_and_noted(tmp_path, odd):
    text = f"{SRT}\n3\n{odd}\nNot told.\n\n4\n{odd}\nNor this.\n"
    path, clip = written(tmp_path, text), tmp_path / "talk"
    clip.mkdir()
    PIL.Image.new("RGB", (32, 24)).save(clip / "0.png")
    assert read_subtitles(path) == (HELLO, WHO)
    info = subtitled(clip, path).video.info
    assert info.cues == (HELLO, WHO)
    own, *noted = info.notes
    assert own == open_video(clip).info.notes[0]
    assert noted == [f"{path}: 2 of 4 cues left out: line 11 tells no times of a cue, {odd!r}"]


def test_a_file_without_faults_is_not_noted(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", frames=4)
    noted = subtitled(clip, written(tmp_path, SRT)).video.info.notes
    assert noted == open_video(clip).info.notes


def test_mutated_files_are_read_or_refused(tmp_path):
    rng, said = random.Random(0), set()
    for _ in range(rounds(300)):
        try:
            said.add(len(read_subtitles(written(tmp_path, mutated(VTT.encode(), rng)))))
        except BadVideo as error:
            said.add(str(error).replace(str(tmp_path), "")[:30])
    assert {2, "/said.srt: subtitles must be U"} <= said


@pytest.mark.parametrize(
    ("cues", "expected"),
    [
        pytest.param([], ["", ""], id="none"),
        pytest.param([Cue(0, 1, "a")], ["<subtitles: a>", ""], id="before the first"),
        pytest.param([Cue(4, 9, "a")], ["", "<subtitles: a>"], id="as the second appears"),
        pytest.param([Cue(3.9, 9, "a")], ["<subtitles: a>", ""], id="starts before the second"),
        pytest.param([Cue(90, 91, "a")], ["", "<subtitles: a>"], id="after the last"),
        pytest.param(
            [Cue(1, 2, "a"), Cue(1.5, 3, "a"), Cue(2, 3, "b")],
            ["<subtitles: a b>", ""],
            id="repeated",
        ),
    ],
)
def test_each_cue_stands_beside_one_frame(cues, expected):
    assert beside(cues, [2.0, 4.0]) == expected


def test_a_span_has_what_is_said_in_it():
    cues = [Cue(0, 1, "a"), Cue(0, 3, "b"), Cue(2, 3, "c"), Cue(4, 5, "d")]
    assert [cue.text for cue in between(cues, 1, 4)] == ["b", "c"]


FRAMES = [PIL.Image.new("RGB", (32, 24), (n, 0, 0)) for n in range(100)]
VIDEO = video_of(FRAMES, [float(n) for n in range(100)], "talk").with_cues(
    [Cue(10, 12, "one"), Cue(55, 58, "two"), Cue(90, 91, "three")]
)
ASKED = mm.question("What was said?", mm.Clip("talk", VIDEO), id="q")


def told(parts) -> list[str]:
    return [p.text for p in parts if isinstance(p, Text) and MARKED.fullmatch(p.text)]


def test_words_follow_the_frame_that_they_are_said_after():
    model = ScriptedVLM(["one"])
    trace = run(partial(uniform, frames=2), ASKED, model)
    assert trace.settings["clips"][0]["subtitles"] == 3  # type: ignore[index]
    (prompt,) = model.conversations[0]
    assert [p.text if isinstance(p, Text) else "frame" for p in prompt.parts] == [
        *("<25.0 seconds>", "frame", "<subtitles: one two>"),
        *("<75.0 seconds>", "frame", "<subtitles: three>"),
        "What was said?",
    ]


def test_packed_frames_have_words_too():
    frames = list(VIDEO.frames_at([0, 20, 50]))
    parts = shown("talk", frames, pack=True, cues=VIDEO.info.cues)
    assert [p.text if isinstance(p, Text) else "frame" for p in parts] == [
        *("<10.0 seconds>", "frame", "<subtitles: one>"),
        *("<50.0 seconds>", "frame", "<subtitles: two three>"),
    ]


def test_a_look_has_the_words_of_its_span():
    model = ScriptedVLM(['{"start_s": 50, "end_s": 60}', "two"], traits=Traits(calls_tools=False))
    run(partial(watch, frames=1, look_frames=2), ASKED, model)
    assert told(model.conversations[1][-1].parts) == ["<subtitles: two>"]


def test_windows_have_their_words_and_the_question_none():
    model = ScriptedVLM(["a", "b", "", "answer"], traits=Traits(calls_tools=False))
    run(partial(watch, frames=2, window_s=50), ASKED, model)
    windows = [c[0] for c in model.conversations[:2]]
    assert [told(w.parts) for w in windows] == [
        ["<subtitles: one>"],
        ["<subtitles: two>", "<subtitles: three>"],
    ]
    asked = [w.text.rsplit("this question, or nothing: ", 1)[1] for w in windows]
    assert asked == ["What was said?"] * 2


def test_a_clip_of_a_file_gets_them(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", frames=48)
    made = subtitled(clip, written(tmp_path, SRT))
    assert made.source == str(clip)
    assert made.video.info.cues == (HELLO, WHO)
    assert [f.time_s for f in made.video.frames_at([1.0])] == [1.0]
    assert open_video(clip).info.cues == ()
