"""Rows about clips: read, shown as frames to a model, counted, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from clips import write_clip
from tiny_vlm import vlm
from typer.testing import CliRunner

from app.cli.main import cli
from app.cli.main import run as mm_run
from mm.origins import FrameOf
from training.data import BadData, read_data
from training.data.convert import convert
from training.trainers.row_builders import ROW_BUILDERS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_clip(tmp_path / "a.mp4", frames=24, size=(64, 48), fps=12)
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    return tmp_path


def rows(folder: Path, *records: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


SHORT = {"video": "a.mp4", "question": "When?", "answer": "at 1 s"}
TALK = [{"role": "user", "content": "<video>\nWhen?"}, {"role": "assistant", "content": "Now."}]


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(SHORT, id="short"),
        pytest.param({"videos": ["a.mp4"], "messages": TALK}, id="ms-swift"),
        pytest.param(
            {
                "video": "a.mp4",
                "conversations": [
                    {"from": "human", "value": "<video>When?"},
                    {"from": "gpt", "value": "Now."},
                ],
            },
            id="llava",
        ),
    ],
)
def test_a_clip_stands_before_what_is_asked(folder: Path, record) -> None:
    (row,) = read_data(rows(folder, record))
    first = row.messages[0]
    assert [clip.source for clip in first.clips] == [str(folder / "a.mp4")]
    assert first.text == "When?"


VIDEO, FIRST = {"type": "video"}, {"type": "text", "text": "When?"}
NAMED = {"type": "video", "video": "a.mp4"}
TAG = {"content": "It is <video>."}


def talk(first: Any, second: Any) -> list[dict[str, Any]]:
    said = (("user", first), ("assistant", "Now."), ("user", second), ("assistant", "Later."))
    return [{"role": role, "content": content} for role, content in said]


@pytest.mark.parametrize(
    ("record", "places"),
    [
        pytest.param(
            {"videos": ["a.mp4"] * 2, "messages": talk("<video>\nWhen?", "And <video>?")},
            [(0, 0), (2, 1)],
            id="tags",
        ),
        pytest.param(
            {"videos": ["a.mp4"] * 2, "messages": talk([VIDEO, FIRST], [FIRST, VIDEO])},
            [(0, 0), (2, 1)],
            id="parts",
        ),
        pytest.param({"messages": talk([FIRST], [NAMED])}, [(2, 0)], id="named by parts"),
        pytest.param(
            {
                "messages": talk(
                    [{"type": "video_url", "video_url": {"url": "a.mp4"}}, FIRST], "And?"
                )
            },
            [(0, 0)],
            id="video_url",
        ),
        pytest.param(
            {"video": "a.mp4", "messages": talk("When?", [{"type": "text", "text": "<video>?"}])},
            [(2, 0)],
            id="a tag in a text part",
        ),
        pytest.param({"video": "a.mp4", "messages": talk("When?", "And?")}, [(0, 0)], id="neither"),
        pytest.param(
            {**SHORT, "question": "In <video>, when?"}, [(0, 1)], id="short, a tag inside"
        ),
    ],
)
@pytest.mark.parametrize("there", ["native", "swift", "sharegpt"])
def test_clips_stand_where_the_row_says(folder: Path, record, places, there: str) -> None:
    path = rows(folder, record)
    convert(read_data(path), there, folder / "there.jsonl")
    for each in (path, folder / "there.jsonl"):
        (row,) = read_data(each)
        found = [(i, m.parts.index(clip)) for i, m in enumerate(row.messages) for clip in m.clips]
        assert found == places
        assert not any("<video>" in m.text for m in row.messages)


def test_a_model_is_shown_its_frames(folder: Path) -> None:
    builder = vlm("qwen3_vl").builder
    data = read_data(rows(folder, {"videos": ["a.mp4"], "messages": TALK})).shown_to(builder)
    (row,) = data
    times = [i.origin.time_s for i in row.messages[0].images if isinstance(i.origin, FrameOf)]
    assert len(times) == 16
    assert times == sorted(times)
    (tokens,) = ROW_BUILDERS["sft"](builder)(row)
    assert len(tokens.images) == 16


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        pytest.param({**SHORT, "video": "gone.mp4"}, "expected a file, found none", id="missing"),
        pytest.param({**SHORT, "video": "../a.mp4"}, "a path inside the file's folder", id="else"),
        pytest.param({**SHORT, "video": "http://a.b/c.mp4"}, "found the URL 'http://a.b", id="URL"),
        pytest.param({**SHORT, "video": "a" * 300}, "expected a file, found none", id="long"),
        pytest.param({**SHORT, "video": 7}, "expected the path of a file, found 7", id="number"),
        pytest.param(
            {"videos": ["a.mp4", "a.mp4"], "messages": TALK},
            "expected 1 clips, as many as <video> in text, found 2",
            id="tags",
        ),
        pytest.param({"messages": TALK}, "clips are named in the column 'video'", id="no clip"),
        pytest.param(
            {"video": "a.mp4", "messages": [{**TALK[0], "content": "?"}, {**TALK[1], **TAG}]},
            "found it in a reply",
            id="reply",
        ),
        pytest.param(
            {"video": "b.mp4", "messages": talk([NAMED], "And?")},
            "expected videos in messages or in 'videos', found 1 and 1",
            id="two sources",
        ),
        pytest.param({**SHORT, "audio": "a.mp3"}, "sound is not read", id="sound"),
    ],
)
def test_what_cannot_be_read_is_named(folder: Path, record, reason: str) -> None:
    with pytest.raises(BadData, match="row 1: ") as error:
        list(read_data(rows(folder, record)))
    assert reason in str(error.value)


def test_a_clip_that_cannot_be_decoded_names_its_row(folder: Path) -> None:
    path = rows(folder, SHORT, {**SHORT, "video": "broken.mp4"})
    said = CliRunner().invoke(cli, ["data", "check", str(path)])
    assert said.exit_code == 1
    assert "row 2" in said.stdout
    assert "1 of 2 rows are good for sft, 1 bad" in said.stdout


def test_eval_and_a_batch_ask_about_clips(folder: Path, capsys: pytest.CaptureFixture) -> None:
    path = rows(folder, SHORT)
    out = folder / "table.json"
    asked = ["eval", str(path), "--strategy", "direct,watch", "--nulls", "--max-tokens", "4"]
    assert mm_run([*asked, "--out", str(out)]) == 0
    sheet = folder / "errors.png"
    assert mm_run(["eval", str(path), "--max-tokens", "4", "--show-errors", str(sheet)]) == 0
    assert sheet.stat().st_size > 0
    table = json.loads(out.read_text())["rows"]
    assert [row["control"] for row in table if row["strategy"] == "watch"] == [
        "",
        "random",
        "blind",
        "middle-frame",
        "shuffled",
        "reversed",
    ]
    assert all(row["failures"] == 0 for row in table if row["strategy"] == "direct")
    answers = folder / "answers.jsonl"
    batch = ["ask", "--batch", str(path), "--out", str(answers), "--strategy", "uniform(frames=2)"]
    assert mm_run([*batch, "--max-tokens", "4"]) == 0
    said = json.loads(answers.read_text())
    assert (said["error"], said["videos"]) == (None, ["a.mp4"])


def test_info_says_what_is_in_a_clip(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert mm_run(["info", str(folder / "a.mp4")]) == 0
    said = capsys.readouterr().out
    assert "24, 12.000 a second" in said
    assert "64 x 48 as shown" in said
    assert mm_run(["info", str(folder / "broken.mp4")]) == 2


def test_ask_draws_a_strip(folder: Path, capsys: pytest.CaptureFixture) -> None:
    clip, drawn = str(folder / "a.mp4"), folder / "strip.png"
    how = ["--strategy", "watch(frames=3)", "--max-tokens", "4", "--json"]
    assert mm_run(["ask", clip, "When?", *how, "--draw", str(drawn)]) == 0
    assert json.loads(capsys.readouterr().out)["spans"] == []
    assert drawn.stat().st_size > 0
