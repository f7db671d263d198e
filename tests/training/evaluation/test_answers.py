"""Two tables compared question by question; what differs in more than it should is refused."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from pathlib import Path

import pytest
from fuzzing import mutated, rounds

from app.cli.main import run
from mm.errors import UserError
from mm.session import Strategy
from mm.strategies import direct
from mm.types import Cost
from training.evaluation.answers import Compared, as_text, compare, read_tables
from training.evaluation.controls import Condition
from training.evaluation.evaluate import Outcome
from training.evaluation.results import envelope, pairs_of
from training.evaluation.run import Measured
from training.evaluation.views import VIEWS

STRATEGY: Strategy = direct
ABOUT = {"command": "mm eval tabletop", "seed": 0, "level": 3}


def outcomes(right: str, about: str = "") -> list[Outcome]:
    """An answer a digit, 1 for right; `about` names what each is about, by a letter."""
    return [
        Outcome(f"q{at}", digit == "1", False, Cost(), about=about[at : at + 1])
        for at, digit in enumerate(right)
    ]


def written(
    path: Path, rows: dict[tuple[str, str], str], about: str = "", task="read", **facts
) -> Path:
    """A table whose rows, by strategy and control, answered so."""
    found = {Condition(n, STRATEGY, c): outcomes(r, about) for (n, c), r in rows.items()}
    measured = Measured({task: found})
    table = envelope(measured.rows, measured.pairs, **{**ABOUT, **facts})
    path.write_text(as_text(table, measured.answers))
    return path


def difference(
    folder: Path, a: dict, b: dict, about: str = "", *, facts: tuple[dict, dict] = ({}, {}), **named
) -> Compared:
    files = (
        written(folder / f"{name}.json", rows, about, **each)
        for name, rows, each in zip("ab", (a, b), facts, strict=True)
    )
    return compare(*read_tables(*files), **named)


PLAIN, FLIPPED = ("depth", ""), ("depth", "flipped")


@pytest.mark.parametrize(
    ("about", "clusters"),
    [pytest.param("", None, id="each alone"), pytest.param("aabbccdd", 4, id="in clusters")],
)
def test_two_files_differ_as_two_rows_of_one_file_would(tmp_path, about, clusters):
    mine, theirs = "11110110", "11000000"
    (pair,) = difference(tmp_path, {PLAIN: mine}, {PLAIN: theirs}, about).pairs
    one, other = Condition("a", STRATEGY), Condition("b", STRATEGY)
    rows = {other: outcomes(theirs, about), one: outcomes(mine, about)}
    (within,) = pairs_of("read", rows)
    assert pair == {**within, "a": "depth [a]", "b": "depth [b]"}
    assert (pair["difference"], pair.get("clusters")) == (0.5, clusters)


TWO = {("direct", ""): "01", PLAIN: "11", FLIPPED: "00"}
OURS, NONE = "depth-latent(midi=x)", "depth-latent(midi=y)"


@pytest.mark.parametrize(
    ("a", "b", "named", "found"),
    [
        pytest.param(
            TWO,
            TWO,
            {},
            [
                "direct [a] direct [b]",
                "depth [a] depth [b]",
                "depth (flipped) [a] depth (flipped) [b]",
            ],
            id="same names",
        ),
        pytest.param(
            {(OURS, ""): "11", (OURS, "noise"): "10"},
            {(NONE, ""): "01", (NONE, "noise"): "01"},
            {},
            [f"{OURS} [a] {NONE} [b]", f"{OURS} (noise) [a] {NONE} (noise) [b]"],
            id="the only ones",
        ),
        pytest.param(
            {("direct", ""): "11", (OURS, ""): "11"},
            {("direct", ""): "11", (NONE, ""): "01"},
            {},
            ["direct [a] direct [b]", f"{OURS} [a] {NONE} [b]"],
            id="the ones left over",
        ),
        pytest.param(
            TWO, TWO, {"strategy": "direct"}, ["direct [a] direct [b]"], id="one that is named"
        ),
        pytest.param(
            TWO,
            TWO,
            {"strategy": "direct", "against": "depth"},
            ["direct [a] depth [b]"],
            id="two that are named",
        ),
        pytest.param(
            TWO,
            TWO,
            {"strategy": "depth", "against": "depth (flipped)"},
            ["depth [a] depth (flipped) [b]"],
            id="a control that is named",
        ),
    ],
)
def test_counterparts(tmp_path, a, b, named, found):
    pairs = difference(tmp_path, a, b, **named).pairs
    assert [f"{pair['a']} {pair['b']}" for pair in pairs] == found


def test_what_only_one_file_has_is_named(tmp_path):
    found = difference(tmp_path, {PLAIN: "1101", FLIPPED: "0000"}, {PLAIN: "01"})
    assert [pair["n"] for pair in found.pairs] == [2]
    assert found.notes == [
        "read: 2 questions only in a left out (q2, ...)",
        "read by depth (flipped) only in a: left out",
    ]


FILE = {"questions": "ab", "level": None}
UNTOLD = {**FILE, "questions": ""}
"""As earlier versions wrote of folders."""


@pytest.mark.parametrize(
    ("mine", "theirs", "complaint"),
    [
        pytest.param({"seed": 1}, {}, r"different questions \(seed 1 and 0\)", id="stream"),
        pytest.param({"level": {"read": 5}}, {}, r"\(level 5 and 3\)", id="level"),
        pytest.param(FILE, {**FILE, "questions": "cd"}, r"\(questions 'ab' and 'cd'\)", id="file"),
        pytest.param(FILE, {}, r"\(questions 'ab' and None, ", id="file and stream"),
        pytest.param(
            UNTOLD, UNTOLD, "read: a does not say .* asked: measure it again", id="untold folders"
        ),
        pytest.param(
            FILE, UNTOLD, "read: b does not say .* asked: measure it again", id="one untold folder"
        ),
        pytest.param({"task": "same"}, {}, "no row of a has a counterpart in b", id="task"),
    ],
)
def test_other_questions_are_refused(tmp_path, mine, theirs, complaint):
    with pytest.raises(UserError, match=complaint) as told:
        difference(tmp_path, {PLAIN: "1"}, {PLAIN: "1"}, facts=(mine, theirs))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        pytest.param({"level": {"read": 3, "same": 5}}, {}, id="the level of this task"),
        pytest.param({**FILE, "seed": 1}, FILE, id="a file's questions have no stream"),
        pytest.param({"adapter": "midi", "limit": 9}, {}, id="another training"),
    ],
)
def test_the_same_questions_are_compared(tmp_path, mine, theirs):
    assert difference(tmp_path, {PLAIN: "1"}, {PLAIN: "1"}, facts=(mine, theirs)).pairs


def test_two_strategies_and_two_others_must_be_named(tmp_path):
    others = {("zoom", ""): "1", ("think", ""): "1"}
    told = "read by direct, read by depth; and read by zoom, read by think: name two with"
    with pytest.raises(UserError, match=told):
        difference(tmp_path, {("direct", ""): "1", PLAIN: "1"}, others)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        pytest.param(lambda table: table.pop("answers"), "does not say which", id="an older file"),
        pytest.param(lambda table: table.pop("rows"), "lacks 'rows'", id="no table"),
        pytest.param(
            lambda table: table["answers"][0]["right"].update(depth="111"), "spoilt", id="too many"
        ),
        pytest.param(
            lambda table: table["answers"][0]["right"].update(depth="00"),
            "0 right answers of 2 are not what the row of depth says",
            id="answers of another row",
        ),
        pytest.param(lambda table: table["answers"][0].update(ids=["q", "q"]), "of 1", id="twice"),
        pytest.param(lambda table: table.update(answers=None), "spoilt", id="none"),
    ],
)
def test_a_file_that_cannot_be_compared_is_one_line(tmp_path, change, complaint):
    path = written(tmp_path / "a.json", {PLAIN: "01"})
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))
    with pytest.raises(UserError, match=complaint) as told:
        read_tables(path)
    assert "a.json" in str(told.value)
    assert "\n" not in str(told.value)


def test_any_other_bytes_are_read_or_refused(tmp_path):
    path = written(tmp_path / "a.json", {PLAIN: "01", FLIPPED: "10"}, "aa")
    whole, (good,) = path.read_bytes(), read_tables(path)
    for seed in range(rounds(60)):
        path.write_bytes(mutated(whole, random.Random(seed)))
        with suppress(UserError):
            (read,) = read_tables(path)
            compare(read, good)


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    files = []
    for name in ("midi", "none"):
        (tmp_path / name).mkdir()
        files.append(written(tmp_path / name / "out.json", {PLAIN: "1"}))
    assert [table.name for table in read_tables(*files)] == [str(file) for file in files]


def test_the_command_prints_and_writes_what_a_readme_shows(tmp_path, capsys):
    a = written(tmp_path / "midi.json", {PLAIN: "1111"}, adapter="midi")
    b = written(tmp_path / "none.json", {PLAIN: "0011"}, adapter="none")
    out = tmp_path / "gain.json"
    assert run(["bench", "compare", str(a), str(b), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "depth [midi]" in said.out
    assert "+50.0" in said.out
    assert said.err == "mm: A and B differ in adapter: 'midi' and 'none'\n"
    file = json.loads(out.read_text())
    assert (file["a"]["command"], file["differing"]) == ("mm eval tabletop", ["adapter"])
    (line,) = VIEWS["differences"]([file])[2:]
    assert line.startswith("| `read`: `depth [midi]` minus `depth [none]`, 4 items | +50.0 (")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        pytest.param(["--against", "depth"], "give --strategy too", id="half a name"),
        pytest.param(["--out", "a.json"], "is read by this command", id="over its own file"),
        pytest.param(["--strategy", "zoom"], "no row of a has", id="no such strategy"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, monkeypatch, capsys, words, complaint):
    monkeypatch.chdir(tmp_path)
    files = [str(written(Path(f"{name}.json"), {PLAIN: "1"})) for name in "ab"]
    assert run(["bench", "compare", *files, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line
