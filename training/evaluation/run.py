"""Measures all tasks under all conditions in turn, with progress, and goes on where it stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mm.types import Sampling
from mm.vlm import VLM

from .answers import answers_of
from .controls import Condition
from .evaluate import Outcome, Watch, evaluate
from .results import Row, pairs_of, row_of, versions
from .resume import ResultLog
from .tasks import Suite

if TYPE_CHECKING:
    from mm.engine.engine import Engine


@runtime_checkable
class Local(Protocol):
    """A model whose weights are in this process.

    A protocol, since importing `HFVLM` would load torch for models behind a server too.
    """

    engine: Engine


class Advance(Protocol):
    """Shows what is being asked, and counts `by` more as answered."""

    def __call__(self, what: str, by: int = 1) -> None: ...


@dataclass
class Measured:
    """What has been answered so far, task by task; `part` saves it on disk."""

    results: dict[str, dict[Condition, list[Outcome]]] = field(default_factory=dict)
    part: ResultLog | None = None

    def outcomes(self, task: str, condition: Condition) -> list[Outcome]:
        """The outcomes of a task under a condition so far; those of an earlier run come first."""
        kept = self.part.outcomes.get((task, condition.label), []) if self.part else []
        return self.results.setdefault(task, {}).setdefault(condition, list(kept))

    def add(self, task: str, condition: Condition, outcome: Outcome) -> None:
        """Add an outcome, to the file of results too."""
        self.outcomes(task, condition).append(outcome)
        if self.part:
            self.part.add(task, condition.label, outcome)

    @property
    def rows(self) -> list[Row]:
        """A row of the table for each task and condition that has outcomes."""
        return [
            row_of(task, condition, outcomes)
            for task, by_condition in self.results.items()
            for condition, outcomes in by_condition.items()
            if outcomes
        ]

    @property
    def answers(self) -> list[dict[str, Any]]:
        """Which questions of each task were answered rightly, as `answers_of` has it."""
        return [answers_of(task, found) for task, found in self.results.items()]

    @property
    def broken(self) -> list[str]:
        """A line for each task and condition under which the model failed every time: the error
        that was met most often."""
        return [
            f"{task}: {condition.label} failed on all of {len(errors)}: {_commonest(errors)}"
            for task, by_condition in self.results.items()
            for condition, outcomes in by_condition.items()
            if (errors := [o.error for o in outcomes]) and all(errors)
        ]

    @property
    def pairs(self) -> list[Row]:
        """A row of the table for each comparison of two conditions."""
        return [
            pair
            for task, by_condition in self.results.items()
            for pair in pairs_of(task, by_condition)
        ]


def _commonest(errors: Sequence[str | None]) -> str:
    ((error, _),) = Counter(errors).most_common(1)
    return str(error)


def measure(
    plan: Sequence[tuple[Suite, Condition]],
    vlm: VLM,
    measured: Measured,
    *,
    seed: int = 0,
    threads: int = 4,
    watch: Callable[[str, Condition], Watch | None] | None = None,
    sampling: Sampling = Sampling(),
    system: str | None = None,
) -> bool:
    """Answer all of `plan` into `measured`; False when Ctrl-C ended it early.

    The engine's caches are emptied before each condition, so that none profits from another.
    """
    try:
        with _progress(sum(suite.n for suite, _ in plan)) as advance:
            for suite, condition in plan:
                if isinstance(vlm, Local):
                    vlm.engine.clear_caches()
                condition = _as_often(suite.task, condition, measured)
                known = len(measured.outcomes(suite.task, condition))
                advance(f"{suite.task} {condition.label}", known)
                items = islice(suite.items(), known, None)
                see = watch(suite.task, condition) if watch else None
                for outcome in evaluate(
                    condition,
                    items,
                    vlm,
                    seed=seed,
                    threads=threads,
                    watch=see,
                    sampling=sampling,
                    system=system,
                ):
                    measured.add(suite.task, condition, outcome)
                    advance(f"{suite.task} {condition.label}")
    except KeyboardInterrupt:
        return False
    return True


def _as_often(task: str, condition: Condition, measured: Measured) -> Condition:
    """`condition`; where it stops by chance, at the rate at which its strategy's own verdicts on
    the task did, which are measured before it."""
    if condition.control != "random-stop":
        return condition
    own = measured.results.get(task, {}).get(replace(condition, control=""), ())
    told = sum(outcome.verdicts for outcome in own)
    if not told:
        return condition
    rate = round(sum(outcome.enough for outcome in own) / told, 6)
    return replace(condition, matched={**condition.matched, "random-stop": rate})


def result_log(out: Path, target: str, about: dict[str, Any], vlm: VLM) -> ResultLog:
    """The answers saved so far for the table `out`: of the same questions, weights and versions."""
    path = out.with_name(out.name + ".part")
    return ResultLog(
        path,
        {"format": 3, "target": target, **about, "weights": _sum(vlm), "versions": versions()},
    )


def _sum(vlm: VLM) -> float | None:
    """A number that differs between any two trainings of a model."""
    if not isinstance(vlm, Local):
        return None
    return sum(p.flatten()[:64].double().sum().item() for p in vlm.engine.model.parameters())


def place_of(vlm: VLM) -> dict[str, Any]:
    """The device and dtype of the model's weights; None where it has none here."""
    if not isinstance(vlm, Local):
        return {"device": None, "dtype": None}
    weights = next(vlm.engine.model.parameters())
    return {"device": str(weights.device), "dtype": str(weights.dtype).removeprefix("torch.")}


@contextmanager
def _progress(total: int) -> Iterator[Advance]:
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=total)
        yield lambda what, by=1: progress.update(bar, advance=by, description=what)
