"""Every `mm` command of the README runs, smaller than it stands there; so do the examples."""

from __future__ import annotations

import csv
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest
from readme_pages import ROOT, blocks, commands_of

from app.cli.main import run

pytestmark = pytest.mark.torch


def runs_here(words: list[str]) -> bool:
    """Whether it is ours and ends by itself; the page has tests of its own."""
    return words[0] == "mm" and words[1] != "demo"


SEQUENCES = [
    each for block in blocks("sh") if (each := [w for w in commands_of(block) if runs_here(w)])
]


def questions_csv(folder: Path, name: str, count: int) -> Path:
    """`name`.csv in `folder`: questions about small images of one colour."""
    with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "question", "answer"])
        for at in range(count):
            colour = ("red", "blue")[at % 2]
            PIL.Image.new("RGB", (64, 64), colour).save(folder / f"{name}-{at}.png")
            writer.writerow([f"{name}-{at}.png", "What colour?", colour])
    return folder / f"{name}.csv"


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with all that the README's commands name, and a server's address."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "app/examples", folder / "app/examples")
    shutil.copy(ROOT / "app/examples/table.png", folder / "photo.png")
    questions_csv(folder, "train", 24)
    questions_csv(folder, "test", 4)
    (folder / "script.json").write_text(
        json.dumps(
            {
                "models": {"body": {"data": [{"id": "NAME"}]}},
                "replies": [
                    {
                        "chunks": [
                            {"choices": [{"delta": {"content": "K"}, "finish_reason": "stop"}]},
                            "[DONE]",
                        ]
                    }
                ],
            }
        )
    )
    script = [str(ROOT / "tests/loopback.py"), str(folder / "script.json"), str(folder / "seen")]
    server = subprocess.Popen([sys.executable, *script], stdout=subprocess.PIPE, text=True)
    assert server.stdout
    yield folder, f"http://localhost:{int(server.stdout.readline())}/v1"
    server.terminate()
    server.wait()


SMALLER = {
    "ask": [],
    "eval": ["--limit", "1"],
    "train": ["--max-steps", "1", "--no-compile"],
}
"""What makes a command short without making it another; the last of two values counts."""


@pytest.mark.parametrize("sequence", SEQUENCES, ids=lambda sequence: " ".join(sequence[0]))
def test_every_command_runs(here, monkeypatch, sequence):
    """One after the other, as in their block."""
    folder, server = here
    monkeypatch.chdir(folder)
    for words in sequence:
        words = [re.sub(r"http://localhost:\d+/v1", server, word) for word in words]
        smaller = [*SMALLER[words[1]], *(["--task", "read"] if "--task" in words else [])]
        assert run([*words[1:], *smaller]) == 0


@pytest.mark.parametrize(
    ("example", "told"),
    [
        ("own_strategy", "What letter is on the red square? F, after 1 looks"),
        ("own_reward", "F {'accuracy': 1.0, "),
        ("own_family", "seen at (128, 128), 16 visual tokens"),
    ],
)
def test_examples_run(capsys, example, told):
    runpy.run_module(f"app.examples.{example}", run_name="__main__")
    assert told in capsys.readouterr().out
