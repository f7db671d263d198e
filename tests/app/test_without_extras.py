"""What needs no extra works without any; what needs the extra `train` says so in a line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from row_files import make_images

ROOT = Path(__file__).parents[2]
LACKING = ("trl", "datasets", "matplotlib", "pyarrow", "mambapy")
CODE = f"""
import contextlib, io, json, sys
sys.modules |= dict.fromkeys({LACKING})  # each then fails to be imported
from app.cli.main import run
for line in sys.stdin:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = run(json.loads(line))
    print(json.dumps([code, said.getvalue()]))
"""
COMMANDS: dict[str, tuple[list[str], int, str]] = {
    "check": (["data", "check", "rows.csv"], 0, "2 of 2 rows are good for sft"),
    "stats": (["data", "stats", "rows.csv"], 0, "tokens a row"),
    "convert": (["data", "convert", "rows.csv", "--out", "rows.jsonl"], 0, "2 rows: rows.jsonl"),
    "plotted": (
        ["data", "stats", "rows.csv", "--plot", "x.png"],
        *(2, "mm: mm data stats needs matplotlib: pip install 'multimodal-reasoning[train]'"),
    ),
    "parquet": (["data", "check", "rows.parquet"], 2, "mm: mm data check needs pyarrow: pip"),
    "train": (["train", "sft", "--data", "rows.csv", "--output", "out"], 2, "mm train sft needs"),
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The code and the words of each command, in one process that lacks every extra."""
    folder = make_images(tmp_path_factory.mktemp("rows"))
    rows = "image,question,answer\nred.png,Which?,red\nred.png,Which colour?,red\n"
    (folder / "rows.csv").write_text(rows)
    (folder / "rows.parquet").write_bytes(b"PAR1")
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        input="".join(json.dumps(arguments) + "\n" for arguments, *_ in COMMANDS.values()),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(COMMANDS, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.torch
@pytest.mark.parametrize("name", COMMANDS)
def test_without_the_extra_train(said: dict[str, Any], name: str) -> None:
    _, code, words = COMMANDS[name]
    assert said[name][0] == code, said[name][1]
    assert words in said[name][1]
