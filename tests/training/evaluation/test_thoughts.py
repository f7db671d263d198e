"""Thoughts for rows: four steps, each kept, the wrong left out, and a run that goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from clips import write_clip
from locales import ascii_only
from scripted_server import QWEN, servers

from app.cli.data import _facts, _writer
from app.cli.main import run as mm_run
from app.model_choice import ModelChoice
from mm.errors import ModelError, ModelUnavailable
from mm.scripted import ScriptedVLM
from mm.types import Conversation
from training.data import read_data
from training.evaluation.questions import Questions, read_questions
from training.evaluation.tasks import BadTarget
from training.evaluation.thoughts import Writers, open_thoughts, write_thoughts

SEEN = 'A lamp. [{"time": "0", "caption": "A red lamp."}]'
THOUGHT = "<think>It glows red.</think><answer>red</answer>"
MENDED = "<think>It glows bright red.</think>"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    lines = []
    for number, answer in enumerate(("red", "blue")):
        PIL.Image.new("RGB", (32, 32), "red").save(tmp_path / f"{number}.png")
        row = {"image": f"{number}.png", "question": "Which colour?", "answer": answer}
        lines.append(json.dumps({**row, "choices": ["red", "blue"]}))
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    return path


def written(rows: Path, seeing: ScriptedVLM, thinking: ScriptedVLM, out: Path):
    questions: Questions = read_questions(rows)
    folder = out.with_suffix(".steps")
    done = open_thoughts(folder, {"file": rows.name})
    return write_thoughts(
        questions,
        partial(questions.fields, out=out),
        Writers(seeing, thinking),
        folder,
        out,
        done=done,
        threads=1,
    )


def test_four_steps_and_the_wrong_left_out(rows: Path) -> None:
    seeing = ScriptedVLM([SEEN, MENDED] * 2)
    thinking = ScriptedVLM([THOUGHT] * 2)
    out = rows.parent / "thoughts.jsonl"
    kept = written(rows, seeing, thinking, out)
    assert (kept.kept, kept.wrong, kept.failed) == (1, 1, 0)
    (row,) = map(json.loads, out.read_text().splitlines())
    assert row["images"] == ["0.png"]
    said = row["messages"][1]["content"]
    assert said == "<think>It glows bright red.</think>\n<answer>red</answer>"
    blind = thinking.conversations[0]
    assert not blind[0].images  # who thinks sees the description alone
    assert "A red lamp." in blind[0].text
    assert seeing.conversations[1][0].images
    assert "It glows red." in seeing.conversations[1][0].text
    (read,) = read_data(out)
    assert read.messages[-1].role == "assistant"
    assert len(read.messages[0].images) == 1


def test_a_run_that_was_stopped_goes_on_behind_its_last_step(rows: Path) -> None:
    out = rows.parent / "thoughts.jsonl"

    def fails(conversation: Conversation) -> str:
        raise ModelError("the server is gone")

    first = written(rows, ScriptedVLM([SEEN, fails, fails]), ScriptedVLM([THOUGHT]), out)
    assert first.failed == 2
    steps = out.with_suffix(".steps") / "steps.jsonl"
    with steps.open("a") as file:
        file.write('{"id": "cut o')  # a death
    again = written(rows, ScriptedVLM([MENDED, SEEN, MENDED]), ScriptedVLM([THOUGHT]), out)
    assert (again.kept, again.wrong, again.failed) == (1, 1, 0)


LONG = f"<think>{'It glows on. ' * 200}"


@pytest.mark.parametrize(
    ("seen", "thought", "why"),
    [
        pytest.param([LONG], [], "cut off at 2048 tokens: give more, --max-tokens", id="cut"),
        pytest.param([SEEN], [LONG], "cut off at 2048 tokens", id="a thought that is cut"),
        pytest.param([SEEN, LONG], [THOUGHT], "cut off at 2048 tokens", id="a mended one"),
        pytest.param([" "], [], "the model wrote no description", id="no description"),
        pytest.param([SEEN], ["<answer>red</answer>"], "wrote no thought", id="no thought"),
        pytest.param([SEEN], ["Red. <answer>red</answer>"], "wrote no thought", id="no tags"),
        pytest.param([SEEN, "<think></think>"], [THOUGHT], "no mended thought", id="none mended"),
        pytest.param(
            [SEEN, "The thought agrees with the frames. No change is needed."],
            [THOUGHT],
            "wrote no mended thought within <think></think>",
            id="a remark on it",
        ),
    ],
)
def test_what_is_cut_or_empty_is_tried_again_and_told(
    rows: Path, seen: list[str], thought: list[str], why: str
) -> None:
    rows.write_text(rows.read_text().splitlines()[0])
    out = rows.parent / "thoughts.jsonl"
    kept = written(rows, ScriptedVLM(seen), ScriptedVLM(thought), out)
    assert (kept.kept, kept.failed) == (0, 1)
    assert kept.why.startswith("rows-1: ")
    assert why in kept.why
    *_, last = (out.with_suffix(".steps") / "steps.jsonl").read_text().splitlines()
    assert why in json.loads(last)["failed"]
    again = ScriptedVLM([MENDED] if thought else [SEEN, MENDED])
    kept = written(rows, again, ScriptedVLM([THOUGHT]), out)
    assert (kept.kept, kept.failed, kept.why) == (1, 0, "")


def test_a_model_that_is_gone_stops_the_run(rows: Path) -> None:
    def gone(conversation: Conversation) -> str:
        raise ModelUnavailable("cannot reach the server")

    with pytest.raises(ModelUnavailable, match="cannot reach"):
        written(rows, ScriptedVLM([gone]), ScriptedVLM([]), rows.parent / "thoughts.jsonl")


def test_steps_of_something_else_are_not_mixed_in(tmp_path: Path) -> None:
    open_thoughts(tmp_path / "steps", {"model": "a"})
    with pytest.raises(BadTarget, match="thoughts that differ in model: give another --out"):
        open_thoughts(tmp_path / "steps", {"model": "b"})


ASKED = {"file": "a", "model": "m"}


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        pytest.param({"base_url": "a"}, {"base_url": "b"}, "base_url", id="server"),
        pytest.param({"budgets": {}}, {"budgets": {"visual_tokens": 9}}, "budgets", id="budgets"),
        pytest.param({"writer_url": "a"}, {"writer_url": "b"}, "writer_url", id="writer"),
    ],
)
def test_steps_written_in_another_way_are_not_mixed_in(tmp_path: Path, before, now, told) -> None:
    open_thoughts(tmp_path / "steps", {**ASKED, "backend": "openai", **before})
    with pytest.raises(BadTarget, match=f"differ in {told}: "):
        open_thoughts(tmp_path / "steps", {**ASKED, "backend": "openai", **now})


def test_steps_of_before_places_were_written_down_go_on(tmp_path: Path) -> None:
    open_thoughts(tmp_path / "steps", ASKED)
    said = {"backend": "openai", "base_url": "a", "dtype": None, "budgets": {}, "writer_url": "b"}
    open_thoughts(tmp_path / "steps", {**ASKED, **said})
    with pytest.raises(BadTarget, match="differ in base_url: "):
        open_thoughts(tmp_path / "steps", {**ASKED, **said, "base_url": "c"})


def test_folders_of_the_version_before_go_on(tmp_path: Path) -> None:
    """They hold `max_tokens`, which is no fact any more."""
    (tmp_path / "thoughts.json").write_text(
        '{"file": "a.jsonl", "model": "m", "writer": null, "frames": 16, "max_tokens": 2048}'
    )
    asked = {"file": "a.jsonl", "frames": 16}
    open_thoughts(tmp_path, {**asked, **_facts(ModelChoice(name="m"), None, None)})
    with pytest.raises(BadTarget, match="differ in model: "):
        open_thoughts(tmp_path, {**asked, **_facts(ModelChoice(name="n"), None, None)})


CONTENT = [{"type": "text", "text": "Which?"}, {"type": "image_url", "image_url": {"url": "0.png"}}]
LAST = {"role": "assistant", "content": "red"}
LOOKS = {
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Which?"}, {"type": "image"}]},
        {"role": "assistant", "content": [{"type": "image"}, {"type": "text", "text": "red"}]},
    ],
    "images": ["0.png", {"crop_of": 0, "bbox": [0, 0, 8, 8]}],
}


@pytest.mark.parametrize(
    "row",
    [
        pytest.param({"messages": [{"role": "user", "content": CONTENT}, LAST]}, id="openai"),
        pytest.param({"image": "0.png", "question": "Which? <image>", "answer": "red"}, id="tag"),
        pytest.param(LOOKS, id="a reply with an image of its own"),
    ],
)
def test_an_image_behind_the_words_is_shown_and_written(rows: Path, row: dict) -> None:
    rows.write_text(json.dumps(row))
    out, seeing = rows.parent / "thoughts.jsonl", ScriptedVLM([SEEN, MENDED])
    assert written(rows, seeing, ScriptedVLM([THOUGHT]), out).kept == 1
    for (asked,) in seeing.conversations:
        assert len(asked.images) == 1
        assert "Which?" not in asked.text.partition("question:")[0]
    (read,) = read_data(out)
    assert len(read.messages[0].images) == 1


def test_what_was_said_before_the_question_is_told_and_written(rows: Path) -> None:
    talk = [("human", "<image>\nWhat is beside the boat?"), ("gpt", "A buoy.")]
    talk += [("human", "Which colour is it?"), ("gpt", "red")]
    said = [{"from": who, "value": words} for who, words in talk]
    rows.write_text(json.dumps({"system": "Be brief.", "image": "0.png", "conversations": said}))
    out, thinking = rows.parent / "thoughts.jsonl", ScriptedVLM([THOUGHT])
    assert written(rows, ScriptedVLM([SEEN, MENDED]), thinking, out).kept == 1
    asked = "user: What is beside the boat?\nassistant: A buoy.\nuser: Which colour is it?"
    assert thinking.conversations[0][0].text.endswith(f"Question: {asked}")
    (before,), (after,) = read_data(rows), read_data(out)
    assert [m.text for m in after.messages[:-1]] == [m.text for m in before.messages[:-1]]
    assert [len(m.images) for m in after.messages] == [0, 1, 0, 0, 0]
    assert after.untrained == {2}


def test_a_clips_frames_are_shown_with_their_times(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4")
    path, out = tmp_path / "rows.jsonl", tmp_path / "thoughts.jsonl"
    path.write_text(json.dumps({"video": "a.mp4", "question": "Which?", "answer": "red"}))
    seeing = ScriptedVLM([SEEN, MENDED])
    assert written(path, seeing, ScriptedVLM([THOUGHT]), out).kept == 1
    asked = seeing.conversations[0][0]
    assert asked.text.count("seconds>") == len(asked.images) == 16
    assert json.loads(out.read_text())["video"] == "a.mp4"


def test_bytes_of_a_table_become_data_uris(rows: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    row = {"image": {"bytes": (rows.parent / "0.png").read_bytes()}, "question": "Which?"}
    path, out = rows.parent / "rows.parquet", rows.parent / "thoughts.jsonl"
    parquet.write_table(pyarrow.Table.from_pylist([{**row, "answer": "red"}]), path)
    assert written(path, ScriptedVLM([SEEN, MENDED]), ScriptedVLM([THOUGHT]), out).kept == 1
    (read,) = read_data(out)
    assert read.messages[0].images[0].size == (32, 32)


def test_the_row_of_an_item_is_found_without_reading_all(rows: Path) -> None:
    questions = read_questions(rows)
    second = list(questions)[1]
    records: Any = OnlyByPosition(questions.data.records)
    found = replace(questions, data=replace(questions.data, records=records))
    assert found.fields(second, out=rows) == {"images": ["1.png"]}


class OnlyByPosition:
    """Records that cannot be gone through."""

    __iter__ = None

    def __init__(self, records: Sequence[Any]) -> None:
        self._records = records

    def __getitem__(self, at: int) -> Any:
        return self._records[at]


@pytest.mark.torch
def test_the_command_writes_rows_that_train(rows: Path, capsys: pytest.CaptureFixture) -> None:
    out = rows.parent / "out.jsonl"
    assert mm_run(["data", "thoughts", str(rows), "--out", str(out), "--max-tokens", "8"]) == 0
    assert "left out" in capsys.readouterr().out
    other = ["--out", str(out), "--max-tokens", "8", "--visual-tokens", "36"]
    assert mm_run(["data", "thoughts", str(rows), *other]) == 2
    assert "differ in budgets" in capsys.readouterr().err
    elsewhere = rows.parent / "deeper" / "out.jsonl"
    assert mm_run(["data", "thoughts", str(rows), "--out", str(elsewhere)]) == 2
    assert "--out must lie beside" in capsys.readouterr().err
    assert mm_run(["data", "thoughts", str(rows), "--out", str(rows.parent / "a.parquet")]) == 2
    assert "must end in .jsonl" in capsys.readouterr().err


def test_a_row_that_was_changed_gets_another_thought(rows: Path) -> None:
    out = rows.parent / "thoughts.jsonl"
    told = [SEEN, MENDED, SEEN, MENDED]
    written(rows, ScriptedVLM(told), ScriptedVLM([THOUGHT] * 2), out)
    first, second = rows.read_text().splitlines()
    rows.write_text(f"{first.replace('colour', 'hue')}\n{second}\n")
    again = ScriptedVLM([SEEN, MENDED])
    written(rows, again, ScriptedVLM([THOUGHT]), out)
    assert len(again.conversations) == 2


def test_thoughts_are_utf8_in_any_locale(rows: Path) -> None:
    out = rows.parent / "thoughts.jsonl"
    seeing = ScriptedVLM([SEEN, MENDED.replace("bright", "grüne")] * 2)
    with ascii_only():
        written(rows, seeing, ScriptedVLM([THOUGHT] * 2), out)
    assert "grüne" in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("keys", "sent"),
    [
        ({"OPENAI_API_KEY": "one"}, "Bearer one"),
        ({"OPENAI_API_KEY": "one", "WRITER_API_KEY": "two"}, "Bearer two"),
    ],
    ids=["one key", "a key of its own"],
)
def test_the_writers_server_may_want_another_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, str], sent: str
) -> None:
    for name, key in keys.items():
        monkeypatch.setenv(name, key)
    with servers(tmp_path) as serve:
        server = serve()
        _writer(QWEN, server.base_url, None)
        assert server.seen[0]["key"] == sent
