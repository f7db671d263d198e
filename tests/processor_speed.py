"""What a processor without bfloat16 costs a newcomer's training: samples a second, as it is and so.

    python tests/processor_speed.py [--minutes 0.5]

Fails where the processor that has AVX2 alone learns from fewer than half as many samples a second.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import new_domain

AVX2_ONLY = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
LEAST = 0.5
"""Of the samples a second that the processor reaches as it is."""

PICTURES, QUESTIONS = 600, 2

ASKED = (
    "import torch; from mm.local.precision import fast_line; print(fast_line(torch.device('cpu')))"
)


def samples_per_s(rows: Path, output: Path, minutes: float, environment: dict[str, str]) -> float:
    """Of `mm train sft`, from its first logged step to its last.

    Raises:
        RuntimeError: the training failed, or logged fewer than two steps.
    """
    command = [sys.executable, "-m", "app.cli", "train", "sft", "--data", str(rows)]
    command += ["--output", str(output), "--max-minutes", str(minutes)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    log = output / "log.jsonl"
    logged = map(json.loads, log.read_text().splitlines()) if log.is_file() else ()
    seen = [
        (row["seconds"], row["epoch"] * PICTURES * QUESTIONS) for row in logged if "loss" in row
    ]
    if done.returncode or len(seen) < 2:
        raise RuntimeError(f"the training ended with {done.returncode}: {done.stderr[-2000:]}")
    (began, first), (ended, last) = seen[0], seen[-1]
    return (last - first) / (ended - began)


def main(minutes: float) -> int:
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    speeds = []
    with tempfile.TemporaryDirectory() as folder:
        rows = new_domain.write(
            Path(folder), "train", pictures=PICTURES, questions=QUESTIONS, seed=0
        )
        for name, environment in (("as it is", here), ("AVX2 alone", {**here, **AVX2_ONLY})):
            fast = subprocess.run(
                [sys.executable, "-c", ASKED], env=environment, capture_output=True, text=True
            )
            speeds.append(samples_per_s(rows, Path(folder) / name, minutes, environment))
            print(f"{name}: {speeds[-1]:.0f} samples a second; {fast.stdout.strip()}", flush=True)
    ratio = speeds[1] / speeds[0]
    print(f"AVX2 alone / as it is: {ratio:.2f}, at least {LEAST} wanted")
    return 0 if ratio >= LEAST else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=0.5)
    sys.exit(main(parser.parse_args().minutes))
