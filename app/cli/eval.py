"""`mm eval`: from what a person asked for to the table."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.errors import check_file, writing
from app.terminal import command_line
from mm.session import Strategy
from mm.types import Sampling
from mm.vlm import VLM
from training.data import SUFFIXES, Access, is_data
from training.evaluation.answers import as_text
from training.evaluation.controls import conditions_of
from training.evaluation.error_sheet import ErrorSheet
from training.evaluation.questions import read_questions
from training.evaluation.results import envelope
from training.evaluation.run import Measured, measure, place_of, result_log
from training.evaluation.table import print_table
from training.evaluation.tasks import (
    BadTarget,
    Suite,
    default_level,
    level_named,
    tabletop_suites,
)
from training.tabletop import TASKS
from vision.depth_strategies import make_ready

from .data import tell_left_out

if TYPE_CHECKING:
    from mm.tokens.builder import TokenBuilder

INTERRUPTED = 130

USUAL = 500
"""Questions of a task of Tabletop, whose stream never ends."""


@dataclass(frozen=True)
class Evaluation:
    """What is measured, of whom, and where the table goes.

    Attributes:
        target: "tabletop", or a file of questions.
        strategies: those to compare, by the names they are given in the table.
        model, adapter: as the person called them.
        controls: add each strategy's controls, which show what its looks bring.
        limit: questions per task; None takes `USUAL` of a task, and all rows of a file.
        seed: which test stream.
        level: of Tabletop's scenes; None for the level that is measured by default.
        format: how the rows of a file are written.
        builder: of the model, for rows with boxes; None where nobody can tell.
        access: what a file may name besides images in its own folder.
        ignore: columns of a file that are left unread.
        out: the table as JSON.
        show_errors: ten wrong answers as one PNG.
        sampling: greedy unless told; its seed is `seed`.
        system: a message before every question.
        matched: what makes controls stop as often as a trained verifier.
        also: what else answers depend on; None and empty values say nothing.
    """

    target: str
    strategies: Mapping[str, Strategy]
    model: str = "tiny"
    adapter: str | None = None
    tasks: tuple[str, ...] = ()
    controls: bool = False
    limit: int | None = None
    seed: int = 0
    level: int | str | None = None
    format: str = "auto"
    builder: Callable[[], TokenBuilder] | None = None
    access: Access = Access()
    ignore: tuple[str, ...] = ()
    out: Path | None = None
    show_errors: Path | None = None
    threads: int = 8
    sampling: Sampling = Sampling()
    system: str | None = None
    matched: Mapping[str, float] = field(default_factory=dict)
    also: Mapping[str, Any] = field(default_factory=dict)

    def suites(self) -> list[Suite]:
        """The questions.

        Raises:
            UserError: there are none such.
        """
        if self.target == "tabletop":
            self._refuse_of_rows()
            level = None if self.level is None else level_named(self.level)
            n = self.limit or USUAL
            return tabletop_suites(self.tasks, seed=self.seed, limit=n, level=level)
        path = Path(self.target)
        if not is_data(path):
            known = ", ".join(SUFFIXES)
            raise BadTarget(f"no target {self.target!r}: give tabletop, or a file ({known})")
        if self.tasks:
            raise BadTarget(
                f"a file is one task, its name: leave --task {','.join(self.tasks)} out"
            )
        if self.level is not None:
            raise BadTarget(f"levels are of tabletop's scenes: leave --level {self.level} out")
        return [self._of_rows(path)]

    def _refuse_of_rows(self) -> None:
        """Refuse what only the rows of a file have."""
        given = {
            "--format": self.format != "auto",
            "--ignore": bool(self.ignore),
            "--allow-absolute-paths": self.access.absolute_paths,
            "--allow-urls": self.access.urls,
        }
        if told := ", ".join(flag for flag, is_given in given.items() if is_given):
            raise BadTarget(f"tabletop has no rows: leave {told} out")

    def _of_rows(self, path: Path) -> Suite:
        questions = read_questions(
            path,
            limit=self.limit,
            dialect=self.format,
            access=self.access,
            ignore=self.ignore,
            builder=self.builder,
        )
        tell_left_out(questions)
        if self.controls and questions.clips and questions.images:
            raise BadTarget(
                f"{self.target!r} has clips and images, whose controls differ: leave --nulls "
                "out, or give a file of each"
            )
        items, n = partial(iter, questions), len(questions)
        located, clips = questions.located, questions.clips
        return Suite(path.stem, items, n, looking=True, located=located, clips=clips)

    @property
    def hardness(self) -> int | dict[str, int]:
        """The level as a number; where the tasks' own levels differ, each by its task.

        Raises:
            BadTarget: there is no such level.
        """
        if self.level is not None:
            return level_named(self.level)
        each = {task: default_level(task) for task in self.tasks or TASKS}
        return each if len(set(each.values())) > 1 else next(iter(each.values()))

    def about(self, vlm: VLM) -> dict[str, Any]:
        """What the table depends on."""
        limit = self.limit or (USUAL if self.target == "tabletop" else None)
        asked = {"seed": self.seed, "limit": limit, "model": self.model}
        level = {"level": self.hardness} if self.target == "tabletop" else {}
        how = {
            "system": self.system,
            "sampling": asdict(self.sampling),
            "budgets": dict(vlm.traits.budgets),
        }
        also = {name: said for name, value in self.also.items() if (said := _given(value))}
        file = {} if self.target == "tabletop" else {"questions": _digest(Path(self.target))}
        return {**asked, "adapter": self.adapter, **place_of(vlm), **level, **how, **also, **file}


def _given(value: Any) -> Any:
    """`value`; of a mapping, the entries that are not None."""
    if isinstance(value, Mapping):
        return {k: v for k, v in value.items() if v is not None}
    return value


def _digest(path: Path) -> str:
    """Tells questions from others: of the bytes of a file; of a folder that `datasets` saved, of
    the names and sizes in it, and its JSON, which has the fingerprint of the rows. Never empty."""
    if not path.is_dir():
        return blake2b(path.read_bytes(), digest_size=8).hexdigest()
    said = json.dumps([_told(file) for file in sorted(path.iterdir()) if _holds_rows(file)])
    return blake2b(said.encode(), digest_size=8).hexdigest()


def _holds_rows(file: Path) -> bool:
    """Whether it is one that `datasets` saves; a table or images may be written beside those."""
    if file.suffix == ".arrow":
        return not file.name.startswith((".", "cache-"))
    return file.name in ("dataset_info.json", "state.json")


def _told(file: Path) -> tuple[str, int, str]:
    """What tells a file of a folder from another, without reading large ones."""
    return file.name, file.stat().st_size, _digest(file) if file.suffix == ".json" else ""


def run_eval(asked: Evaluation, load: Callable[[], VLM]) -> int:
    """Measure, print the table, and write it; the exit code, 130 after Ctrl-C.

    Until then answers are kept in `out`.part, so that the same command goes on after a stop; not
    with `show_errors`, whose images are not kept.

    Raises:
        UserError: something cannot be measured.
        ModelUnavailable: the model cannot be loaded.
    """
    suites = asked.suites()
    check_file("--out", asked.out, [asked.target])
    check_file("--show-errors", asked.show_errors, [asked.target, asked.out])
    modules: dict[str, str] = {}
    for strategy in asked.strategies.values():
        modules |= make_ready(strategy, asked.model)
    vlm = load()
    known = {"latents_weights": modules} if modules else {}
    about, sheet = {**asked.about(vlm), **known}, ErrorSheet()
    resumes = asked.out and not asked.show_errors
    part = result_log(asked.out, asked.target, about, vlm) if resumes and asked.out else None
    measured = Measured(part=part)
    done = _measure(asked, suites, vlm, measured, sheet)
    _report(asked, about, measured)
    if part:
        part.close(done=done)
        if not done:
            print("mm: stopped; the same command goes on from here", file=sys.stderr)
    if asked.show_errors and not sheet.save(asked.show_errors, vlm):
        print(f"nothing wrong to show: {asked.show_errors} is not written", file=sys.stderr)
    return 0 if done else INTERRUPTED


def _measure(
    asked: Evaluation, suites: list[Suite], vlm: VLM, measured: Measured, sheet: ErrorSheet
) -> bool:
    """Every strategy, with its controls where they are wanted, on every suite; False if stopped."""
    strategies = list(asked.strategies.items())
    plan = [
        (suite, condition)
        for suite in suites
        for condition in conditions_of(
            suite, strategies, controls=asked.controls, matched=asked.matched
        )
    ]
    watch = sheet.watch if asked.show_errors else None
    said = {"sampling": asked.sampling, "system": asked.system}
    return measure(plan, vlm, measured, seed=asked.seed, threads=asked.threads, watch=watch, **said)


def _levels(level: int | dict[str, int]) -> str:
    if isinstance(level, int):
        return f"level {level}"
    (usual, _), *_ = Counter(level.values()).most_common(1)
    others = ", ".join(f"{task} {each}" for task, each in level.items() if each != usual)
    return f"level {usual} ({others})"


def _report(asked: Evaluation, about: dict[str, Any], measured: Measured) -> None:
    level = f"{_levels(about['level'])}, seed {about['seed']}, " if "level" in about else ""
    hot = asked.sampling.temperature
    heat = f"temperature {hot:g}" if hot else "greedy"
    title = f"{Path(asked.target).name}: {level}model {about['model']}, {heat}"
    print_table(title, measured.rows, measured.pairs)
    for line in measured.broken:
        print(f"mm: {line}", file=sys.stderr)
    if asked.out:
        command = command_line()
        table = envelope(measured.rows, measured.pairs, command=command, **about)
        with writing("--out", asked.out):
            asked.out.write_text(as_text(table, measured.answers))
