"""What a person sees of a training: a line now and then, a plot of the losses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from training.trainers.checkpoints import is_whole, path_of
from training.trainers.model_parts import is_sharded
from training.trainers.schedule import Pace

from .output_folder import read_log

EVERY_S = 10.0
"""Seconds between two lines."""

CHECKS = 10
"""How often in a training the held-out loss is taken and a checkpoint written."""


class Progress(TrainerCallback):
    """Prints progress, appends it to `log`, and says when to evaluate, to save and to stop.

    Args:
        samples: rows in an epoch, to count how many have been seen.
        checks: whether rows are held out to evaluate on.
        replies: makes lines about what the model says now, for each evaluation.
        labels: what a line shows, by the log's keys.
        every: only after a multiple of so many steps may a checkpoint be written.
    """

    def __init__(
        self,
        pace: Pace,
        log: Path,
        samples: int,
        checks: bool,
        replies: Callable[[], Sequence[str]] | None = None,
        *,
        labels: Mapping[str, str],
        every: int = 1,
    ) -> None:
        self._pace = pace
        self._samples = samples
        self._checks = checks
        self._replies = replies
        self._labels = labels
        self._every = every
        self._log = log
        self._checked = 0
        self._shown_s = 0.0
        self._began = (0, 0.0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kw: Any) -> None:
        """Take up the pace where a resumed run left it."""
        if state.best_global_step:  # a folder may have been moved, the best checkpoint spoilt
            best = path_of(Path(args.output_dir), state.best_global_step)
            state.best_model_checkpoint = str(best) if is_whole(best) else None
        self._pace.agree()
        self._checked = int(self._pace.done(state.global_step, state.max_steps) * CHECKS)
        self._began = (state.epoch or 0, self._pace.spent_s)

    def on_step_end(self, args: Any, state: Any, control: Any, **kw: Any) -> None:
        """Log, check, save or stop where that is due."""
        self._pace.agree()
        self._pace.stepped()
        done = self._pace.done(state.global_step, state.max_steps)
        control.should_log = state.global_step == 1 or self._due()
        due = int(done * CHECKS) if state.global_step % self._every == 0 else 0
        if due > self._checked or done >= 1:
            self._checked = due
            control.should_log = control.should_save = True
            control.should_evaluate = self._checks
        control.should_training_stop = control.should_training_stop or done >= 1

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kw: Any
    ) -> None:
        """Add a line to the log's file, and print it where it says something to a person."""
        if not state.is_world_process_zero or not logs:
            return
        row = {"step": state.global_step, "seconds": round(self._pace.spent_s, 1), **logs}
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if any(key in logs for key in self._labels):
            print(self._line(state, logs), file=sys.stderr, flush=True)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kw: Any) -> None:
        """Print what the model replies now."""
        if not self._replies:
            return
        with gathered_if_sharded(kw["model"]):
            if state.is_world_process_zero:
                print(*self._replies(), sep="\n", file=sys.stderr, flush=True)

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
        known = {key: logs[key] for key in self._labels if logs.get(key) is not None}
        parts += [f"{self._labels[key]} {value:.4f}" for key, value in known.items()]
        parts.append(f"{clock(left)} left" if left is not None else "")
        return "  ".join(filter(None, parts))


def gathered_if_sharded(model: Any) -> AbstractContextManager[None]:
    """Inside, each process holds all weights of `model`; all processes must enter."""
    if not is_sharded():
        return nullcontext()
    from training.trainers.fsdp import gathered

    return gathered(model)


def clock(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes: "4:07", "3 h 12 min"."""
    rounded = round(seconds)
    if rounded >= 3600:
        return f"{rounded // 3600} h {rounded % 3600 // 60} min"
    return f"{rounded // 60}:{rounded % 60:02d}"


def plot_losses(log: Path, out: Path) -> None:
    """The losses in a training's log as a PNG."""
    named = {"loss": "training", "eval_loss": "held out"}
    _plot(log, out, named, "loss per trained token", falls=True)


def plot_rewards(log: Path, out: Path) -> None:
    """The rewards in a training's log as a PNG: their sum, each of them, and what is right."""
    rows = read_log(log)
    terms = sorted({k for row in rows for k in row if k.startswith("rewards/") and "mean" in k})
    named = {term: term.split("/")[1] for term in terms}
    more = {"reward": "sum", "eval_reward": "sum, held out", "eval_accuracy": "right, held out"}
    _plot(log, out, {**more, **named}, "reward of an answer")


def _plot(
    log: Path, out: Path, named: Mapping[str, str], what: str, *, falls: bool = False
) -> None:
    from matplotlib.figure import Figure

    rows = read_log(log)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for key, label in named.items():
        points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, marker="." if "eval" in key else "")
    positive = all(row.get(key) is None or row[key] > 0 for row in rows for key in named)
    axes.set(xlabel="step", ylabel=what, yscale="log" if falls and positive else "linear")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    figure.savefig(out, dpi=120)
