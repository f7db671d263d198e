"""What the READMEs show runs as it stands, links somewhere, and takes its numbers from files."""

from __future__ import annotations

import re
import shutil
from importlib.util import find_spec

import pytest
import typer
from readme_pages import PAGES, README, ROOT, blocks, commands

import mm
from app.cli.main import cli
from app.strategies import STRATEGIES
from training.evaluation.render import RESULTS, files_named, filled, typed

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
COMMAND = typer.main.get_command(cli)


def examined(words: list[str]) -> None:
    """Raises what a person would be told who gave `mm` these words."""
    command, words = COMMAND, words[1:]
    while inner := getattr(command, "commands", None):
        assert words[0] in inner, words
        command, words = inner[words[0]], words[1:]
    command.make_context(str(command.name), list(words))


# the way in


def test_the_readme_is_short():
    assert len(README.encode()) < 7000


def test_ten_lines_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mm, "load", lambda name: mm.ScriptedVLM(["K", "L", "M"]))
    shutil.copytree(ROOT / "app/examples", tmp_path / "app/examples")
    (block,) = blocks("python")
    exec(block, {})
    assert capsys.readouterr().out.startswith("K (")
    assert len(mm.load_traces(tmp_path / "runs/first")) == 1


def test_two_commands_do_what_the_lines_without_make_do():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    venv, install, demo = [line for line in blocks("sh")[1].splitlines() if line]
    for line in (venv, install):
        assert f"#   {line}" in makefile
    recipes = [line.strip() for line in makefile.splitlines() if line.startswith("\t")]
    assert f".venv/bin/{install}" in recipes
    assert demo in recipes
    named = {line.split()[1] for line in blocks("sh")[0].splitlines()}
    assert all(re.search(rf"^{name}: ", makefile, re.MULTILINE) for name in named)


# all pages


@every_page
def test_commands_and_their_options_exist(page):
    for words in commands(page.read_text(encoding="utf-8")):
        if words[0] == "mm":
            examined(words)
        elif words[:2] == ["python", "-m"]:
            assert find_spec(words[2]), words
        elif words[0] == "python":
            assert (ROOT / words[1]).exists(), words


@every_page
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([\w-]*))?\)", text):
        linked = (page.parent / target) if target else page
        assert linked.exists(), target
        heads = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [
            re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in heads
        ]


@every_page
def test_files_that_are_named_exist(page):
    text = typed(page.read_text(encoding="utf-8"))
    for name in re.findall(r"`([\w./]+\.py)`", text):
        assert (page.parent / name).exists() or (ROOT / name).exists(), name


@every_page
def test_numbers_come_from_files(page):
    text = page.read_text(encoding="utf-8")
    assert filled(text) == text, "python -m training.evaluation.render " + str(page)
    shown = files_named(text)
    told = shown.pop("commands", set())
    assert set().union(*shown.values()) <= told, "a table without its command"
    assert not re.findall(r"\d\.\d+ ?(?:%|\()", typed(text)), "a measured number without a file"


def test_every_result_is_shown():
    shown = [files_named(page.read_text(encoding="utf-8")) for page in PAGES]
    names = set().union(*(names for views in shown for names in views.values()))
    assert names == {path.name for path in RESULTS.iterdir()}


def test_commands_and_strategies_are_all_named():
    table = README.split("## In a shell")[1].split("\n## ")[0]
    assert set(re.findall(r"`mm (\w+)", table)) == set(getattr(COMMAND, "commands", {}))
    table = README.split("## Strategies")[1].split("\n## ")[0]
    cells = " ".join(re.findall(r"^\| (.+?) \|", table, re.MULTILINE))
    named = {STRATEGIES[name] for name in re.findall(r"`([a-z][\w-]*)`", cells)}
    assert named == set(STRATEGIES.values())  # `depth` and `depth-text` are one
