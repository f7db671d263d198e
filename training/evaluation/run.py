"""Answers every question of every control, and keeps what is answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mm.local.hf_vlm import HFVLM
from mm.vlm import VLM
from training.tabletop.scene import Level

from .controls import Condition
from .evaluate import Outcome, Watch, evaluate
from .results import Row, pairs_of, row_of, versions
from .resume import ResultLog
from .tasks import Suite

DEFAULT_LEVEL = int(Level.PERSPECTIVE)
"""The Tabletop level measured when none is asked for: the hardest that `tiny` was found to hold."""


class Advance(Protocol):
    """Says what is being asked, and that so many more are answered."""

    def __call__(self, what: str, by: int = 1) -> None: ...


@dataclass
class Measured:
    """What has been answered so far, task by task; `part` keeps it on disk."""

    results: dict[str, dict[Condition, list[Outcome]]] = field(default_factory=dict)
    part: ResultLog | None = None

    def outcomes(self, task: str, arm: Condition) -> list[Outcome]:
        kept = self.part.outcomes.get((task, arm.label), []) if self.part else []
        return self.results.setdefault(task, {}).setdefault(arm, list(kept))

    def add(self, task: str, arm: Condition, outcome: Outcome) -> None:
        self.outcomes(task, arm).append(outcome)
        if self.part:
            self.part.add(task, arm.label, outcome)

    @property
    def rows(self) -> list[Row]:
        return [
            row_of(task, arm, outcomes)
            for task, by_arm in self.results.items()
            for arm, outcomes in by_arm.items()
            if outcomes
        ]

    @property
    def pairs(self) -> list[Row]:
        return [pair for task, by_arm in self.results.items() for pair in pairs_of(task, by_arm)]


def measure(
    plan: Sequence[tuple[Suite, Condition]],
    vlm: VLM,
    measured: Measured,
    *,
    seed: int = 0,
    threads: int = 4,
    watch: Callable[[str, Condition], Watch | None] | None = None,
) -> bool:
    """Answer all of `plan` into `measured`; False when Ctrl-C ended it early.

    The engine forgets what it has seen before each arm, so that none lives on another's work.
    """
    try:
        with _progress(sum(suite.n for suite, _ in plan)) as advance:
            for suite, arm in plan:
                if isinstance(vlm, HFVLM):
                    vlm.engine.forget()
                known = len(measured.outcomes(suite.task, arm))
                advance(f"{suite.task} {arm.label}", known)
                items = islice(suite.items(), known, None)
                see = watch(suite.task, arm) if watch else None
                for outcome in evaluate(arm, items, vlm, seed=seed, threads=threads, watch=see):
                    measured.add(suite.task, arm, outcome)
                    advance(f"{suite.task} {arm.label}")
    except KeyboardInterrupt:
        return False
    return True


def result_log(out: Path, target: str, about: dict[str, Any], vlm: VLM) -> ResultLog:
    """What is known already of the table `out`: of the same questions, weights and versions."""
    path = out.with_name(out.name + ".part")
    return ResultLog(
        path, {"target": target, **about, "weights": _sum(vlm), "versions": versions()}
    )


def _sum(vlm: VLM) -> float | None:
    """A number that differs between any two trainings of a model."""
    if not isinstance(vlm, HFVLM):
        return None
    return sum(p.flatten()[:64].double().sum().item() for p in vlm.engine.model.parameters())


def place_of(vlm: VLM) -> dict[str, Any]:
    """The device and dtype of the model's weights; None where it has none here."""
    if not isinstance(vlm, HFVLM):
        return {"device": None, "dtype": None}
    weights = next(vlm.engine.model.parameters())
    return {"device": str(weights.device), "dtype": str(weights.dtype).removeprefix("torch.")}


@contextmanager
def _progress(total: int) -> Iterator[Advance]:
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=total)
        yield lambda what, by=1: progress.update(bar, advance=by, description=what)
