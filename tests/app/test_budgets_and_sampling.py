"""Budgets of images, sampling and a system message, from flags to what is recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import mm
from app.cli.data import builder_of
from app.cli.info import model_facts, sampling_line
from app.cli.main import cli, run
from app.model_choice import ModelChoice
from mm.families.image_budgets import ImageBudgets
from mm.vlm import Traits, sampling_of
from training.finetune.recipe import KEYS

TABLE = "app/examples/table.png"
ASKED = "What letter is on the red square?"
WARM = mm.Sampling(temperature=0.7, top_p=0.8, top_k=20)


@pytest.mark.torch
def test_ask_shows_as_many_visual_tokens_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ask", TABLE, ASKED, "--visual-tokens", "64", "--max-tokens", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cost"]["visual_tokens"] == 64


@pytest.mark.torch
def test_looks_have_their_own_number(tmp_path: Path) -> None:
    flags = ["--strategy", "zoom", "--look-visual-tokens", "36", "--save-trace", str(tmp_path)]
    run(
        ["ask", TABLE, ASKED, *flags, "--system", "Be short.", "--top-k", "5", "--max-tokens", "60"]
    )
    (trace,) = mm.load_traces(tmp_path)
    assert {image.kind for image in trace.images} == {"look"}
    assert trace.cost.visual_tokens == 16 + 36 * len(trace.images)
    assert trace.settings["budgets"] == {"look_visual_tokens": 36}
    assert trace.settings["model"] == "tiny"
    assert dict(trace.settings["sampling"])["top_k"] == 5  # type: ignore[call-overload]
    assert trace.sample.prompt[0] == mm.message("system", "Be short.")


@pytest.mark.torch
def test_eval_records_what_was_asked(tmp_path: Path) -> None:
    out = tmp_path / "table.json"
    flags = ["--visual-tokens", "36", "--system", "Look.", "--repetition-penalty", "1.1"]
    tabletop = ["eval", "tabletop", "--task", "read", "--limit", "1", "--max-tokens", "4"]
    assert run([*tabletop, *flags, "--out", str(out)]) == 0
    table = json.loads(out.read_text())
    assert table["budgets"] == {"visual_tokens": 36}
    assert table["system"] == "Look."
    assert table["sampling"]["repetition_penalty"] == 1.1
    assert table["sampling"]["temperature"] == 0
    assert table["rows"][0]["visual_tokens"] == 36


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--top-p", "1.5"], "mm: top_p must be over 0, 1 or less, got 1.5"),
        (["--min-p", "-1"], "mm: min_p must be 0 or more, 1 or less, got -1.0"),
        (["--presence-penalty", "3"], "mm: presence_penalty must be -2 or more, 2 or less"),
        (["--repetition-penalty", "0"], "mm: repetition_penalty must be over 0, got 0.0"),
        (["--max-pixels", "9", "--min-pixels", "10"], "mm: min_pixels 10 is over max_pixels 9"),
        (
            ["--visual-tokens", "64", "--backend", "openai"],
            "mm: --visual-tokens: with --backend openai that is the server's to choose",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_is_one_line(
    capsys: pytest.CaptureFixture[str], flags: list[str], error: str
) -> None:
    assert run(["ask", TABLE, ASKED, *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(error)


@pytest.mark.parametrize(
    ("command", "name", "told"),
    [
        pytest.param("ask", "temperature", "the checkpoint's own", id="ask"),
        pytest.param("demo", "top_p", "the checkpoint's own", id="demo"),
        pytest.param("eval", "temperature", "0", id="eval"),
        pytest.param("eval", "top_p", "1", id="eval top_p"),
        pytest.param("collect", "temperature", "1", id="collect"),
        pytest.param("collect", "max_thought_tokens", "no limit", id="collect, thoughts"),
    ],
)
def test_each_commands_help_says_its_own_default(command: str, name: str, told: str) -> None:
    group: Any = get_command(cli)
    (flag,) = (each for each in group.commands[command].params if each.name == name)
    assert flag.show_default == told
    assert KEYS[name].help in flag.help


@pytest.mark.parametrize(
    ("own", "given", "wanted"),
    [
        (None, {}, mm.Sampling()),
        (WARM, {}, WARM),
        (WARM, {"temperature": 0.0}, mm.Sampling(temperature=0, top_p=0.8, top_k=20)),
        (None, {"temperature": 0.5, "seed": 3}, mm.Sampling(temperature=0.5, seed=3)),
    ],
    ids=["greedy", "own", "told greedy", "told warm"],
)
def test_the_checkpoints_sampling_holds_where_nothing_is_said(
    own: mm.Sampling | None, given: dict[str, float], wanted: mm.Sampling
) -> None:
    assert sampling_of(Traits(sampling=own), given) == wanted


def test_run_takes_the_checkpoints_sampling_and_says_so() -> None:
    vlm = mm.ScriptedVLM(["A"], traits=Traits(sampling=WARM))
    trace = mm.run(mm.direct, mm.question("?"), vlm)
    assert dict(trace.settings["sampling"])["temperature"] == 0.7  # type: ignore[call-overload]


@pytest.mark.torch
def test_info_shows_sampling_and_images_within_a_budget() -> None:
    assert sampling_line(WARM) == "temperature 0.7, top_p 0.8, top_k 20"
    facts = model_facts("tiny", ImageBudgets(visual_tokens=64))
    assert facts["sampling"] == "greedy"
    assert facts["768x768"] == "seen as 256x256, 64 visual tokens"


@pytest.mark.torch
def test_rows_are_built_within_the_same_budget() -> None:
    choice = ModelChoice("tiny", visual_tokens=144)
    assert builder_of(choice).visual_tokens((768, 768)) == 144
