"""What a person sees of a training: a line now and then, a picture of the losses, the best kept."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from training.pace import Pace

EVERY_S = 10.0
"""Seconds between two lines."""

CHECKS = 10
"""How often in a training the held-out loss is taken and a checkpoint written."""


class Progress(TrainerCallback):
    """Prints how it goes, keeps it in `log`, and says when to check and when to stop.

    Args:
        samples: rows in an epoch, to tell how many have been seen.
        checks: whether there is something to check on.
        told: lines about what the model says now, for each check.
    """

    def __init__(
        self,
        pace: Pace,
        log: Path,
        samples: int,
        checks: bool,
        told: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        self._pace = pace
        self._samples = samples
        self._checks = checks
        self._told = told
        self._log = log
        self._checked = 0
        self._shown_s = 0.0
        self._began = (0, 0.0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kw: Any) -> None:
        self._checked = int(self._pace.done(state.global_step, state.max_steps) * CHECKS)
        self._began = (state.epoch or 0, self._pace.spent_s)

    def on_step_end(self, args: Any, state: Any, control: Any, **kw: Any) -> None:
        done = self._pace.done(state.global_step, state.max_steps)
        control.should_log = state.global_step == 1 or self._due()
        due = int(done * CHECKS)
        if due > self._checked or done >= 1:
            self._checked = due
            control.should_log = control.should_save = True
            control.should_evaluate = self._checks
        control.should_training_stop = control.should_training_stop or done >= 1

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kw: Any
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        row = {"step": state.global_step, "seconds": round(self._pace.spent_s, 1), **logs}
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if "loss" in logs or "eval_loss" in logs:
            print(self._line(state, logs), file=sys.stderr, flush=True)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kw: Any) -> None:
        if self._told and state.is_world_process_zero:
            print(*self._told(), sep="\n", file=sys.stderr, flush=True)

    def _due(self) -> bool:
        if self._pace.spent_s - self._shown_s < EVERY_S:
            return False
        self._shown_s = self._pace.spent_s
        return True

    def _line(self, state: Any, logs: Mapping[str, Any]) -> str:
        seen = (state.epoch or 0.0) * self._samples
        since = self._pace.spent_s - self._began[1]
        speed = (seen - self._began[0] * self._samples) / since if since else 0.0
        left = self._pace.left_s(state.global_step, state.max_steps)
        parts = [f"step {state.global_step}", f"{seen:,.0f} samples ({speed:.0f}/s)"]
        if "loss" in logs:
            parts.append(f"loss {logs['loss']:.4f}")
        if "eval_loss" in logs:
            parts.append(f"held-out loss {logs['eval_loss']:.4f}")
        parts.append(f"{clock(left)} left" if left is not None else "")
        return "  ".join(filter(None, parts))


def clock(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes: "4:07", "3 h 12 min"."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60}:{whole % 60:02d}"


def plot_losses(log: Path, out: Path) -> None:
    """The losses in a training's log as a PNG."""
    from matplotlib.figure import Figure

    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for key, label in (("loss", "training"), ("eval_loss", "held out")):
        points = [(row["step"], row[key]) for row in rows if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, marker="." if "eval" in key else "")
    axes.set(xlabel="step", ylabel="loss per trained token", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(out, dpi=120)
