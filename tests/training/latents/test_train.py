"""`mm train depth` from rows to an answer with latents, through both stages."""

from __future__ import annotations

import errno
import json
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import PIL.Image
import pytest
import torch

import mm
from app.cli.main import run as mm_run
from mm.errors import UserError
from mm.local.adapters import base_of, is_adapter
from mm.local.checkpoints import find
from training.bundle.latents_stage import export_latents
from training.data import BadData
from training.latents.folder import is_finished
from training.latents.recipe import LatentsRecipe
from training.latents.rows import read_depth_rows
from training.latents.setup import loaded, module_for
from training.latents.train import _Run, _shuffled, train_latents
from vision.depth_strategies import with_latents
from vision.latent_reader import load_reader
from vision.midi import Midi, load_midi


@pytest.fixture
def data(tmp_path: Path) -> Path:
    lines = []
    for number in range(3):
        PIL.Image.new("RGB", (64, 64), (80 * number, 40, 90)).save(tmp_path / f"{number}.png")
        depth = np.linspace(1 + number, 3 + number, 64)[None].repeat(64, 0)
        np.save(tmp_path / f"{number}.npy", depth)
        row = {
            "image": f"{number}.png",
            "depth": f"{number}.npy",
            "question": "Which side is nearer?",
            "rationale": "The left side is nearer than the right side.",
            "answer": "left",
        }
        lines.append(json.dumps(row))
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    return path


def asked(data: Path, name: str, *more: str) -> list[str]:
    given = ["train", "depth", "--data", str(data), "--output", str(data.parent / name)]
    return [*given, "--epochs", "1", "--batch", "2", *more]


@pytest.mark.parametrize("reads", ["features", "model"])
def test_both_stages_and_an_answer(data: Path, reads: str, capsys: pytest.CaptureFixture) -> None:
    assert mm_run(asked(data, "one", "--latents", "2", "--reads", reads)) == 0
    first, second = data.parent / "one", data.parent / "two"
    assert is_adapter(first / "reader") is (reads == "model")
    on = ["--stage", "2", "--start", str(first), "--reads", reads]
    assert mm_run(asked(data, "two", *on)) == 0
    assert load_midi(str(second)).config.reads == reads
    log = [json.loads(line) for line in (second / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [0, 1]
    assert all(row["answer"] > 0 for row in log)
    assert mm_run(asked(data, "two", *on, "--resume")) == 0
    question = ["ask", str(data.parent / "0.png"), "Which side is nearer?"]
    told = ["--depth", str(data.parent / "0.npy"), "--max-tokens", "4"]
    for folder in (first, second):  # plugged in as it is, and with the adapter of stage 2
        strategy = f"depth-latent(midi={folder})"
        capsys.readouterr()
        assert mm_run([*question, "--strategy", strategy, *told, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["error"] is None


def test_the_folder_that_ships_reads_and_answers_as_what_was_trained(data: Path) -> None:
    trained = data.parent / "two"
    recipe = LatentsRecipe(data, trained, stage=2, latents=2, batch=1, epochs=1, learning_rate=0.05)
    train_latents(recipe)
    export_latents(trained, "tiny", data.parent / "shipped")
    vlm, row = (
        mm.load("tiny"),
        read_depth_rows(data, scale=None, kind="metric", rationales=False)[0],
    )
    said = []
    for folder in (trained, data.parent / "shipped"):
        reader = load_reader(str(folder))
        latents = reader(vlm, row.image, row.depth, row.question)
        assert latents is not None
        asked = with_latents(row.messages[:1], latents)
        said.append((latents.vectors, reader.answering(vlm).score(asked, ["left"]).logprobs[0]))
    for one, other in zip(*said, strict=True):
        assert np.allclose(one, other, rtol=0.1, atol=0.1)
    assert not np.allclose(said[0][1], vlm.score(row.messages[:1], ["left"]).logprobs[0], atol=0.5)


def test_rows_that_are_kept_hold_no_pixels(data: Path) -> None:
    recipe = LatentsRecipe(data, data.parent / "out", stage=2)
    vlm: Any = mm.load("tiny")
    rows = read_depth_rows(data, scale=None, kind="metric", rationales=False)
    run = _Run(recipe, vlm, module_for(recipe, vlm), vlm.engine.model, rows)
    first, kept = run.examples(0), run.examples(0)
    for tokens, of in ((first.answered, kept.answered), (first.prompt, kept.prompt)):
        for span, lean in zip(tokens.images, of.images, strict=True):
            assert lean.image.size == (1, 1)
            assert lean.key == span.key
            if span.encoded:
                alike = zip(span.process().values(), lean.process().values(), strict=True)
                assert all(torch.equal(one, other) for one, other in alike)


def test_a_training_goes_on_where_it_was_killed(data: Path, monkeypatch) -> None:
    recipe = LatentsRecipe(data, data.parent / "out", latents=2, batch=1, epochs=2)
    whole = LatentsRecipe(data, data.parent / "whole", latents=2, batch=1, epochs=2)
    train_latents(whole)
    monkeypatch.setattr("training.latents.train.SAVE_EVERY_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        train_latents(recipe, stop=lambda step: step == 3)
    train_latents(recipe, resume=True)
    for file in ("midi.safetensors", "reader/adapter_model.safetensors"):
        same = ((data.parent / n / file).read_bytes() for n in ("out", "whole"))
        assert len(set(same)) == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param({"rationale": None}, "text in 'rationale', found nothing", id="words"),
        pytest.param({"depth": None}, "expected a file in 'depth', found nothing", id="depth"),
        pytest.param({"depth": "9.npy"}, "expected a file, found none at '9.npy'", id="file"),
        pytest.param({"answer": None}, "answer", id="answer"),
    ],
)
def test_bad_rows_are_told_by_number(data: Path, change, told) -> None:
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    rows[1] = {k: v for k, v in {**rows[1], **change}.items() if v is not None}
    data.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(BadData, match=f"row 2: .*{told}"):
        train_latents(LatentsRecipe(data, data.parent / "out"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        pytest.param({"batch": 0}, "batch must be over 0 and finite, got 0", id="batch"),
        pytest.param({"max_minutes": -1}, "max_minutes must be over 0 and", id="minutes"),
        pytest.param({"learning_rate": float("nan")}, "learning_rate must be", id="rate"),
        pytest.param({"epochs": float("inf")}, "epochs must be over 0 and finite", id="epochs"),
        pytest.param(
            {"max_pixels": 1, "min_pixels": 2}, "min_pixels 2 is over max_pixels 1", id="pixels"
        ),
        pytest.param({"learned": "constant"}, "controls and --start are for --stage 2", id="stage"),
        pytest.param(
            {"stage": 2, "start": "one", "learned": "none"},
            "--learned none begins with no stage 1: leave --start out",
            id="a control with a start",
        ),
    ],
)
def test_what_cannot_be_is_refused(data: Path, given, told) -> None:
    with pytest.raises(UserError, match=told):
        LatentsRecipe(data, data.parent / "out", **given)


def test_a_folder_with_other_settings_is_refused(data: Path) -> None:
    begun = LatentsRecipe(data, data.parent / "out", latents=2, batch=1, epochs=0.4)
    train_latents(begun)
    with pytest.raises(BadData, match="was begun with latents 2, not 3"):
        train_latents(replace(begun, latents=3), resume=True)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param({"visual_tokens": 16}, "visual_tokens None, not 16", id="visual tokens"),
        pytest.param({"max_pixels": 900}, "max_pixels None, not 900", id="pixels"),
        pytest.param({"format": "native"}, "format 'auto', not 'native'", id="format"),
        pytest.param({"ignore": ("a",)}, r"ignore \[\], not \['a'\]", id="ignored columns"),
    ],
)
def test_what_rows_are_and_how_they_are_seen_stays(data: Path, change, told) -> None:
    begun = LatentsRecipe(data, data.parent / "out", latents=2)
    begun.output.mkdir()
    before = {k: v for k, v in begun.settings.items() if k not in change}  # as older ones wrote
    (begun.output / "latents.json").write_text(json.dumps(before))
    assert not is_finished(begun.output, begun, resume=True)
    with pytest.raises(BadData, match=f"was begun with {told}: give the same"):
        is_finished(begun.output, replace(begun, **change), resume=True)


@pytest.mark.parametrize(
    ("more", "trains"),
    [
        pytest.param([], r"stage 1 trains the module \(\d.*\) and an adapter of tiny", id="1"),
        pytest.param(
            ["--stage", "2", "--learned", "none"], "stage 2 trains an adapter of tiny", id="2"
        ),
    ],
)
def test_a_dry_run_says_what_would_be_trained(
    data: Path, more, trains, capsys: pytest.CaptureFixture
) -> None:
    assert mm_run(asked(data, "out", "--dry-run", *more)) == 0
    said = capsys.readouterr().err
    assert "rows: 3; 2 steps of 2 (--batch)" in said
    assert re.search(trains, said)
    assert not (data.parent / "out").exists()


def test_a_dry_run_reads_every_row(data: Path, capsys: pytest.CaptureFixture) -> None:
    row = json.loads(data.read_text().splitlines()[0])
    data.write_text(data.read_text() + "\n" + json.dumps({**row, "mood": "sad"}))
    assert mm_run(asked(data, "out", "--dry-run")) == 2
    assert "row 4: column 'mood' would be lost" in capsys.readouterr().err
    assert mm_run(asked(data, "out", "--dry-run", "--ignore", "mood", "--format", "short")) == 0
    assert mm_run(asked(data, "out", "--dry-run", "--ignore", "mood", "--format", "vts")) == 2


def test_images_are_seen_under_the_budget_that_is_given(data: Path) -> None:
    recipe = LatentsRecipe(data, data.parent / "out", visual_tokens=64)
    assert loaded(recipe).visual_tokens((64, 64)) == 64
    assert loaded(replace(recipe, visual_tokens=None)).visual_tokens((64, 64)) != 64


def test_a_mistake_leaves_no_folder_behind(data: Path, capsys: pytest.CaptureFixture) -> None:
    told = ["train", "depth", "--output", str(data.parent / "out"), "--epochs", "1"]
    assert mm_run([*told, "--data", str(data.parent / "nosuch.jsonl")]) == 2
    assert not (data.parent / "out").exists()


def test_an_adapter_knows_its_base_from_any_folder(data: Path, monkeypatch) -> None:
    (data.parent / "mine").symlink_to(find("tiny"))
    monkeypatch.chdir(data.parent)
    recipe = LatentsRecipe(data, data.parent / "out", 2, "./mine", learned="none", epochs=0.4)
    train_latents(recipe)
    assert base_of(recipe.output) == str(find("tiny").resolve())


def test_the_module_trains_where_the_model_is(data: Path, monkeypatch) -> None:
    there = []
    monkeypatch.setattr(Midi, "to", lambda midi, device: there.append(device) or midi)
    train_latents(LatentsRecipe(data, data.parent / "out", latents=2, epochs=0.4))
    assert there == [torch.device("cpu")]


def test_rows_are_shuffled_once_an_epoch() -> None:
    nothing: Any = None
    recipe = LatentsRecipe(Path(), Path(), batch=4, seed=7)
    run = _Run(recipe, nothing, nothing, nothing, rows=cast(Any, range(6)))
    run.examples = cast(Any, lambda index: index)
    _shuffled.cache_clear()
    drawn: list[Any] = [index for number in range(3) for index in run.batch(number)]
    assert [sorted(drawn[:6]), sorted(drawn[6:])] == [list(range(6))] * 2
    assert _shuffled.cache_info().misses == 2


def test_a_start_keeps_its_latents(data: Path, capsys: pytest.CaptureFixture) -> None:
    assert mm_run(asked(data, "one", "--latents", "2")) == 0
    start = ["--stage", "2", "--start", str(data.parent / "one")]
    assert mm_run(asked(data, "two", *start, "--latents", "3")) == 2
    assert "has 2 latents, not 3: leave --latents out" in capsys.readouterr().err


def test_a_start_is_gone_on_with_as_it_was_begun(data: Path, capsys: pytest.CaptureFixture) -> None:
    assert mm_run(asked(data, "one", "--latents", "2", "--reads", "features")) == 0
    assert mm_run(asked(data, "none", "--stage", "2", "--learned", "none")) == 0
    on = ["--stage", "2", "--start"]
    assert mm_run(asked(data, "two", *on, str(data.parent / "one"))) == 2
    assert "with --reads features, not model: give the same" in capsys.readouterr().err
    assert mm_run(asked(data, "two", *on, str(data.parent / "none"))) == 2
    assert "is a control, --learned none: nothing begins with it" in capsys.readouterr().err
    assert not (data.parent / "two").exists()


def test_a_training_ended_by_the_clock_goes_on(data: Path, capsys: pytest.CaptureFixture) -> None:
    out = data.parent / "out"
    assert mm_run(asked(data, "out", "--max-minutes", "0.000001")) == 0
    assert "after 1 of 2 steps; --resume with a larger one goes on" in capsys.readouterr().err
    assert (out / "midi.safetensors").is_file()
    assert mm_run(asked(data, "out", "--max-minutes", "0.000001", "--resume")) == 0
    assert not (out / "finished.json").exists()
    assert mm_run(asked(data, "out", "--max-minutes", "60", "--resume")) == 0
    log = [json.loads(line)["step"] for line in (out / "log.jsonl").open()]
    assert log == [0, 1]
    assert json.loads((out / "finished.json").read_text()) == {"steps": 2}


def test_a_module_says_on_what_kind_of_depth_it_was_trained(data: Path) -> None:
    first = LatentsRecipe(data, data.parent / "one", latents=2, epochs=0.4)
    train_latents(first)
    assert json.loads((first.output / "midi.json").read_text())["depth_kind"] == "metric"
    other = LatentsRecipe(
        data, data.parent / "two", 2, start=str(first.output), depth_kind="inverse"
    )
    with pytest.raises(UserError, match="was trained on metric depth, not on inverse"):
        train_latents(other)


def test_latents_are_told_of_in_words_and_drawn(data: Path, capsys: pytest.CaptureFixture) -> None:
    assert mm_run(asked(data, "one", "--latents", "2")) == 0
    question = ["ask", str(data.parent / "0.png"), "Which side is nearer?", "--max-tokens", "4"]
    told = ["--depth", str(data.parent / "0.npy"), "--draw", str(data.parent / "drawn.png")]
    strategy = f"depth-latent(midi={data.parent / 'one'})"
    assert mm_run([*question, *told, "--strategy", strategy]) == 0
    assert "cost" in capsys.readouterr().out
    assert (data.parent / "drawn.png").is_file()


def test_ctrl_c_leaves_a_checkpoint(data: Path) -> None:
    recipe = LatentsRecipe(data, data.parent / "out", latents=2, batch=1, epochs=2)

    def pressed(step: int) -> bool:
        if step == 1:
            signal.raise_signal(signal.SIGINT)
        return False

    with pytest.raises(KeyboardInterrupt):
        train_latents(recipe, stop=pressed)
    assert list((recipe.output / "checkpoints").glob("checkpoint-*"))
    train_latents(recipe, resume=True)
    log = [json.loads(line)["step"] for line in (recipe.output / "log.jsonl").open()]
    assert log == list(range(6))


def test_a_full_disk_is_one_line(data: Path, monkeypatch, capsys: pytest.CaptureFixture) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("training.latents.train.SAVE_EVERY_S", 0.0)
    monkeypatch.setattr("torch.save", full)
    assert mm_run(asked(data, "out", "--latents", "2")) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mm: ")]
    assert len(said) == 1
    assert "No space left on device: --resume goes on" in said[0]
