"""`mm bench verifier`: how well verifiers tell right from wrong; the threshold of a trained one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from app.errors import check_file, writing
from app.model_choice import ModelChoice
from app.terminal import spinner
from mm.errors import UserError

from .options import takes_model


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
    from rich.console import Console

    from training.benchmarks import verifier_report as report

    trained = choice.verifier_folder
    if write and not trained:
        raise UserError("--write keeps a threshold in a verifier's folder: give --verifier FOLDER")
    check_file("--plot", plot)
    check_file("--out", out)
    if plot and plot.suffix.lower() not in (".png", ".svg"):
        raise UserError(f"--plot writes .png or .svg, not {plot.name!r}")
    with spinner(f"loading {choice.name}"):
        vlm = choice.load()
    with Console(stderr=True).status("judging") as status:
        found = report.judged(
            traces,
            vlm,
            trained=bool(trained),
            tell=lambda k, n: status.update(f"judging: {k:,} of {n:,}"),
        )
    for line in report.lines(found):
        print(
            f"{line.verifier:11} AUC {_said(line.auc)}  at equal length {_said(line.at_length)}  "
            f"at steps {_said(line.steps)}  "
            f"{line.n} branches, {line.wrong} wrong"
        )
    for choice_of in report.curve(found):
        print(
            f"of {choice_of.k} by {choice_of.by:18} {100 * choice_of.right:5.1f} % right  "
            f"over vote {100 * choice_of.over_vote:+.1f} "
            f"({100 * choice_of.low:+.1f} to {100 * choice_of.high:+.1f})"
        )
    name = "score" if trained else "asked"
    chosen_on, told_on = report.calibration_split(found)
    at = report.threshold(name, chosen_on)
    share = report.accuracy(name, told_on, at)
    print(f"{name}: enough from {at:.3f} on sorts {100 * share:.1f} % of the other half rightly")
    if write and trained:
        controls = report.matched("score", chosen_on, at)
        report.write_threshold(Path(trained), "score", at, controls)
    if plot:
        report.reliability_plot(name, found, plot)
    if out:
        with writing("--out", out):
            out.write_text(json.dumps(report.as_json(found), indent=1) + "\n")


def _said(auc: float | None) -> str:
    return "none" if auc is None else f"{auc:.3f}"
