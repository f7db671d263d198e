"""Rows, pairs and the printed table, against answers counted by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

import mm
from mm.types import Cost
from training.evaluation import results
from training.evaluation.controls import Condition
from training.evaluation.evaluate import Outcome
from training.evaluation.results import commit, pairs_of, row_of
from training.evaluation.table import print_table
from vision.zoom import zoom


def outcomes(*right, calls=0, valid=0, failed=0):
    cost = Cost(visual_tokens=16, patches=64, computed_tokens=40, generated_tokens=4, seconds=0.5)
    return [
        Outcome(str(i), bool(r), i < failed, cost, 1, calls, valid, wanted=2, found=1, replies=1)
        for i, r in enumerate(right)
    ]


def test_a_row_is_the_contract():
    row = row_of("read", Condition("zoom", zoom), outcomes(0, 1, 1, 1, calls=2, valid=1, failed=1))
    assert (row.pop("low"), row.pop("high")) == pytest.approx((0.3006, 0.9544), abs=5e-5)
    assert row == {
        "task": "read",
        "strategy": "zoom",
        "control": "",
        "n": 4,
        "accuracy": 0.75,
        "visual_tokens": 16.0,
        "looks": 1.0,
        "valid_boxes": 0.5,
        "box_recall": 0.5,
        "empty_thoughts": 0.0,
        "patches": 64.0,
        "computed_tokens": 40.0,
        "reused_tokens": 0.0,
        "generated_tokens": 4.0,
        "seconds": 0.5,
        "failures": 1,
    }


def test_questions_about_one_clip_are_a_cluster():
    right = [1, 1, 0, 0] * 25
    alone = outcomes(*right)
    shared = [replace(o, about=f"clip {n // 2}") for n, o in enumerate(alone)]
    condition, other = Condition("uniform", zoom), Condition("watch", zoom)
    plain, row = (row_of("mine", condition, each) for each in (alone, shared))
    assert (row["clusters"], "clusters" in plain) == (50, False)
    width, usual = (each["high"] - each["low"] for each in (row, plain))
    assert width == pytest.approx(1.39 * usual, rel=0.02)
    wrong = [replace(o, correct=False) for o in shared]
    (pair,) = pairs_of("mine", {condition: wrong, other: shared})
    assert pair["clusters"] == 50


def test_pairs_are_measured_on_the_items_both_answered():
    direct, real, control = (
        Condition("direct", mm.direct),
        Condition("zoom", zoom),
        Condition("zoom", zoom, "random"),
    )
    results = {direct: outcomes(0, 0, 1), real: outcomes(1, 1, 1), control: outcomes(0, 1)}
    pairs = pairs_of("read", results)
    assert [(p["a"], p["b"], p["n"], round(p["difference"], 3)) for p in pairs] == [
        ("zoom", "direct", 3, 0.667),
        ("zoom (random)", "direct", 2, 0.5),
        ("zoom (random)", "zoom", 2, -0.5),
    ]
    assert all(p["low"] < p["difference"] < p["high"] for p in pairs[:2])


def test_the_table_fits_100_columns(capsys):
    condition = Condition("replay", zoom, "no-look")
    row = {
        **row_of("read_nearest", condition, outcomes(*[1] * 500)),
        "failures": 500,
        "patches": 12345,
    }
    pairs = pairs_of(
        "read_nearest", {Condition("direct", mm.direct): outcomes(0), condition: outcomes(1)}
    )
    print_table("title", [{**row, "computed_tokens": 1234.0, "valid_boxes": 1.0}], pairs)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 100
    (line,) = [line for line in lines if "99.2-100.0" in line]
    assert line.split()[:6] == ["read_nearest", "replay", "(no-look)", "500", "100.0", "99.2-100.0"]
    assert lines[0] == "title; failures count as wrong"
    assert "…" not in "".join(lines)


def test_a_commit_is_named_inside_a_checkout_alone(tmp_path, monkeypatch):
    if (results.CHECKOUT / ".git").exists():
        assert re.fullmatch(r"[0-9a-f]{7,}\+?", commit() or "")
    monkeypatch.setattr(results, "CHECKOUT", tmp_path)
    assert commit() is None


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param("{link}", "abc", id="a link to the checkout"),
        pytest.param("{link}/none", None, id="a folder that is not there"),
        pytest.param("a\0b", None, id="no path"),
    ],
)
def test_git_may_write_the_checkout_otherwise(tmp_path, monkeypatch, said, expected):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    monkeypatch.setattr(results, "CHECKOUT", tmp_path / "there")
    answers = iter([said.format(link=tmp_path / "link"), "abc", ""])
    monkeypatch.setattr(results, "_git", lambda *_: next(answers))
    assert commit() == expected


def test_what_git_says_is_read_whatever_the_encoding(monkeypatch):
    monkeypatch.setattr(results.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=b"\xff"))
    assert results._git("x") == "\ufffd"
