"""What the README shows runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image as pil

import mm
from app.cli.main import cli
from app.strategies import STRATEGIES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder with the README's picture, and a script behind `mm.load`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mm, "load", lambda name: mm.ScriptedVLM(["K", "L", "M"]))
    (tmp_path / "app/examples").mkdir(parents=True)
    pil.new("RGB", (80, 40), "red").save(tmp_path / "app/examples/table.png")
    return tmp_path


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_ten_lines_run(here, capsys):
    exec(blocks("python")[0], {})
    assert capsys.readouterr().out.startswith("K (")
    assert len(mm.load_traces(here / "runs/first")) == 1


def test_strategy_of_ones_own_runs(here):
    names: dict = {"mm": mm}
    exec(blocks("python")[1], names)
    sample = mm.question("What?", here / "app/examples/table.png")
    assert mm.run(names["twice"], sample, mm.load("tiny")).answer == "L"


def test_commands_and_strategies_exist():
    shell = "\n".join(blocks("sh")) + "\n".join(re.findall(r"^\| `(.*?)` \|", README, re.MULTILINE))
    named = {
        info.name or info.callback.__name__ for info in cli.registered_commands if info.callback
    }
    named |= {group.name for group in cli.registered_groups if group.name}
    assert set(re.findall(r"\bmm (\w+)", shell)) == named
    section = README.split("## Strategies")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == STRATEGIES.keys()
