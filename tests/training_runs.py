"""`mm` as a shell runs it, in one process, in two, or killed on the way; and what its log says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMALL = ("--prompts", 2, "--group", 3, "--max-tokens", 12, "--max-looks", 2, "--full")
"""A GRPO step of two questions with three short answers each."""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def mm(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)


def in_two(*arguments: object, folder: Path) -> None:
    """`mm train` in two processes, which must succeed."""
    launched = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "app.cli", "train"]
    command = [sys.executable, *launched, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def killed(*arguments: object, folder: Path, when: Callable[[str], bool]) -> None:
    """`mm`, killed at the first line on standard error of which `when` is true."""
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", *map(str, arguments)],
        cwd=folder,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    for line in process.stderr:
        if when(line):
            process.kill()
    assert process.wait() == -signal.SIGKILL


def logged(folder: Path, key: str) -> dict[int, float]:
    """What the log says of `key`, by step."""
    rows = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return {row["step"]: row[key] for row in rows if key in row}
