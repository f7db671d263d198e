"""A reward of your own: a function from an attempt to a number, named in a sum of rewards.

    python -m app.examples.own_reward
    mm train grpo --data rows.jsonl --output out --reward "accuracy + 0.2*MODULE:brief"

where MODULE is `app.examples.own_reward`, or a module of yours that is installed or lies in the
current folder.
"""

from __future__ import annotations

from pathlib import Path

import mm
from training.data import Row
from training.rewards.presets import read_mix
from training.rewards.terms import Attempt, contributions, results_of
from vision import zoom

TABLE = Path(__file__).with_name("table.png")


def brief(attempt: Attempt) -> float:
    """1 for a short answer, falling to 0 at 200 characters."""
    return max(0.0, 1 - len(attempt.branch.answer or "") / 200)


if __name__ == "__main__":
    sample = mm.question("What letter is on the red square?", TABLE)
    trace = mm.run(zoom, sample, mm.load("tiny"))
    attempt = Attempt(trace.best, Row("1", sample.prompt, answer="F"))
    mix = read_mix("accuracy + 0.2*app.examples.own_reward:brief")
    print(trace.answer, contributions(results_of(mix, attempt)))
