"""`mm bench verifier`: how well verifiers tell right from wrong; the threshold of a trained one."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.errors import check_file, writing
from app.model_choice import ModelChoice
from app.terminal import command_line, spinner
from mm.errors import UserError
from mm.trace_store import FILE
from vision.verifier import read_verifier

from .options import takes_model

if TYPE_CHECKING:
    from mm.trace import Branch
    from mm.vlm import VLM
    from training.benchmarks.choosing import Choice, Judged
    from training.benchmarks.verifier_report import Line


@takes_model()
def verifier(
    *,
    choice: ModelChoice,
    traces: Annotated[Path, typer.Argument(help="A folder of `mm collect`, of other questions.")],
    plot: Annotated[Path | None, typer.Option(help="Reliability, as .png or .svg.")] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Keep the threshold in the verifier's folder.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write the report as JSON.")] = None,
) -> None:
    """Areas under the ROC curve on graded traces; chooses the threshold of a trained verifier."""
    from training.benchmarks import verifier_report as report

    trained = choice.verifier_folder
    if write and not trained:
        raise UserError("--write keeps a threshold in a verifier's folder: give --verifier FOLDER")
    name = read_verifier(Path(trained)).kind if trained else "asked"
    _check(name, traces, plot, out)
    with spinner(f"loading {choice.name}"):
        vlm = choice.load()
    graded, forced = report.graded_in(traces)
    if forced:
        print(f"{forced} traces left out: their choices were made for the model", file=sys.stderr)
    found = _judged(graded, vlm, trained=bool(trained))
    print(*map(_line, report.lines(found)), *map(_choice, report.curve(found)), sep="\n")
    at, matched = _threshold(name, found)
    if write and trained:
        report.write_threshold(Path(trained), at, matched)
    if plot:
        report.reliability_plot(name, found, plot)
    if out:
        about = {"command": command_line(), "model": vlm.name}
        with writing("--out", out):
            said = json.dumps(report.as_json(found, **about), indent=1)
            out.write_text(said + "\n", encoding="utf-8")


def _check(name: str, traces: Path, plot: Path | None, out: Path | None) -> None:
    """Refuse, before a model is loaded, what could not be read, written or plotted.

    Raises:
        UserError: there are no traces, a file cannot be written, or `name` gives no probabilities.
    """
    if not (traces / FILE).is_file():
        raise UserError(f"no traces in {traces}: `mm collect ... --out {traces}` writes some")
    check_file("--plot", plot)
    check_file("--out", out)
    if plot is None:
        return
    if plot.suffix.lower() not in (".png", ".svg"):
        raise UserError(f"--plot writes .png or .svg, not {plot.name!r}")
    if name == "logratio":
        raise UserError("--plot is of probabilities, and `logratio` gives none: leave it out")
    import_module("matplotlib")  # its lack is told before anything is judged


def _judged(graded: Sequence[Branch], vlm: VLM, *, trained: bool) -> list[Judged]:
    """The branches' scores, with progress."""
    from rich.console import Console

    from training.benchmarks.verifier_report import judged

    with Console(stderr=True).status("judging") as status:

        def tell(done: int, total: int) -> None:
            status.update(f"judging: {done:,} of {total:,}")

        return judged(graded, vlm, trained=trained, tell=tell)


def _threshold(name: str, found: list[Judged]) -> tuple[float, dict[str, float]]:
    """From where on one half of the answers is enough, told on the other half; and what makes the
    controls stop as often."""
    from training.benchmarks import verifier_report as report

    chosen_on, told_on = report.calibration_split(found)
    at = report.threshold(name, chosen_on)
    print(f"{name}: enough from {at:.3f} on {_sorting(report.accuracy(name, told_on, at))}")
    return at, report.matched(name, chosen_on, at)


def _sorting(share: float | None) -> str:
    if share is None:
        return "is tried on no other answers: collect traces of two or more questions"
    return f"sorts {100 * share:.1f} % of the other half rightly"


def _line(line: Line) -> str:
    return (
        f"{line.verifier:11} AUC {_said(line.auc)}  at equal length {_said(line.at_length)}  "
        f"at steps {_said(line.steps)}  {line.n} branches, {line.wrong} wrong"
    )


def _choice(choice: Choice) -> str:
    over = " to ".join(f"{100 * value:+.1f}" for value in (choice.low, choice.high))
    return (
        f"of {choice.k} by {choice.by:18} {100 * choice.right:5.1f} % right  "
        f"over vote {100 * choice.over_vote:+.1f} ({over})"
    )


def _said(auc: float | None) -> str:
    return "none" if auc is None else f"{auc:.3f}"
