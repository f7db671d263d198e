"""`mm eval`: from what a person asked for to the table."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mm.model import HFVLM
from mm.session import Strategy
from mm.vlm import VLM
from training.data import SUFFIXES, Access, BadData, is_data
from training.tabletop.scene import Level

from .arms import Arm, arms
from .errors import Mistakes
from .evaluate import Outcome, Watch, evaluate
from .files import read_questions
from .items import BadTarget, Suite, level_named, tabletop_suites
from .part import Part
from .rows import Row, envelope, pairs_of, row_of, versions
from .table import print_table

DEFAULT_LEVEL = int(Level.PERSPECTIVE)
"""The Tabletop level measured when none is asked for: the hardest that `tiny` was found to hold."""

INTERRUPTED = 130


class Advance(Protocol):
    """Says what is being asked, and that so many more are answered."""

    def __call__(self, what: str, by: int = 1) -> None: ...


@dataclass
class Measured:
    """What has been answered so far, task by task; `part` keeps it on disk."""

    results: dict[str, dict[Arm, list[Outcome]]] = field(default_factory=dict)
    part: Part | None = None

    def outcomes(self, task: str, arm: Arm) -> list[Outcome]:
        kept = self.part.outcomes.get((task, arm.label), []) if self.part else []
        return self.results.setdefault(task, {}).setdefault(arm, list(kept))

    def add(self, task: str, arm: Arm, outcome: Outcome) -> None:
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


def run_cli(
    target: str,
    *,
    tasks: list[str],
    strategies: list[str],
    nulls: bool,
    limit: int,
    seed: int,
    model: str,
    adapter: str | None,
    load: Callable[[], VLM],
    level: int | str | None,
    out: Path | None,
    show_errors: Path | None,
    threads: int,
    strategy_lookup: Callable[[str], Strategy],
    access: Access = Access(),
) -> None:
    """Measure `strategies` on `target`, print the table, and write it to `out`.

    Until then answers are kept in `out`.part, so that the same command goes on after a stop; not
    with `show_errors`, whose pictures are not kept.

    Args:
        target: "tabletop", or a file of questions.
        model, adapter: what `load` loads, as the person called it.
        strategy_lookup: the strategy that a name means; raises for a name that means none.
        access: what a file may name besides pictures in its own folder.

    Raises:
        SystemExit: 2 when something cannot be measured, said on stderr; 130 on Ctrl-C, after
            printing and writing what is done.
        ModelUnavailable: the model cannot be loaded.
    """
    with _leaving_on(BadTarget, BadData):
        found = [(name, strategy_lookup(name)) for name in dict.fromkeys(strategies)]
        hardness = level_named(level, DEFAULT_LEVEL)
        suites = _suites(target, tasks, limit, seed, hardness, access)
        _check_writable(out, show_errors)
    vlm = load()
    about = {"seed": seed, "limit": limit, "model": model, "adapter": adapter, **place_of(vlm)}
    if target == "tabletop":
        about["level"] = hardness
    mistakes = Mistakes()
    watch = mistakes.watch if show_errors else None
    plan = [(suite, arm) for suite in suites for arm in arms(suite, found, nulls=nulls)]
    with _leaving_on(BadTarget):
        part = _part(out, target, about, vlm) if out and not show_errors else None
    measured = Measured(part=part)
    done = measure(plan, vlm, measured, seed=seed, threads=threads, watch=watch)
    _report(target, about, measured, out)
    if part:
        part.close(done=done)
        if not done:
            print("mm: stopped; the same command goes on from here", file=sys.stderr)
    if show_errors and not mistakes.save(show_errors, vlm):
        print(f"nothing wrong to show: {show_errors} is not written", file=sys.stderr)
    if not done:
        raise SystemExit(INTERRUPTED)


def measure(
    plan: Sequence[tuple[Suite, Arm]],
    vlm: VLM,
    measured: Measured,
    *,
    seed: int = 0,
    threads: int = 4,
    watch: Callable[[str, Arm], Watch | None] | None = None,
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


@contextmanager
def _leaving_on(*mistakes: type[Exception]) -> Iterator[None]:
    """What is wrong is said on stderr, a line for each fault."""
    try:
        yield
    except mistakes as error:
        print(*(f"mm: {line}" for line in str(error).split("\n")), sep="\n", file=sys.stderr)
        raise SystemExit(2) from None


def _part(out: Path, target: str, about: dict[str, Any], vlm: VLM) -> Part:
    """What is known already of the table `out`: of the same questions, weights and versions."""
    path = out.with_name(out.name + ".part")
    return Part(path, {"target": target, **about, "weights": _sum(vlm), "versions": versions()})


def _sum(vlm: VLM) -> float | None:
    """A number that differs between any two trainings of a model."""
    if not isinstance(vlm, HFVLM):
        return None
    return sum(p.flatten()[:64].double().sum().item() for p in vlm.engine.model.parameters())


def _suites(
    target: str, tasks: list[str], limit: int, seed: int, level: int, access: Access
) -> list[Suite]:
    if target == "tabletop":
        return tabletop_suites(tasks, seed=seed, limit=limit, level=level)
    path = Path(target)
    if not is_data(path):
        raise BadTarget(f"no target {target!r}: give tabletop, or a file ({', '.join(SUFFIXES)})")
    if tasks:
        raise BadTarget(f"a file is one task, its name: leave --task {','.join(tasks)} out")
    questions = read_questions(path, limit=limit, access=access)
    return [Suite(path.stem, partial(iter, questions), len(questions), looking=True)]


def _check_writable(*files: Path | None) -> None:
    for file in files:
        if file and not file.parent.is_dir():
            raise BadTarget(f"cannot write {file}: there is no folder {file.parent}")


def place_of(vlm: VLM) -> dict[str, Any]:
    """The device and dtype of the model's weights; None where it has none here."""
    if not isinstance(vlm, HFVLM):
        return {"device": None, "dtype": None}
    weights = next(vlm.engine.model.parameters())
    return {"device": str(weights.device), "dtype": str(weights.dtype).removeprefix("torch.")}


def _report(target: str, about: dict[str, Any], measured: Measured, out: Path | None) -> None:
    rows, pairs = measured.rows, measured.pairs
    level = f"level {about['level']}, seed {about['seed']}, " if "level" in about else ""
    title = f"{Path(target).name}: {level}model {about['model']}, greedy"
    print_table(title, rows, pairs)
    if out:
        command = shlex.join(["mm", *sys.argv[1:]])
        table = envelope(rows, pairs, command=command, **about)
        out.write_text(json.dumps(table, indent=1) + "\n")


@contextmanager
def _progress(total: int) -> Iterator[Advance]:
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=total)
        yield lambda what, by=1: progress.update(bar, advance=by, description=what)
