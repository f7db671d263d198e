"""Tables of result files; the READMEs' own are compared in tests/test_readme.py."""

from __future__ import annotations

import json

import pytest

from training.evaluation.render import BadBlock, files_named, filled, typed
from training.evaluation.views import VIEWS

ROW = {"task": "read", "strategy": "zoom", "control": "", "n": 4, "accuracy": 0.75}
RESULT = {
    "command": "mm eval tabletop --task read",
    "measured_at": "abc1234",
    "rows": [
        {**ROW, "low": 0.3, "high": 0.95},
        {**ROW, "control": "blind", "accuracy": 0.25, "low": 0.05, "high": 0.7},
    ],
    "pairs": [
        {"task": "read", "a": "zoom", "b": "direct", "n": 4}
        | {"difference": 0.5, "low": -0.1, "high": 0.8}
    ],
}


@pytest.fixture
def results(tmp_path):
    (tmp_path / "read.json").write_text(json.dumps(RESULT))
    return tmp_path


def block(asked, *lines):
    return "\n".join(["before", f"<!-- results: {asked} -->", *lines, "<!-- end -->", "after"])


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        pytest.param("controls read.json task=read", "| `read` | as it is | `blind` |", id="head"),
        pytest.param(
            "controls read.json task=read",
            "| `zoom` | 75.0 (30.0-95.0) | 25.0 (5.0-70.0) |",
            id="row",
        ),
        pytest.param(
            "differences read.json",
            "| `read`: `zoom` minus `direct`, 4 items | +50.0 (-10.0 to +80.0) |",
            id="pair",
        ),
        pytest.param(
            "commands read.json",
            "mm eval tabletop --task read   # measured at abc1234",
            id="command",
        ),
    ],
)
def test_a_block_shows_its_file(results, asked, line):
    assert line in filled(block(asked), results).split("\n")


def test_filling_again_changes_nothing_and_what_is_typed_stays(results):
    once = filled(block("tasks read.json", "an old table"), results)
    assert "an old table" not in once
    assert filled(once, results) == once
    assert typed(once).split() == ["before", "after"]
    assert files_named(once) == {"tasks": {"read.json"}}


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        pytest.param("chart read.json", "no view 'chart'", id="view"),
        pytest.param("tasks other.json", "there is no other.json", id="file"),
        pytest.param("ratios read.json", "ratios cannot show", id="another kind of file"),
        pytest.param("controls read.json", "controls cannot show", id="no task"),
    ],
)
def test_what_cannot_be_shown_is_named(results, asked, complaint):
    with pytest.raises(BadBlock, match=complaint):
        filled(block(asked), results)


def test_a_report_on_verifiers_is_shown():
    line = {"verifier": "asked", "auc": 0.858, "at_length": None, "steps": 0.9, "n": 8, "wrong": 4}
    vote = {"by": "vote", "k": 2, "right": 0.5, "over_vote": 0.0, "low": 0.0, "high": 0.0}
    asked = {"by": "asked", "k": 2, "right": 0.6, "over_vote": 0.1, "low": 0.05, "high": 0.15}
    file = {"rows": [line], "choosing": [vote, asked]}
    assert VIEWS["verifiers"]([file])[2] == "| `asked` | 0.86 | | 0.90 | 8, 4 wrong |"
    assert VIEWS["choosing"]([file])[2:] == [
        "| `vote` | 50.0 |",
        "| `asked` | 60.0 (+10.0: +5.0 to +15.0) |",
    ]


def test_counts_are_shown_with_their_intervals():
    file = {"rows": [{"what": "order", "right": 3, "n": 4}]}
    assert VIEWS["counts"]([file])[2] == "| `order` | 75.0 (30.1-95.4) | 4 |"


def test_counts_in_clusters_count_as_fewer():
    file = {"rows": [{"what": "order", "right": 300, "n": 400, "clusters": 9, "effect": 100.0}]}
    assert VIEWS["counts"]([file])[2] == "| `order` | 75.0 (30.1-95.4) | 400 |"
