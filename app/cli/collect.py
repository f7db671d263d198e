"""`mm collect`: sampled traces of a strategy over people's rows, graded, to learn from."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import mm
from app.model_choice import ModelChoice
from app.strategies import judging, strategies_named
from app.terminal import spinner
from mm.errors import UserError

from .data import Format, reader_of
from .options import (
    AbsolutePaths,
    Ignore,
    System,
    Threads,
    Urls,
    split,
    takes_model,
    takes_sampling,
)


@takes_model()
@takes_sampling
def collect(
    *,
    choice: ModelChoice,
    sampling: dict[str, Any],
    target: Annotated[str, typer.Argument(help="Your questions as .csv or .jsonl, or tabletop.")],
    out: Annotated[Path, typer.Option(help="The folder of traces; goes on by running again.")],
    strategy: Annotated[str, typer.Option(help="How answers are sampled.")] = "zoom",
    samples: Annotated[int, typer.Option(min=1, help="Answers to each question.")] = 8,
    task: Annotated[str | None, typer.Option(help="Of tabletop: a,b; all by default.")] = None,
    level: Annotated[str | None, typer.Option(help="Of tabletop: how hard.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="So many: 500 of a task, all rows of a file by default."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draws, and of tabletop's stream.")] = 0,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest reply.")] = 512,
    format: Format = "auto",
    ignore: Ignore = None,
    allow_absolute_paths: AbsolutePaths = False,
    allow_urls: Urls = False,
    threads: Threads = 8,
    system: System = None,
) -> None:
    """Sample answers to your questions, grade them, and keep every trace, for `mm data pairs`."""
    from training.data import Access
    from training.evaluation import collect as work

    from .eval import Evaluation

    choice = judging(choice, strategy)
    named = strategies_named(strategy, choice.verifier, judge=choice.judge)
    if len(named) != 1:
        raise UserError(f"--strategy: give one, got {strategy!r}")
    asked = Evaluation(
        target,
        named,
        tasks=tuple(split(task)),
        limit=limit,
        seed=seed,
        level=level,
        format=format,
        builder=reader_of(choice),
        access=Access(allow_absolute_paths, allow_urls),
        ignore=tuple(split(ignore)),
    )
    suites = asked.suites()
    hot = {"temperature": 1.0, **sampling}
    drawn = mm.Sampling(max_tokens=max_tokens, seed=seed, **hot)
    if not drawn.temperature > 0:
        raise UserError("--temperature must be over 0: draws of one question would be the same")
    facts = {
        "model": choice.name,
        "adapter": choice.adapter,
        "verifier": choice.verifier_name,
        "strategy": strategy,
        "target": target,
        "seed": seed,
        "level": asked.hardness if target == "tabletop" else None,
        "system": system,
        "sampling": asdict(drawn),
        "budgets": choice.budgets.given,
        **_place(choice, out),
    }
    done = work.open_folder(out, facts)
    with spinner(f"loading {choice.name}"):
        vlm = choice.load()
    wanted = samples * sum(suite.n for suite in suites)
    with Console(stderr=True).status("") as status:
        said = work.collect(
            suites,
            next(iter(named.values())),
            vlm,
            out,
            samples=samples,
            done=done,
            sampling=drawn,
            system=system,
            threads=threads,
            tell=lambda c: status.update(
                f"{len(done) + c.traces:,} of {wanted:,} traces, {c.right:,} of the new ones right"
            ),
        )
    print(
        f"{said.traces:,} traces, {said.right:,} right, {said.failed:,} failed, "
        f"{len(done):,} there before: {out}",
        file=sys.stderr,
    )


def _place(choice: ModelChoice, folder: Path) -> dict[str, str | None]:
    """Who runs the model and how; a folder of before that was written down goes on without."""
    from training.evaluation.collect import FACTS

    with suppress(OSError, ValueError, TypeError):
        if "backend" not in json.loads((folder / FACTS).read_text()):
            return {}
    return {**choice.place, "dtype": choice.dtype}
