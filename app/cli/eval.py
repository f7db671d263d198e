"""`mm eval`: from the options to the table."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mm.session import Strategy
from mm.vlm import VLM
from training.data import SUFFIXES, Access, is_data
from training.evaluation.controls import conditions_of
from training.evaluation.error_sheet import ErrorSheet
from training.evaluation.questions import read_questions
from training.evaluation.results import envelope
from training.evaluation.run import DEFAULT_LEVEL, Measured, measure, place_of, result_log
from training.evaluation.table import print_table
from training.evaluation.tasks import BadTarget, Suite, level_named, tabletop_suites

INTERRUPTED = 130


def run_cli(
    target: str,
    *,
    tasks: list[str],
    strategies: list[str],
    controls: bool,
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
    ignore: Sequence[str] = (),
) -> None:
    """Measure `strategies` on `target`, print the table, and write it to `out`.

    Until then answers are kept in `out`.part, so that the same command goes on after a stop; not
    with `show_errors`, whose pictures are not kept.

    Args:
        target: "tabletop", or a file of questions.
        model, adapter: what `load` loads, as the person called it.
        strategy_lookup: the strategy that a name means; raises for a name that means none.
        access: what a file may name besides images in its own folder.
        ignore: columns of a file that are left unread.

    Raises:
        UserError: something cannot be measured.
        SystemExit: 130 on Ctrl-C, after printing and writing what is done.
        ModelUnavailable: the model cannot be loaded.
    """
    found = [(name, strategy_lookup(name)) for name in dict.fromkeys(strategies)]
    hardness = level_named(level, DEFAULT_LEVEL)
    suites = _suites(target, tasks, limit, seed, hardness, access, ignore)
    _check_writable(out, show_errors)
    vlm = load()
    about = {"seed": seed, "limit": limit, "model": model, "adapter": adapter, **place_of(vlm)}
    if target == "tabletop":
        about["level"] = hardness
    mistakes = ErrorSheet()
    watch = mistakes.watch if show_errors else None
    plan = [
        (suite, condition)
        for suite in suites
        for condition in conditions_of(suite, found, controls=controls)
    ]
    part = result_log(out, target, about, vlm) if out and not show_errors else None
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


def _suites(
    target: str,
    tasks: list[str],
    limit: int,
    seed: int,
    level: int,
    access: Access,
    ignore: Sequence[str],
) -> list[Suite]:
    if target == "tabletop":
        return tabletop_suites(tasks, seed=seed, limit=limit, level=level)
    path = Path(target)
    if not is_data(path):
        raise BadTarget(f"no target {target!r}: give tabletop, or a file ({', '.join(SUFFIXES)})")
    if tasks:
        raise BadTarget(f"a file is one task, its name: leave --task {','.join(tasks)} out")
    questions = read_questions(path, limit=limit, access=access, ignore=ignore)
    return [Suite(path.stem, partial(iter, questions), len(questions), looking=True)]


def _check_writable(*files: Path | None) -> None:
    for file in files:
        if file and not file.parent.is_dir():
            raise BadTarget(f"cannot write {file}: there is no folder {file.parent}")


def _report(target: str, about: dict[str, Any], measured: Measured, out: Path | None) -> None:
    rows, pairs = measured.rows, measured.pairs
    level = f"level {about['level']}, seed {about['seed']}, " if "level" in about else ""
    title = f"{Path(target).name}: {level}model {about['model']}, greedy"
    print_table(title, rows, pairs)
    if out:
        command = shlex.join(["mm", *sys.argv[1:]])
        table = envelope(rows, pairs, command=command, **about)
        out.write_text(json.dumps(table, indent=1) + "\n")
