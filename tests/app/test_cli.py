"""The `mm` command: answers on stdout, mistakes in one line, batches that resume."""

from __future__ import annotations

import base64
import errno
import json
import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pytest
from PIL import Image as pil

import mm
from app.cli.main import run
from app.cli.options import choices_in
from app.model_choice import ModelChoice
from vision import ZOOM_TOOL

ROOT = Path(__file__).parents[2]
CALL = (
    "<tool_call>\n"
    '{"name": "image_zoom_in_tool", '
    '"arguments": {"bbox_2d": [250, 500, 500, 1000], "label": "sign"}}'
    "\n</tool_call>"
)


@pytest.fixture
def scripted(monkeypatch):
    """Puts a script behind `mm.load` and gives the model back."""

    def script(*replies) -> mm.ScriptedVLM:
        vlm = mm.ScriptedVLM(replies)
        monkeypatch.setattr(mm, "load", lambda name, **options: vlm)
        return vlm

    return script


@pytest.fixture
def picture(tmp_path) -> Path:
    path = tmp_path / "table.png"
    pil.new("RGB", (80, 40), "red").save(path)
    return path


def png_of(size: tuple[int, int]) -> bytes:
    """A PNG that claims `size` and holds nothing."""
    header = b"IHDR" + struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT\x35\xaf\x06\x1e"


def half_png() -> bytes:
    import io

    file = io.BytesIO()
    pil.effect_noise((64, 64), 50).save(file, "PNG")
    return file.getvalue()[:1500]


BAD_PICTURES = [
    pytest.param("cut.png", half_png(), id="cut off"),
    pytest.param("empty.png", b"", id="zero bytes"),
    pytest.param("words.jpg", b"hello, I am no picture\n", id="not a picture"),
    pytest.param("bomb.png", png_of((60_000, 60_000)), id="bomb"),
    pytest.param("strip.png", png_of((60_000, 1)), id="strip"),
    pytest.param("absent.png", None, id="missing"),
    pytest.param(".", None, id="folder"),
]


@pytest.mark.parametrize(("name", "content"), BAD_PICTURES)
def test_bad_picture_is_one_line(scripted, tmp_path, capfd, name, content):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    scripted()
    assert run(["ask", str(path), "What is it?"]) == 2
    said = capfd.readouterr()
    lines = (said.out + said.err).splitlines()
    assert len(lines) == 1, lines
    assert str(path) in lines[0]


def test_a_mistake_is_one_line_in_all_that_a_shell_shows(tmp_path):
    (tmp_path / "cut.png").write_bytes(half_png())
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "ask", str(tmp_path / "cut.png"), "What is it?"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    lines = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 2, lines
    assert len(lines) == 1, lines
    assert str(tmp_path / "cut.png") in lines[0]


def test_bad_picture_is_json_for_a_program(tmp_path, capsys):
    assert run(["ask", str(tmp_path / "absent.png"), "What is it?", "--json"]) == 2
    printed = capsys.readouterr()
    said = json.loads(printed.out)
    assert (said["answer"], said["regions"], printed.err) == (None, [], "")
    assert "absent.png" in said["error"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["ask"], "give an image and a question", id="nothing"),
        pytest.param(["ask", "What?"], "no image or clip before the question", id="no picture"),
        pytest.param(["ask", "PICTURE"], "end with the question", id="no question"),
        pytest.param(["ask", "PICTURE", " "], "question is empty", id="blank question"),
        pytest.param(["ask", "PICTURE", "What?", "--zoom"], "No such option", id="bad flag"),
        pytest.param(["look"], "No such command", id="bad command"),
        pytest.param(["ask", "PICTURE", "?", "--max-tokens", "0"], "--max-tokens", id="no tokens"),
        pytest.param(["ask", "PICTURE", "?", "--dtype", "int3"], "--dtype", id="bad dtype"),
        pytest.param(["ask", "PICTURE", "?", "--model", "tinny"], "tinny", id="no such model"),
        pytest.param(["ask", "PICTURE", "?", "--draw", "no/a.png"], "no folder", id="no folder"),
        pytest.param(["ask", "PICTURE", "?", "--draw", "a.txt"], "a.txt", id="not a picture name"),
        pytest.param(["ask", "PICTURE", "?", "--save-trace", "PICTURE"], "folder", id="trace file"),
        pytest.param(["ask", "PICTURE", "?", "--strategy", "zooom"], "zooom", id="no strategy"),
        pytest.param(
            ["ask", "PICTURE", "?", "--strategy", "no.such:thing"], "no module 'no'", id="no module"
        ),
        pytest.param(
            ["ask", "PICTURE", "?", "--strategy", "json:thing"], "no 'thing'", id="no function"
        ),
        pytest.param(
            ["ask", "PICTURE", "?", "--strategy", "json:__name__"], "called", id="not callable"
        ),
        pytest.param(["ask", "--batch", "rows.jsonl"], "go together", id="batch without out"),
        pytest.param(
            ["ask", "PICTURE", "?", "--batch", "a", "--out", "b"], "leave out", id="batch and words"
        ),
        pytest.param(
            ["ask", "--batch", "absent.jsonl", "--out", "b"], "absent.jsonl", id="no rows file"
        ),
        pytest.param(["eval", "tabletop", "--strategy", "zooom"], "zooom", id="eval no strategy"),
        pytest.param(["eval", "tabletop", "--strategy", ","], "names none", id="eval nothing"),
        pytest.param(["demo", "--strategy", ","], "names none", id="demo nothing"),
        pytest.param(["demo", "--depth-kind", "metric"], "give that too", id="a kind of no depth"),
        pytest.param(
            ["ask", "PICTURE", "?", "--threads", "4"], "with --batch", id="threads of one"
        ),
        pytest.param(
            ["info", "a.mp4", "--model", "x"], "without a model", id="the model of a clip"
        ),
        pytest.param(
            ["data", "thoughts", "a.csv", "--out", "b.jsonl", "--verifier", "asked"],
            "No such option",
            id="a verifier of thoughts",
        ),
    ],
)
def test_mistake_is_one_line(picture, capsys, arguments, says):
    code = run([str(picture) if a == "PICTURE" else a for a in arguments])
    printed = capsys.readouterr()
    assert (code, printed.out) == (2, "")
    assert len(printed.err.splitlines()) == 1
    assert says in printed.err


def test_eval_of_nothing_is_one_line(capsys):
    assert run(["eval", "absent.csv"]) == 2
    assert "absent.csv" in capsys.readouterr().err


def test_answer_place_and_cost(scripted, picture, capsys):
    scripted(CALL, "<answer>K</answer>")
    assert run(["ask", str(picture), "What letter?", "--strategy", "zoom"]) == 0
    printed = capsys.readouterr()
    answer, _, looked, cost = printed.out.splitlines()
    assert answer == "K"
    assert looked == f"looked at  {picture} [16, 12, 44, 40]"
    assert cost.startswith("cost ")
    assert printed.err == ""


def test_json_says_exactly_the_contract(scripted, picture, capsys):
    scripted(CALL, "<answer>K</answer>")
    assert run(["ask", str(picture), "What letter?", "--strategy", "zoom", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said) == [
        "reply",
        "answer",
        "unclear",
        "thoughts",
        "finish",
        "regions",
        "spans",
        "depth",
        "steps",
        "verdicts",
        "cost",
        "model",
        "strategy",
        "system",
        "sampling",
        "budgets",
        "error",
    ]
    assert (said["reply"], said["finish"]) == ("K", "stop")
    assert said["answer"] == "K"
    assert said["regions"] == [{"image": 0, "xyxy": [16, 12, 44, 40]}]
    assert said["cost"]["calls"] == 2
    assert said["error"] is None


@pytest.mark.parametrize(
    "strategy", ["think(instruction=y)", "vote(strategy=zoom, n=1, temperature=1)"]
)
def test_the_strategy_is_written_down_as_it_was_asked_for(
    scripted, picture, tmp_path, capsys, strategy
):
    scripted("red")
    flags = ["--strategy", strategy, "--choices", "red,blue", "--system", "Look.", "--top-k", "5"]
    flags += ["--save-trace", str(tmp_path / "traces"), "--json"]
    assert run(["ask", str(picture), "Which?", *flags]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["model"], said["strategy"], said["system"]) == ("scripted", strategy, "Look.")
    assert (said["sampling"]["top_k"], said["budgets"]) == (5, {})
    (trace,) = mm.load_traces(tmp_path / "traces")
    assert trace.settings["strategy"] == strategy


def test_model_failure(scripted, picture, capsys):
    scripted()
    assert run(["ask", str(picture), "What?"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert run(["ask", str(picture), "What?", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]


def test_a_bug_keeps_its_traceback(scripted, picture):
    scripted(lambda conversation: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(["ask", str(picture), "What?"])


def test_debugging_shows_what_is_behind_the_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "a.png").write_bytes(half_png())
    asked = ["ask", str(tmp_path / "a.png"), "What?"]
    assert run(asked) == 2
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("MM_DEBUG", "1")
    assert run(asked) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "_png" in shown or "ImageFile" in shown  # where in Pillow
    assert shown.splitlines()[-1].startswith("mm: ")
    assert run([*asked, "--json"]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)["error"]
    assert "Traceback" in printed.err


def test_several_pictures_in_one_question(scripted, picture, tmp_path):
    other = tmp_path / "other.png"
    pil.new("RGB", (10, 20), "blue").save(other)
    vlm = scripted("no")
    assert run(["ask", str(picture), str(other), "Are they the same?"]) == 0
    (asked,) = vlm.conversations
    assert [image.size for image in asked[-1].images] == [(80, 40), (10, 20)]
    assert asked[-1].text == "Are they the same?"


def test_choices_always_give_one_of_them_and_say_in_whose_place(scripted, picture, capsys):
    vlm = scripted("I cannot tell.", "I cannot tell.")
    vlm.scores = {"blue": -1.0}
    asked = ["ask", str(picture), "Which colour?", "--choices", "red, blue"]
    assert run(asked) == 0
    first, _, chosen, _ = capsys.readouterr().out.splitlines()
    assert first == "blue"
    assert chosen.endswith("the reply named none: I cannot tell.")
    assert run([*asked, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["answer"], said["unclear"]) == ("blue", "I cannot tell.")


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        pytest.param("a, b ,c", ["a", "b", "c"], id="between commas"),
        pytest.param('"1,000 km","2,000 km"', ["1,000 km", "2,000 km"], id="commas in quotes"),
        pytest.param("'1, 2', '3, 4'", ["1, 2", "3, 4"], id="in the other quotes"),
        pytest.param("don't know,yes", ["don't know", "yes"], id="an apostrophe"),
        pytest.param('5",6"', ['5"', '6"'], id="inches"),
        pytest.param("a,,b,", ["a", "b"], id="blanks"),
    ],
)
def test_choices_are_read(scripted, picture, text, choices):
    vlm = scripted("I cannot tell.")
    vlm.scores = {choices[-1]: -1.0}
    assert choices_in(text) == tuple(choices)
    assert run(["ask", str(picture), "Which?", "--choices", text]) == 0


@pytest.mark.parametrize("text", ["", "a", "a,", "1,1"])
def test_choices_that_leave_nothing_to_choose_are_refused(picture, capsys, text):
    assert run(["ask", str(picture), "Which?", "--choices", text]) == 2
    assert "give two or more different answers" in capsys.readouterr().err


def test_a_frame_that_is_asked_about_is_not_drawn_over(scripted, picture, tmp_path, capsys):
    clip = tmp_path / "clip"
    clip.mkdir()
    for n in range(2):
        (clip / f"{n}.png").write_bytes(picture.read_bytes())
    before = (clip / "0.png").read_bytes()
    for name in ("0.png", "new.png"):
        assert run(["ask", str(clip), "What?", "--draw", str(clip / name)]) == 2
        assert "would be a frame of the clip" in capsys.readouterr().err
    assert ((clip / "0.png").read_bytes(), len([*clip.iterdir()])) == (before, 2)
    scripted("red")
    assert run(["ask", str(clip), "What?", "--draw", str(tmp_path / "table.png")]) == 0


@pytest.fixture
def talk(picture, tmp_path) -> list[str]:
    """A clip, a question, and what is said in the clip."""
    clip, said = tmp_path / "clip", tmp_path / "said.srt"
    clip.mkdir()
    for n in range(2):
        (clip / f"{n}.png").write_bytes(picture.read_bytes())
    said.write_text("0:01 --> 0:02\nHello\n", encoding="utf-8")
    return [str(clip), "What is said?", "--subtitles", str(said)]


def test_subtitles_stand_beside_frames(scripted, talk):
    vlm = scripted("Hello")
    assert run(["ask", *talk, "--strategy", "uniform(frames=2)"]) == 0
    (prompt,) = vlm.conversations[0]
    assert prompt.text == "<0.0 seconds><1.0 seconds><subtitles: Hello>What is said?"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        pytest.param({0: "table.png"}, "one clip, and here are 0", id="no clip"),
        pytest.param({3: "none.srt"}, "no such file of subtitles", id="no file"),
        pytest.param({3: "table.png"}, "subtitles must be UTF-8", id="an image"),
    ],
)
def test_subtitles_that_cannot_be_used_are_told(talk, tmp_path, capsys, change, complaint):
    words = [change.get(n, word) for n, word in enumerate(talk)]
    words = [str(tmp_path / w) if w.endswith((".png", "none.srt")) else w for w in words]
    assert run(["ask", *words]) == 2
    assert complaint in capsys.readouterr().err


def test_subtitles_are_not_drawn_over(talk, tmp_path, capsys):
    said = (tmp_path / "said.srt").rename(tmp_path / "said.png")
    assert run(["ask", *talk[:3], str(said), "--draw", str(said)]) == 2
    assert "--draw" in capsys.readouterr().err
    assert said.read_text(encoding="utf-8").endswith("Hello\n")


def test_subtitles_of_rows_are_a_column(talk, tmp_path, capsys):
    rows = ["--batch", "rows.jsonl", "--out", str(tmp_path / "out.jsonl")]
    assert run(["ask", *rows, *talk[2:]]) == 2
    assert "--subtitles, which is a column" in capsys.readouterr().err


LONG = "The image shows a table with\n- a red square\n- a blue circle\n" + "and much more " * 20


class TestReply:
    """What people are shown is the reply; what is graded of it stands beside it."""

    def asked(self, picture, capsys, *flags: str) -> tuple[int, str]:
        code = run(["ask", str(picture), "Describe this picture.", *flags])
        return code, capsys.readouterr().out

    def test_a_long_reply_is_shown_whole(self, scripted, picture, capsys):
        scripted(LONG, LONG)
        code, out = self.asked(picture, capsys)
        assert code == 0
        assert out.startswith(LONG.strip() + "\n\ncost")
        code, out = self.asked(picture, capsys, "--json")
        said = json.loads(out)
        assert code == 0
        assert (said["reply"], said["answer"], said["error"]) == (LONG.strip(), None, None)

    def test_what_is_graded_of_it_is_marked_so(self, scripted, picture, capsys):
        text = "Page 3\nQuestion: 6 x 7\nAnswer: 42\nQuestion: 2 x 3"
        scripted(text, text)
        _, out = self.asked(picture, capsys)
        assert out.startswith(text + "\n\nanswer     42  (for grading)\n")
        said = json.loads(self.asked(picture, capsys, "--json")[1])
        assert (said["reply"], said["answer"]) == (text, "42")

    def test_a_cut_is_said(self, scripted, picture, capsys):
        scripted(LONG, LONG)
        _, out = self.asked(picture, capsys, "--max-tokens", "20")
        assert "cut        at the token limit" in out
        said = json.loads(self.asked(picture, capsys, "--max-tokens", "20", "--json")[1])
        assert (said["reply"], said["finish"]) == (LONG[:20].strip(), "length")

    def test_thoughts_are_said_to_be_left_out(self, scripted, picture, capsys):
        scripted("<think>It is red.</think>Red.", "<think>It is red.</think>Red.")
        _, out = self.asked(picture, capsys)
        assert out.startswith("Red.\n\nthoughts   3 words")
        assert json.loads(self.asked(picture, capsys, "--json")[1])["thoughts"] == ["It is red."]

    @pytest.mark.parametrize(
        ("replies", "limit", "why"),
        [
            pytest.param(["<think>K</think>", ""], "9", "cut at 9 tokens in its thought", id="cut"),
            pytest.param(["<think>K</think>", ""], "99", "stopped after its thought", id="thought"),
            pytest.param(["", ""], "99", "the model wrote nothing", id="nothing"),
        ],
    )
    def test_no_reply_says_why(self, scripted, picture, capsys, replies, limit, why):
        scripted(*replies, *replies)
        code, out = self.asked(picture, capsys, "--max-tokens", limit)
        assert code == 2
        assert out.startswith("(no reply: ")
        code, out = self.asked(picture, capsys, "--max-tokens", limit, "--json")
        said = json.loads(out)
        assert (code, said["reply"], said["answer"]) == (2, None, None)
        assert said["error"].startswith("no reply: ")
        if limit != "9":
            assert why in said["error"]

    def test_a_thought_and_nothing_after_it_still_answers(self, scripted, picture, capsys):
        scripted("<think>It is K.</think>", "K</answer>")
        code, out = self.asked(picture, capsys)
        assert (code, out.splitlines()[0]) == (0, "K")


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["ask", "PICTURE", "\u56fe" * 99], id="question of 297 bytes"),
        pytest.param(["ask", "PICTURE", "\u56fe" * 9999], id="question of 30 kB"),
    ],
)
def test_long_questions_are_asked(scripted, picture, arguments):
    vlm = scripted("red")
    assert run([str(picture) if a == "PICTURE" else a for a in arguments]) == 0
    assert vlm.conversations[0][-1].text == arguments[-1]


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(["--model", "x" * 300], id="model"),
        pytest.param(["--adapter", "x" * 300], id="adapter"),
        pytest.param(["--save-trace", "x" * 300], id="save-trace"),
        pytest.param(["--draw", "x" * 300 + ".png"], id="draw"),
        pytest.param(["--draw", "x" * 300 + "/a.png"], id="folder to draw in"),
        pytest.param(["--strategy", "x" * 300], id="strategy"),
        pytest.param(["--backend", "openai", "--base-url", "x" * 300], id="base-url"),
    ],
)
@pytest.mark.torch
def test_a_long_name_is_one_line_and_json(picture, capsys, flags):
    assert run(["ask", str(picture), "What?", *flags]) == 2
    printed = capsys.readouterr()
    assert (printed.out, len(printed.err.splitlines())) == ("", 1)
    assert run(["ask", str(picture), "What?", *flags, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize(
    "choice",
    [
        pytest.param(ModelChoice("x" * 300), id="model"),
        pytest.param(ModelChoice(adapter="x" * 300), id="adapter"),
        pytest.param(ModelChoice(verifier="x" * 300), id="verifier"),
    ],
)
def test_a_name_that_no_folder_can_have_tells_no_weights(choice):
    assert choice.place == {"backend": "local"}


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["ask", "--batch", "x" * 300, "--out", "b"], id="batch"),
        pytest.param(["ask", "--batch", "ROWS", "--out", "x" * 300], id="out"),
        pytest.param(["ask", "--batch", "ROWS", "--out", "x" * 300 + "/b"], id="folder of out"),
        pytest.param(["eval", "x" * 300], id="eval target"),
        pytest.param(["eval", "tabletop", "--out", "x" * 300 + "/t.json"], id="eval out"),
        pytest.param(["eval", "tabletop", "--show-errors", "x" * 300 + "/t.png"], id="errors"),
        pytest.param(["info", "--model", "x" * 300], id="info"),
        pytest.param(
            ["ask", "--batch", "ROWS", "--out", "OUT", "--strategy=scale", "--verifier", "x" * 300],
            id="verifier",
        ),
    ],
)
def test_long_names_elsewhere_are_one_line(
    scripted, picture, tmp_path, capsys, arguments: list[str]
):
    scripted()
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"image": "table.png", "question": "?"}\n')
    files = {"ROWS": str(rows), "OUT": str(tmp_path / "out.jsonl")}
    assert run([files.get(a, a) for a in arguments]) == 2
    printed = capsys.readouterr()
    assert (printed.out, len(printed.err.splitlines())) == ("", 1)


def test_a_path_in_a_message_is_whole(picture, tmp_path, capsys):
    folder = tmp_path / ("x" * 200)
    assert run(["ask", str(picture), "What?", "--draw", str(folder / "a.png")]) == 2
    assert capsys.readouterr().err == f"mm: --draw: there is no folder {str(folder)!r}\n"


def test_traces_are_added_to_a_folder(scripted, picture, tmp_path):
    scripted("one", "two")
    flags = ["--save-trace", str(tmp_path / "traces")]
    assert run(["ask", str(picture), "First?", *flags]) == 0
    assert run(["ask", str(picture), "Second?", *flags]) == 0
    assert [t.reply for t in mm.load_traces(tmp_path / "traces")] == ["one", "two"]


def test_flags_reach_the_model(scripted, picture):
    vlm = scripted("red")
    flags = ["--max-tokens", "7", "--temperature", "0.5", "--seed", "3"]
    assert run(["ask", str(picture), "What?", *flags]) == 0
    assert vlm.samplings == [mm.Sampling(max_tokens=7, temperature=0.5, seed=3)]


def test_trace_and_drawing_are_written(scripted, picture, tmp_path):
    scripted(CALL, "<answer>K</answer>")
    drawing, traces = tmp_path / "out.png", tmp_path / "traces"
    flags = ["--strategy", "zoom", "--draw", str(drawing), "--save-trace", str(traces)]
    assert run(["ask", str(picture), "What letter?", *flags]) == 0
    (trace,) = mm.load_traces(traces)
    assert (trace.answer, len(trace.images)) == ("K", 1)
    drawn = pil.open(drawing)
    assert drawn.getcolors(10) != pil.open(picture).getcolors(10)


def test_control_characters_never_reach_the_terminal(scripted, picture, capsys):
    scripted("\x1b[2Jred\x07")
    assert run(["ask", str(picture), "What?"]) == 0
    assert capsys.readouterr().out.startswith("[2Jred\n")


def test_strategy_of_ones_own_from_the_current_folder(
    scripted, picture, tmp_path, monkeypatch, capsys
):
    (tmp_path / "my_strategies.py").write_text(
        "def twice(session):\n"
        "    session.generate()\n"
        "    session.generate()\n"
        "    return session.branch\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    vlm = scripted("", "<answer>two</answer>")
    assert run(["ask", str(picture), "What?", "--strategy", "my_strategies:twice"]) == 0
    assert capsys.readouterr().out.startswith("two\n")
    assert len(vlm.conversations) == 2


def test_mistake_inside_a_strategy_is_its_authors(picture, tmp_path, monkeypatch):
    (tmp_path / "broken_strategy.py").write_text("import no_such_package_anywhere\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ModuleNotFoundError, match="no_such_package_anywhere"):
        run(["ask", str(picture), "What?", "--strategy", "broken_strategy:look"])


class TestBatch:
    @pytest.fixture
    def rows(self, picture, tmp_path) -> Path:
        return self.write(tmp_path, [{"id": i, "image": "table.png", "question": i} for i in "abc"])

    @staticmethod
    def write(folder: Path, rows: list) -> Path:
        path = folder / "rows.jsonl"
        lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
        path.write_text("\n".join(lines) + "\n")
        return path

    @staticmethod
    def read(path: Path) -> dict[str, dict]:
        answers = [json.loads(line) for line in path.read_text().splitlines()]
        assert len({a["row"] for a in answers}) == len(answers)
        return {a["id"]: a for a in answers}

    @staticmethod
    def ask(rows: Path, *flags: str) -> int:
        out = str(rows.parent / "out.jsonl")
        return run(["ask", "--batch", str(rows), "--out", out, *flags])

    @staticmethod
    def number(conversation) -> str:
        """What to answer: 1 to the question "a", 2 to "b", 3 to "c"."""
        return str("abc".index(conversation[-1].text) + 1)

    def test_every_row_is_answered(self, scripted, rows, tmp_path, capsys):
        scripted(*[self.number] * 3)
        assert self.ask(rows) == 0
        answers = self.read(tmp_path / "out.jsonl")
        assert {i: a["answer"] for i, a in answers.items()} == {"a": "1", "b": "2", "c": "3"}
        assert answers["a"].items() >= {"regions": [], "error": None, "question": "a"}.items()
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "3 answered, 0 failed" in printed.err

    def test_rows_are_asked_together_and_answered_in_their_order(self, scripted, rows, tmp_path):
        met = threading.Barrier(3)

        def together(conversation) -> str:
            met.wait(10)
            return self.number(conversation)

        scripted(*[together] * 3)
        assert self.ask(rows, "--threads", "3") == 0
        assert list(self.read(tmp_path / "out.jsonl")) == ["a", "b", "c"]

    def test_goes_on_after_a_kill(self, scripted, rows, tmp_path):
        def interrupted(conversation) -> str:
            if conversation[-1].text == "b":
                raise KeyboardInterrupt
            return self.number(conversation)

        out = tmp_path / "out.jsonl"
        scripted(*[interrupted] * 3)
        assert self.ask(rows) == 130
        assert list(self.read(out)) == ["a"]
        with out.open("a") as file:
            file.write('{"row": 2, "id": "b", "answ')  # a kill in the middle of a line
        vlm = scripted(*[self.number] * 2)
        assert self.ask(rows) == 0
        assert {i: a["answer"] for i, a in self.read(out).items()} == {"a": "1", "b": "2", "c": "3"}
        assert sorted(c[-1].text for c in vlm.conversations) == ["b", "c"]

    def test_nothing_left_to_do_loads_no_model(self, scripted, rows, monkeypatch):
        scripted("1", "2", "3")
        assert self.ask(rows) == 0
        monkeypatch.setattr(mm, "load", lambda name, **options: pytest.fail("loaded"))
        assert self.ask(rows) == 0

    def test_bad_rows_are_told_counted_and_tried_again(self, scripted, picture, tmp_path, capsys):
        rows = self.write(
            tmp_path,
            [
                {"id": "good", "images": ["table.png", "table.png"], "question": "?"},
                {"id": "absent", "image": "absent.png", "question": "?"},
                "{cut off",
                "[1]",
                {"id": "mute", "image": "table.png"},
                {"id": "blind", "question": "?"},
                {"id": "number", "image": 7, "question": "?"},
            ],
        )
        vlm = scripted("yes")
        assert self.ask(rows) == 1
        out = tmp_path / "out.jsonl"
        answers = [json.loads(line) for line in out.read_text().splitlines()]
        assert [bool(a["error"]) for a in answers] == [False] + [True] * 6
        assert len(vlm.conversations) == 1
        assert "1 answered, 6 failed" in capsys.readouterr().err
        picture.rename(tmp_path / "absent.png")
        scripted("now")
        assert self.ask(rows) == 1
        answers = [json.loads(line) for line in out.read_text().splitlines()]
        assert sum(a["error"] is None for a in answers) == 2
        assert len(answers) == 7

    @pytest.mark.parametrize(
        "flags",
        [
            pytest.param(["--strategy", "think"], id="another strategy"),
            pytest.param(["--model", "big"], id="another model"),
            pytest.param(["--adapter", "/x"], id="another adapter"),
            pytest.param(["--temperature", "1"], id="another temperature"),
            pytest.param(["--seed", "1"], id="another seed"),
            pytest.param(["--max-tokens", "9"], id="another limit"),
            pytest.param(["--choices", "1,2,3"], id="choices"),
            pytest.param(["--quantize", "4bit"], id="fewer bits"),
        ],
    )
    def test_does_not_mix_answers(self, scripted, rows, tmp_path, capsys, flags):
        out = tmp_path / "out.jsonl"
        scripted("1", "2", "3")
        self.ask(rows)
        for before in (out.read_text(), self.as_before(out)):
            out.write_text(before)
            assert self.ask(rows, *flags) == 2
            assert "give another --out" in capsys.readouterr().err
            assert out.read_text() == before

    @staticmethod
    def as_before(out: Path, *unsaid: str) -> str:
        """The answers in `out` as earlier versions wrote them: all side by side, some unsaid."""
        answers = [json.loads(line) for line in out.read_text().splitlines()]
        flat = [{**answer, **answer.pop("asked")} for answer in answers]
        kept = [{k: v for k, v in each.items() if k not in ("asked", *unsaid)} for each in flat]
        return "".join(json.dumps(each) + "\n" for each in kept)

    def test_what_was_asked_stands_beside_what_held(self, scripted, rows, tmp_path):
        scripted(*[self.number] * 3)
        assert self.ask(rows, "--temperature", "0.5", "--strategy", "zoom(max_looks=2)") == 0
        answer = self.read(tmp_path / "out.jsonl")["a"]
        assert answer["asked"]["sampling"] == {"max_tokens": 512, "seed": 0, "temperature": 0.5}
        assert answer["sampling"].items() > answer["asked"]["sampling"].items()
        assert answer["strategy"] == answer["asked"]["strategy"] == "zoom(max_looks=2)"
        assert (answer["model"], answer["asked"]["model"]) == ("scripted", "tiny")
        (tmp_path / "out.jsonl").write_text(json.dumps({**answer, "asked": 5}))
        assert self.ask(rows) == 2

    @pytest.mark.parametrize(
        ("flags", "told"),
        [
            pytest.param(["--base-url", "http://b/v1"], "base_url", id="another server"),
            pytest.param(["--processor", "here"], "processor", id="another processor"),
        ],
    )
    def test_does_not_mix_servers(self, scripted, rows, tmp_path, capsys, monkeypatch, flags, told):
        out, server = tmp_path / "out.jsonl", ["--backend", "openai"]
        scripted()
        monkeypatch.setattr(
            "app.model_choice.connect", lambda *_, **__: mm.ScriptedVLM([self.number] * 3)
        )
        assert self.ask(rows, *server) == 0
        assert self.ask(rows, *server, *flags) == 2
        assert told in capsys.readouterr().err
        out.write_text(self.as_before(out, told))
        assert self.ask(rows, *server, *flags) == 0

    def test_another_image_is_told_in_a_short_line(self, scripted, picture, tmp_path, capsys):
        scripted("1", "2")
        rows = tmp_path / "rows.jsonl"
        for more in ("", "="):
            data = base64.b64encode(picture.read_bytes() + b"0" * 9000).decode() + more
            rows.write_text(json.dumps({"id": 1, "image": data, "question": "?"}))
            code = self.ask(rows)
        assert code == 2
        told = capsys.readouterr().err.splitlines()[-1]
        assert "give another --out" in told
        assert len(told) < 400

    def test_rows_that_changed_are_not_answered_by_old_answers(self, scripted, rows, tmp_path):
        scripted("1", "2", "3")
        self.ask(rows)
        self.write(tmp_path, [{"id": "a", "image": "table.png", "question": "something else"}])
        assert self.ask(rows) == 2

    @pytest.mark.parametrize(
        "content",
        [
            pytest.param("notes of mine", id="words"),
            pytest.param('{"image": "a.png", "question": "?"}\n', id="rows"),
        ],
    )
    def test_never_overwrites_another_file(self, rows, tmp_path, content):
        (tmp_path / "out.jsonl").write_text(content)
        assert self.ask(rows) == 2
        assert (tmp_path / "out.jsonl").read_text() == content

    def test_every_row_leaves_its_trace(self, scripted, rows, tmp_path):
        scripted(*[self.number] * 3)
        assert self.ask(rows, "--save-trace", str(tmp_path / "traces")) == 0
        traces = mm.load_traces(tmp_path / "traces")
        assert [t.sample.id for t in traces] == ["a", "b", "c"]

    def test_a_row_without_a_reply_has_failed_and_a_long_one_has_not(
        self, scripted, rows, tmp_path, capsys
    ):
        thought = "<think>Hm.</think>"
        replies = {"a": [LONG], "b": [thought, ""], "c": [LONG]}

        def reply(conversation) -> str:
            asked = next(m for m in conversation if m.role == "user").text
            return replies[asked].pop(0)

        scripted(*[reply] * 4)
        assert self.ask(rows) == 1
        answers = self.read(tmp_path / "out.jsonl")
        assert [answers[i]["reply"] for i in "abc"] == [LONG.strip(), None, LONG.strip()]
        assert answers["b"]["error"] == "no reply: the model stopped after its thought"
        assert "2 answered, 1 failed" in capsys.readouterr().err
        replies["b"] = ["now"]
        scripted(reply)
        assert self.ask(rows) == 0
        assert "1 answered, 0 failed" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("line", "told"),
        [
            pytest.param(
                '{"image": "table.png", "question": "\\ud83d?"}', "half a char", id="half"
            ),
            pytest.param('{"id": "\\ud83d", "question": "?"}', "half a char", id="half an id"),
            pytest.param('{"question": "a", "question": "b"}', "is there twice", id="a key twice"),
        ],
    )
    def test_a_spoilt_row_spoils_no_other(self, scripted, picture, tmp_path, line, told):
        rows = self.write(tmp_path, [line, {"id": "b", "image": "table.png", "question": "b"}])
        scripted(self.number)
        assert self.ask(rows) == 1
        answers = [json.loads(a) for a in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert told in answers[0]["error"]
        assert answers[1]["answer"] == "2"

    def test_another_depth_map_is_another_question(self, scripted, picture, tmp_path, capsys):
        row = {"id": 1, "image": "table.png", "question": "a"}
        scripted(self.number, self.number)
        assert self.ask(self.write(tmp_path, [row])) == 0
        assert self.ask(self.write(tmp_path, [{**row, "depth": "other.npy"}])) == 2
        assert "row_depth" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("name", "flags", "told"),
        [
            pytest.param("rows.csv", [], "mm data convert", id="a table"),
            pytest.param("out.jsonl", [], "is read by this command", id="its own answers"),
            pytest.param(
                "rows.jsonl", ["--strategy", "depth", "--depth", "d.npy"], "'depth'", id="one map"
            ),
        ],
    )
    def test_what_is_refused(self, rows, tmp_path, capsys, name, flags, told):
        rows.rename(tmp_path / name)
        before = (tmp_path / name).read_text()
        assert self.ask(tmp_path / name, *flags) == 2
        assert told in capsys.readouterr().err
        assert (tmp_path / name).read_text() == before

    @pytest.mark.parametrize("kind", ["/dev/null", "a pipe", "a link to a pipe"])
    def test_what_is_no_file_is_refused(self, rows, tmp_path, capsys, kind):
        out = tmp_path / "out.jsonl"
        if kind != "/dev/null":
            os.mkfifo(tmp_path / "pipe")
            out.symlink_to(tmp_path / "pipe")
        asked = {"/dev/null": Path(kind), "a pipe": tmp_path / "pipe"}.get(kind, out)
        before = os.stat(asked)
        assert run(["ask", "--batch", str(rows), "--out", str(asked)]) == 2
        assert "is a device or a pipe: name a file" in capsys.readouterr().err
        assert os.stat(asked).st_ino == before.st_ino

    def test_a_link_stays_one(self, scripted, rows, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "out.jsonl").symlink_to(tmp_path / "elsewhere" / "answers.jsonl")
        for asked in (3, 0):  # the file is made, then gone on with
            scripted(*[self.number] * asked)
            assert self.ask(rows) == 0
            assert (tmp_path / "out.jsonl").is_symlink()
            assert list(self.read(tmp_path / "elsewhere" / "answers.jsonl")) == ["a", "b", "c"]

    @pytest.mark.parametrize("written", ["abc", "ab"], ids=["all answered", "some answered"])
    def test_a_disk_that_is_full_at_the_start_is_one_line(
        self, scripted, rows, tmp_path, monkeypatch, capsys, written
    ):
        scripted(*[self.number] * 3)
        assert self.ask(rows) == 0
        out = tmp_path / "out.jsonl"
        out.write_text("".join(out.read_text().splitlines(keepends=True)[: len(written)]))
        before = out.read_text()
        monkeypatch.setattr("os.replace", self.full)
        assert self.ask(rows) == 2
        said = [line for line in capsys.readouterr().err.splitlines() if "mm:" in line]
        assert said == [f"mm: --out: {str(out)!r} cannot be written: No space left on device"]
        assert out.read_text() == before
        assert [*tmp_path.glob("*.partial")] == []

    def test_a_disk_that_is_full_at_the_end_is_one_line(
        self, scripted, rows, tmp_path, monkeypatch, capsys
    ):
        scripted(self.number)
        every = rows.read_text()
        rows.write_text("\n\n" + every.splitlines()[2])
        assert self.ask(rows) == 0
        rows.write_text(every)
        scripted(*[self.number] * 2)
        replaced = [os.replace, self.full]
        monkeypatch.setattr("os.replace", lambda *paths: replaced.pop(0)(*paths))
        assert self.ask(rows) == 2
        assert "cannot be written: No space left" in capsys.readouterr().err
        assert sorted(self.read(tmp_path / "out.jsonl")) == ["a", "b", "c"]

    def test_answers_that_cannot_be_read_are_one_line(
        self, scripted, rows, tmp_path, monkeypatch, capsys
    ):
        scripted(*[self.number] * 3)
        assert self.ask(rows) == 0
        read, out = Path.read_text, tmp_path / "out.jsonl"
        monkeypatch.setattr(
            Path, "read_text", lambda p, **how: self.full() if p == out else read(p, **how)
        )
        assert self.ask(rows) == 2
        assert f"{str(out)!r} cannot be read: No space left" in capsys.readouterr().err

    @staticmethod
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
    def test_a_full_disk_is_one_line(self, scripted, rows, monkeypatch, capsys):
        scripted(*[self.number] * 3)
        full = open("/dev/full", "a")  # noqa: SIM115 - the command closes it
        monkeypatch.setattr("app.cli.batch._opened", lambda _: full)
        assert self.ask(rows) == 2
        said = [line for line in capsys.readouterr().err.splitlines() if "mm:" in line]
        assert said == ["mm: --out: '/dev/full' cannot be written: No space left on device"]

    def test_two_rows_may_not_share_an_id(self, picture, tmp_path, capsys):
        rows = self.write(tmp_path, [{"id": 1, "image": "table.png", "question": "?"}] * 2)
        assert self.ask(rows) == 2
        assert "rows 1 and 2" in capsys.readouterr().err


def test_ask_loads_nothing_it_does_not_need(picture):
    program = (
        "import sys, mm; from app.cli import run\n"
        "mm.load = lambda name, **options: mm.ScriptedVLM(['red'])\n"
        f"assert run(['ask', {str(picture)!r}, 'What?', '--strategy', 'zoom']) == 0\n"
        "heavy = {'gradio', 'trl', 'datasets', 'matplotlib', 'torch', 'transformers'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        pytest.param(["ask", "IN", "q?", "--draw", "IN"], "is read by this", id="ask --draw"),
        pytest.param(["data", "inspect", "IN", "--html", "IN"], "is read by", id="inspect --html"),
        pytest.param(["data", "thoughts", "IN", "--out", "IN"], "is read by", id="thoughts --out"),
        pytest.param(["eval", "IN", "--out", "IN"], "is read by this", id="eval --out"),
        pytest.param(["eval", "IN", "--show-errors", "IN"], "is read by", id="eval --show-errors"),
        pytest.param(["ask", "IN", "q\udcff?"], "half a character", id="half a character"),
        pytest.param(
            ["ask", "IN", "q?", "--depth-scale", "1000", "--strategy", "depth"],
            "give it with --depth",
            id="the scale of nothing",
        ),
        pytest.param(
            ["ask", "IN", "q?", "--depth", "a.npy", "--depth-model", "m", "--strategy", "depth"],
            "give one of them",
            id="a map and what makes one",
        ),
        pytest.param(
            ["ask", "IN", "q?", "--depth", "", "--strategy", "depth"], "empty", id="a map unnamed"
        ),
    ],
)
def test_what_would_be_lost_or_ignored_is_refused(picture, tmp_path, capsys, words, told):
    name = "in.csv" if words[0] == "eval" else "in.png" if words[0] == "ask" else "in.jsonl"
    file = tmp_path / name
    file.write_bytes(
        picture.read_bytes() if words[0] == "ask" else b"image,question,answer\ntable.png,a,b\n"
    )
    before = file.read_bytes()
    assert run([str(file) if word == "IN" else word for word in words]) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert printed.out == ""
    assert file.read_bytes() == before


def test_zoom_offers_its_tool(scripted, picture):
    vlm = scripted("red")
    assert run(["ask", str(picture), "What?", "--strategy", "zoom"]) == 0
    assert ZOOM_TOOL in vlm.conversations[0][0].parts
