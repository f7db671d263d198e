"""The plot of accuracy against visual tokens, from tables on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from app.cli.main import run
from mm.errors import UserError
from training.evaluation.plot import read_points


def table(folder: Path, name: str, strategy: str, tokens: float, **more: Any) -> Path:
    row = {"task": "read", "strategy": strategy, "control": None, "n": 4, "accuracy": 0.5}
    row |= {"low": 0.2, "high": 0.8, "visual_tokens": tokens, **more}
    file = folder / name
    file.write_text(json.dumps({"rows": [row], "budgets": {"visual_tokens": 64}}))
    return file


def test_tables_become_points_in_order_and_a_plot(tmp_path: Path) -> None:
    made = [
        table(tmp_path, "a.json", "zoom", 32),
        table(tmp_path, "b.json", "direct", 144),
        table(tmp_path, "c.json", "direct", 16),
        table(tmp_path, "d.json", "direct", 9, control="blind"),
    ]
    points = read_points(made, "read")
    assert [(p.strategy, p.visual_tokens) for p in points] == [
        ("direct", 16),
        ("direct", 144),
        ("zoom", 32),
    ]
    assert points[0].asked == 64
    out = tmp_path / "plot.png"
    assert run(["bench", "tokens", *map(str, made), "--out", str(out)]) == 0
    with PIL.Image.open(out) as image:
        assert image.size == (720, 480)


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "cannot read"), ("[]", "is no table"), ('{"rows": []}', "no table has task 'read'")],
    ids=["no json", "no table", "no such task"],
)
def test_what_is_no_table_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(UserError, match=said):
        read_points([file], "read")
