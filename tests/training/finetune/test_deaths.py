"""A training that dies anywhere goes on to the same end; see tests/training_deaths.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from training_runs import environment

TESTS = Path(__file__).parents[2]


@pytest.mark.torch
@pytest.mark.parametrize(
    "given",
    [
        pytest.param(("--deaths", 1, "--full", 1, "--steps", 2), id="a few"),
        pytest.param(
            ("--deaths", 200, "--full", 20, "--kills", 20),
            id="everywhere",
            marks=[pytest.mark.slow, pytest.mark.timeout(7200)],
        ),
    ],
)
def test_a_training_that_dies_goes_on_to_the_same_end(tmp_path, given):
    paths = {"PYTHONPATH": f"{environment()['PYTHONPATH']}:{TESTS}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, TESTS / "training_deaths.py", tmp_path, *map(str, given)],
        env={**environment(), **paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
