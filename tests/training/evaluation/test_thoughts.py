"""Thoughts for rows: four steps, each kept, the wrong left out, and a run that goes on."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import PIL.Image
import pytest

from app.cli.main import run as mm_run
from mm.errors import ModelError
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
        partial(questions.fields, beside=out.parent),
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
    assert row["image"] == "0.png"
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


def test_steps_of_something_else_are_not_mixed_in(tmp_path: Path) -> None:
    open_thoughts(tmp_path / "steps", {"model": "a"})
    with pytest.raises(BadTarget, match="thoughts that differ in model: give another --out"):
        open_thoughts(tmp_path / "steps", {"model": "b"})


@pytest.mark.torch
def test_the_command_writes_rows_that_train(rows: Path, capsys: pytest.CaptureFixture) -> None:
    out = rows.parent / "out.jsonl"
    assert mm_run(["data", "thoughts", str(rows), "--out", str(out), "--max-tokens", "8"]) == 0
    assert "left out" in capsys.readouterr().out
    elsewhere = rows.parent / "deeper" / "out.jsonl"
    assert mm_run(["data", "thoughts", str(rows), "--out", str(elsewhere)]) == 2
    assert "--out must lie beside" in capsys.readouterr().err


def test_a_row_that_was_changed_gets_another_thought(rows: Path) -> None:
    out = rows.parent / "thoughts.jsonl"
    told = [SEEN, MENDED, SEEN, MENDED]
    written(rows, ScriptedVLM(told), ScriptedVLM([THOUGHT] * 2), out)
    first, second = rows.read_text().splitlines()
    rows.write_text(f"{first.replace('colour', 'hue')}\n{second}\n")
    again = ScriptedVLM([SEEN, MENDED])
    written(rows, again, ScriptedVLM([THOUGHT]), out)
    assert len(again.conversations) == 2
