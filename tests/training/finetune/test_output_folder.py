"""A training's folder: what it may hold, how a training goes on there, and when it is finished."""

from __future__ import annotations

import copy
import errno
import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import FAMILIES

from mm.errors import UserError
from mm.geometry import Region
from mm.tokens.builder import TokenBuilder
from mm.tokens.sequence import Tokens
from mm.types import assistant, user
from training.batching.built_rows import facts_of
from training.data import BadData, Row
from training.finetune.output_folder import (
    CHOICES,
    FINISHED,
    LOG,
    RUN,
    begin_run,
    begun_run,
    clear_for,
    finish,
    is_finished,
    last_checkpoint,
    read_log,
    refusing_full_disk,
    save_model,
)
from training.finetune.recipe import Recipe
from training.finetune.run import Training
from training.finetune.setup import _built
from training.trainers.checkpoints import ASIDE, Checkpoint, path_of, seal
from training.trainers.course import Rows

RECIPE = Recipe(data="a.csv", output="out", rewards={"accuracy": 1})
CHOSEN = {"choices": {"lora": False}, "processes": 1, "rows": 7, "targets": 7}


def begun(folder: Path) -> Path:
    begin_run(folder, RECIPE, CHOSEN)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_begun_goes_on_with_the_same_settings(tmp_path):
    folder = begun(tmp_path / "out")
    assert not is_finished(folder, replace(RECIPE, output="moved", device="cpu"), resume=True)
    assert begun_run(folder) == CHOSEN
    begin_run(folder, RECIPE, CHOSEN)


def test_a_finished_training_is_known(tmp_path):
    folder = begun(tmp_path / "out")
    finish(folder, {"accuracy": 0.5})
    assert is_finished(folder, RECIPE, resume=True)
    assert json.loads((folder / FINISHED).read_text()) == {"accuracy": 0.5}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        pytest.param({"learning_rate": 1e-3}, "learning_rate None, not 0.001", id="a rate"),
        pytest.param({"max_steps": 3}, "max_steps None, not 3", id="more steps"),
        pytest.param({"data": "b.csv"}, "data 'a.csv', not 'b.csv'", id="other rows"),
    ],
)
def test_other_settings_are_refused_before_anything_is_written(tmp_path, change, complaint):
    folder = begun(tmp_path / "out")
    before = contents(folder)
    with pytest.raises(BadData, match=f"was begun with {complaint}: give the same, or another"):
        is_finished(folder, replace(RECIPE, **change), resume=True)
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("key", "told"), [("rows", "rows of --data"), ("targets", "replies or answers in --data")]
)
def test_rows_that_changed_are_refused(tmp_path, key, told):
    folder = begun(tmp_path / "out")
    with pytest.raises(BadData, match=f"was begun with other {told}: give"):
        begin_run(folder, RECIPE, {**CHOSEN, key: 8})


def test_what_an_earlier_version_did_not_write_down_may_be_anything(tmp_path):
    known = {key: value for key, value in CHOSEN.items() if key != "targets"}
    begin_run(tmp_path / "out", RECIPE, known)
    begin_run(tmp_path / "out", RECIPE, CHOSEN)


REGION = Region(0.0, 0.0, 0.5, 0.5)
TAUGHT = Row("a", (user("?"), assistant("red")), answer="red", source="x", regions=(REGION,))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"answer": "blue"}, id="what is right"),
        pytest.param({"choices": ("red", "blue")}, id="choices"),
        pytest.param({"regions": ()}, id="regions"),
        pytest.param({"source": "y"}, id="the source"),
        pytest.param({"messages": (user("?"), assistant("der"))}, id="a reply of equal length"),
        pytest.param({"untrained": frozenset({1})}, id="what trains"),
    ],
)
def test_targets_that_changed_are_told(change):
    """Lengths and images, all that was compared, stay as they were."""
    build = partial(built, FAMILIES["qwen3_vl"]().builder)
    before, same, after = (
        recorded(*_built(build, row)) for row in (TAUGHT, TAUGHT, replace(TAUGHT, **change))
    )
    assert before == same
    assert {key for key in before if before[key] != after[key]} == {"targets"}


def built(builder: TokenBuilder, row: Row) -> list[Tokens]:
    return [builder.build(row.messages, open_turn=False, exclude=row.untrained)]


def recorded(name: str, sides: Any, target: int) -> dict[str, Any]:
    length, images, _ = facts_of(sides)
    rows = Rows(SimpleNamespace(), [0], [length], [images], [target])  # type: ignore[arg-type]
    plan = SimpleNamespace(**dict.fromkeys(CHOICES))
    training: Any = SimpleNamespace(rows=rows, held_out=None, plan=plan)
    return Training.record(training, 1)


@pytest.mark.parametrize(
    ("left", "resume", "complaint"),
    [
        pytest.param("note.txt", False, "is not empty: give another", id="something else"),
        pytest.param("note.txt", True, "is not empty: give another", id="something else, resumed"),
        pytest.param("recipe.json", False, "is not empty: go on with --resume", id="a training"),
        pytest.param("", False, "is a file: give another", id="a file"),
    ],
)
def test_a_folder_of_something_else_is_refused(tmp_path, left, resume, complaint):
    folder = tmp_path / "out"
    if left:
        folder.mkdir()
    (folder / left if left else folder).write_text("{}")
    with pytest.raises(BadData, match=complaint):
        is_finished(folder, RECIPE, resume=resume)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("left", [[], [RUN], ["recipe.json.part", RUN, "checkpoints/"]])
def test_what_a_death_left_before_the_first_step_is_no_hindrance(tmp_path, left, resume):
    folder = tmp_path / "out"
    folder.mkdir()
    for name in left:
        (folder / name).mkdir() if name.endswith("/") else (folder / name).write_text("{")
    assert not is_finished(folder, RECIPE, resume=resume)
    assert begun_run(folder) is None


def test_without_a_checkpoint_a_training_goes_on_from_the_beginning(tmp_path, capsys):
    folder = begun(tmp_path / "out")
    (folder / LOG).write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert last_checkpoint(folder) is None
    clear_for(folder, None)
    assert capsys.readouterr().err == "going on from the beginning\n"
    assert read_log(folder / LOG) == []


def test_a_spoilt_checkpoint_gives_way_to_the_one_before(tmp_path, capsys):
    folder = begun(tmp_path / "out")
    for step in (2, 4):
        aside = path_of(folder / "checkpoints" / ASIDE, step)
        aside.mkdir(parents=True)
        (aside / "model.safetensors").write_bytes(b"weights")
        seal(aside, Checkpoint(path_of(folder / "checkpoints", step), step, 3.0))
    (folder / "checkpoints/checkpoint-4/model.safetensors").write_bytes(b"wei")
    rows = [{"step": 2, "loss": 1.0}, {"step": 2, "train_runtime": 3}, {"step": 3, "loss": 0.5}]
    (folder / LOG).write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 4, "l')
    checkpoint = last_checkpoint(folder)
    assert checkpoint
    assert checkpoint.step == 2
    clear_for(folder, checkpoint)
    told = capsys.readouterr().err
    assert told == "checkpoint-4 is not whole: going on from step 2\n"
    assert not (folder / "checkpoints/checkpoint-4").exists()
    assert (folder / LOG).read_text() == '{"step": 2, "loss": 1.0}\n'


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), id="the disk"),
        pytest.param(OSError(errno.EFBIG, os.strerror(errno.EFBIG)), id="a limit on files"),
        pytest.param(RuntimeError("PytorchStreamWriter failed writing file"), id="torch"),
        pytest.param(Exception("I/O error: No space left on device (os error 28)"), id="Rust"),
    ],
)
def test_a_full_disk_is_said_in_a_line(tmp_path, error):
    with pytest.raises(UserError) as caught, refusing_full_disk(tmp_path / "out"):
        raise error
    (line,) = str(caught.value).splitlines()
    assert "out cannot be written (" in line
    assert line.endswith("): free some space, then go on with --resume")


def source_in(folder: Path, config: Any) -> Path:
    """What a whole model is trained from."""
    source = folder / "source"
    source.mkdir()
    (source / "config.json").write_text(json.dumps(config))
    stored = {"norm": torch.ones(3), "most": torch.ones(8, 8, dtype=torch.bfloat16)}
    save_file(stored, source / "model.safetensors")
    return source


def save_whole(source: Path, out: Path) -> None:
    model = copy.deepcopy(FAMILIES["qwen3_vl"]().model)
    alone: Any = SimpleNamespace(is_main_process=True, unwrap_model=lambda model, **kw: model)
    plan: Any = SimpleNamespace(sharded=False, lora=False, recipe=Recipe(model=str(source)))
    save_model(SimpleNamespace(model=model, accelerator=alone), plan, out)


def test_tokenizers_and_templates_come_along(tmp_path):
    source, out = source_in(tmp_path, {}), tmp_path / "out"
    names = ["merges.txt", "vocab.txt", "additional_chat_templates/tool_use.jinja"]
    (source / "additional_chat_templates").mkdir()
    for name in names:
        (source / name).write_text(name)
    for _ in range(2):  # again, after a death before it was marked as finished
        save_whole(source, out)
        assert [(out / name).read_text() for name in names] == names


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        pytest.param({"dtype": "float16"}, torch.float16, id="as configs say now"),
        pytest.param({"torch_dtype": "float16"}, torch.float16, id="as they said before"),
        pytest.param({"dtype": "torch.float16"}, torch.float16, id="as torch writes it"),
        pytest.param({"text_config": {"torch_dtype": "float16"}}, torch.float16, id="in a part"),
        pytest.param({}, torch.bfloat16, id="unnamed: as most of it is stored"),
        pytest.param({"dtype": "auto"}, torch.bfloat16, id="no type"),
        pytest.param({"dtype": "uint8"}, torch.bfloat16, id="no type of weights"),
    ],
)
def test_what_is_written_has_the_type_of_what_it_came_from(tmp_path, config, kind):
    """Trained in float32, it would be twice the size."""
    source, out = source_in(tmp_path, config), tmp_path / "out"
    save_whole(source, out)
    assert {each.dtype for each in load_file(out / "model.safetensors").values()} == {kind}


def test_another_error_is_none_of_the_disk(tmp_path):
    with pytest.raises(ZeroDivisionError), refusing_full_disk(tmp_path):
        _ = 1 / 0
