"""A person's own rows in `mm eval`, `mm collect` and `mm data thoughts`: how many, and which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from clips import write_clip
from PIL import Image as pil
from typer.main import get_command

import mm
from app.cli.data import reader_of
from app.cli.eval import Evaluation
from app.cli.main import cli
from app.cli.main import run as mm_run
from app.model_choice import ModelChoice
from mm.errors import UserError
from mm.geometry import Region
from training.evaluation.controls import conditions_of
from training.evaluation.questions import read_questions
from vision.zoom import zoom

ROW = {"image": "a.png", "question": "Which colour?", "answer": "red"}
BOX = {**ROW, "regions": [[10, 10, 20, 20]]}
CLIP = {"video": "a.mp4", "question": "Which colour?", "answer": "red"}
OBJECTS = {
    "messages": [
        {"role": "user", "content": "<image>What is at <bbox>?"},
        {"role": "assistant", "content": "a lamp"},
    ],
    "images": ["a.png"],
    "objects": {"ref": [], "bbox": [[10, 10, 20, 20]]},
}
CROPPED = {
    "messages": [{"role": "user", "content": "<image><image>Which?"}],
    "images": ["a.png", {"crop_of": 0, "bbox": [10, 10, 20, 20]}],
    "answer": "red",
}


@pytest.fixture
def rows(tmp_path: Path):
    pil.new("RGB", (100, 100), "red").save(tmp_path / "a.png")

    def write(*given: Any) -> Path:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in given))
        return path

    return write


def asked(path: Path, **changes: Any) -> Evaluation:
    return Evaluation(str(path), {"zoom": zoom}, **changes)


@pytest.mark.parametrize(
    ("limit", "n", "told"),
    [
        pytest.param(None, 600, "", id="all by default"),
        pytest.param(600, 600, "", id="no more than there are"),
        pytest.param(2, 2, "the first 2 of 600 rows (--limit)", id="the first"),
    ],
)
def test_a_file_is_asked_whole_unless_it_is_limited(rows, capsys, limit, n, told):
    given = {"limit": limit} if limit else {}
    (suite,) = asked(rows(*[ROW] * 600), **given).suites()
    assert (suite.n, len(list(suite.items()))) == (n, n)
    said = capsys.readouterr().err
    assert told in said if told else said == ""


@pytest.mark.parametrize("command", ["eval", "collect"])
def test_no_command_limits_a_file_by_itself(command):
    group: Any = get_command(cli)
    (limit,) = (each for each in group.commands[command].params if each.name == "limit")
    assert limit.default is None


def test_a_task_of_tabletop_is_asked_so_often(rows):
    (suite,) = Evaluation("tabletop", {}, tasks=("colour",)).suites()
    assert suite.n == 500


def test_clips_and_images_under_controls_are_refused_before_anything_is_asked(rows):
    path = rows(ROW, CLIP)
    write_clip(path.parent / "a.mp4")
    with pytest.raises(
        UserError, match="has clips and images, whose controls differ: leave --null"
    ):
        asked(path, controls=True).suites()
    (mixed,) = asked(path).suites()
    assert mixed.n == 2


@pytest.mark.parametrize(
    ("given", "regions", "true"),
    [
        pytest.param([BOX, BOX], (Region(0.1, 0.1, 0.2, 0.2),), True, id="all say where"),
        pytest.param([BOX, ROW], (), False, id="one does not"),
    ],
)
def test_regions_bring_the_control_that_shows_them(rows, given, regions, true):
    (suite,) = asked(rows(*given)).suites()
    assert [item.regions for item in suite.items()] == [regions] * 2
    controls = [each.control for each in conditions_of(suite, [("zoom", zoom)], controls=True)]
    assert ("true" in controls) == true


@pytest.mark.torch
def test_boxes_are_written_as_the_model_writes_them(rows):
    vlm: Any = mm.load("tiny")
    (suite,) = asked(rows(OBJECTS), builder=reader_of(ModelChoice())).suites()
    (item,) = suite.items()
    box = vlm.traits.box_format.write(Region(0.1, 0.1, 0.2, 0.2), vlm.seen_size((100, 100)))
    assert item.sample.prompt[0].text == f"What is at {json.dumps(box)}?"


@pytest.mark.torch
def test_crops_are_cut_as_the_model_was_shown_them(rows):
    path = rows(CROPPED)
    made = reader_of(ModelChoice())
    assert made
    (item,) = read_questions(path, builder=made)
    shown = read_questions(path).data.shown_to(made())[0]
    assert [i.size for i in item.sample.images] == [i.size for i in shown.messages[0].images]


def test_rows_without_boxes_need_no_model(rows):
    assert len(read_questions(rows(ROW), builder=lambda: pytest.fail("made"))) == 1


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        pytest.param(ModelChoice(), "tiny", id="here"),
        pytest.param(ModelChoice(backend="openai"), None, id="a server's"),
        pytest.param(ModelChoice(backend="openai", processor="tiny"), "tiny", id="its processor"),
    ],
)
def test_who_knows_how_boxes_are_written(choice, name):
    made: Any = reader_of(choice)
    assert (made and made.args[0].name) == name


@pytest.mark.torch
@pytest.mark.parametrize("command", ["eval", "collect", "thoughts"])
def test_a_format_may_be_named(rows, capsys, command):
    path = rows(ROW)
    out = ["--out", str(path.parent / "made.jsonl")]
    words = {
        "eval": ["eval", str(path)],
        "collect": ["collect", str(path), *out],
        "thoughts": ["data", "thoughts", str(path), *out],
    }
    assert mm_run([*words[command], "--format", "sharegpt"]) == 2
    assert "conversations" in capsys.readouterr().err
