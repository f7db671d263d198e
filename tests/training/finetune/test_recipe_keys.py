"""A recipe's keys: one place makes the flags, the checks and the table."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from app.cli.main import run
from app.cli.train import _strategy, train
from mm.errors import UserError
from training.data import BadData
from training.finetune.recipe import KEYS, Recipe
from training.finetune.recipe_file import keys_table, load_recipe
from training.finetune.recipe_keys import Key
from training.latents.recipe import LatentsRecipe
from vision.depth_source import DepthSource

RECIPES = Path(__file__).parents[3] / "training/recipes"
GIVEN = {"data": "a.csv", "output": "out"}


@pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
def test_flags_are_the_keys_of_the_method(method):
    group: Any = get_command(train)
    flags = {flag.name for flag in group.commands[method].params}
    keys = {name for name, key in KEYS.items() if method in key.methods and key.flag != ""}
    assert flags == keys | {"recipe", "dry_run", "resume"}


def test_flags_of_train_depth_say_what_they_are_and_have_the_recipes_defaults():
    group: Any = get_command(train)
    flags = {flag.name: flag for flag in group.commands["depth"].params}
    assert all(flag.help for flag in flags.values())
    own = {each.name: each.default for each in fields(LatentsRecipe)}
    shared = flags.keys() & own.keys() - {"data", "output", "depth_kind", "ignore"}
    assert {name: flags[name].default for name in shared} == {name: own[name] for name in shared}


def test_flags_of_depth_reach_the_strategy_that_answers():
    told: Any = {
        "depth_scale": "1000",
        "depth_kind": "inverse",
        "depth_model": "m",
        "device": "cpu",
    }
    sampled: Any = _strategy(Recipe("grpo", strategy="vote(strategy=depth)", **told))["strategy"]
    source = DepthSource(scale="1000", kind="inverse", model="m")
    inner = sampled.keywords["strategy"].keywords["depth"]
    assert (inner, inner.device) == (source, "cpu")
    with pytest.raises(UserError, match="--depth and the like: zoom uses none"):
        _strategy(Recipe("grpo", depth_scale="1000"))


@pytest.mark.parametrize(
    ("flag", "value", "rule"),
    [
        pytest.param("--learning-rate", "0", "above 0, found 0.0", id="no rate"),
        pytest.param("--learning-rate", "nan", "a finite number, found nan", id="not a number"),
        pytest.param("--max-minutes", "-5", "above 0, found -5.0", id="negative minutes"),
        pytest.param("--max-minutes", "inf", "a finite number, found inf", id="for ever"),
        pytest.param("--epochs", "0", "above 0, found 0.0", id="no epoch"),
        pytest.param("--max-steps", "0", "at least 1, found 0", id="no step"),
        pytest.param("--seed", "-1", "from 0 to 4,294,967,295, found -1", id="a negative seed"),
        pytest.param("--box-loss", "-0.1", "at least 0, found -0.1", id="a negative weight"),
    ],
)
@pytest.mark.torch
def test_a_number_out_of_bounds_is_refused_in_a_line(capsys, flag, value, rule):
    assert run(["train", "sft", "--data", "a.csv", "--output", "out", flag, value]) == 2
    name = flag.removeprefix("--").replace("-", "_")
    assert capsys.readouterr().err == f"mm: {flag}: expected {name} to be {rule}\n"


@pytest.mark.parametrize(
    ("key", "value"),
    [("learning_rate", "0"), ("max_minutes", "-1"), ("temperature", ".nan"), ("group", "1")],
)
def test_a_file_passes_the_same_checks(tmp_path, key, value):
    path = tmp_path / "r.yaml"
    path.write_text(f"{key}: {value}\n")
    with pytest.raises(BadData, match=f"r.yaml: expected {key} to be "):
        load_recipe(path, GIVEN)


@pytest.mark.parametrize(("key", "value"), [("epochs", math.nan), ("prompts", 0), ("loss", "ppo")])
def test_so_does_a_recipe_made_in_python(key, value):
    options: dict[str, Any] = {key: value}
    with pytest.raises(BadData, match=f"--{key}: expected {key} to be "):
        Recipe(**options)


@pytest.mark.parametrize(
    ("bounds", "rule"),
    [
        pytest.param({}, "", id="none"),
        pytest.param({"above": 0}, "above 0", id="above"),
        pytest.param({"above": 0, "at_most": 1}, "above 0, at most 1", id="above, at most"),
        pytest.param({"at_least": 1}, "at least 1", id="at least"),
        pytest.param({"at_most": 1}, "at most 1", id="at most"),
        pytest.param({"at_least": 0, "at_most": 1}, "from 0 to 1", id="from, to"),
    ],
)
def test_a_rule_says_all_of_its_bounds(bounds, rule):
    assert Key("", **bounds).rule == rule


def test_a_number_without_a_point_is_a_number(tmp_path):
    """YAML takes 2e-5 for text."""
    path = tmp_path / "r.yaml"
    path.write_text("learning_rate: 2e-5\n")
    assert load_recipe(path, GIVEN).learning_rate == 2e-5


def test_every_key_says_what_it_is():
    assert all(key.help.endswith(".") for key in KEYS.values())
    assert all(f"{name}: {key.help}" in (Recipe.__doc__ or "") for name, key in KEYS.items())


def test_the_table_of_keys_is_made_from_them():
    """Written by `python -m training.finetune.recipe_file`."""
    assert keys_table() in (RECIPES / "README.md").read_text(encoding="utf-8")
