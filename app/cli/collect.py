"""`mm collect`: sampled traces of a strategy over people's rows, graded, to learn from."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

import mm
from app.model_choice import ModelChoice
from app.strategies import judging, strategies_named
from app.terminal import spinner
from mm.errors import UserError
from vision.depth_source import DepthSource
from vision.depth_strategies import make_ready

from .data import Format, reader_of
from .options import (
    OF_ROWS,
    AbsolutePaths,
    Ignore,
    System,
    Threads,
    Urls,
    split,
    takes_depth,
    takes_model,
    takes_sampling,
)

if TYPE_CHECKING:
    from training.evaluation.tasks import Suite

    from .eval import Evaluation

USUAL = mm.Sampling(temperature=1.0)
"""Of draws, as far as nothing else is said."""


@takes_model()
@takes_sampling(USUAL)
@takes_depth(*OF_ROWS)
def collect(
    *,
    choice: ModelChoice,
    sampling: dict[str, Any],
    depth: DepthSource,
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
    from training.evaluation.collect import open_folder

    from .eval import Evaluation

    choice = judging(choice, strategy)
    source = replace(depth, device=choice.device)
    named = strategies_named(strategy, choice.verifier, source, choice.judge)
    asked = Evaluation(
        target,
        _one(named, strategy),
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
    modules: dict[str, str] = {}
    for each in named.values():
        modules |= make_ready(each, choice.name)
    drawn = _drawn(replace(USUAL, max_tokens=max_tokens, seed=seed, **sampling))
    facts = _facts(choice, asked, strategy, drawn, system)
    told = {name: value for name, value in vars(depth).items() if value is not None}
    done = open_folder(
        out, {**facts, "depth_map": told or None, "latents_weights": modules or None}
    )
    with spinner(f"loading {choice.name}"):
        vlm = choice.load()
    how = {"samples": samples, "sampling": drawn, "system": system, "threads": threads}
    _collected(asked, suites, vlm, out, done=done, **how)


def _one(named: dict[str, mm.Strategy], text: str) -> dict[str, mm.Strategy]:
    if len(named) != 1:
        raise UserError(f"--strategy: give one, got {text!r}")
    return named


def _drawn(sampling: mm.Sampling) -> mm.Sampling:
    if not sampling.temperature > 0:
        raise UserError("--temperature must be over 0: draws of one question would be the same")
    return sampling


def _facts(
    choice: ModelChoice,
    asked: Evaluation,
    strategy: str,
    drawn: mm.Sampling,
    system: str | None,
) -> dict[str, Any]:
    """What all traces of a folder have in common."""
    return {
        "model": choice.name,
        "adapter": choice.adapter,
        "verifier": choice.verifier_name,
        "strategy": strategy,
        "target": asked.target,
        "seed": asked.seed,
        "level": asked.hardness if asked.target == "tabletop" else None,
        "system": system,
        "sampling": asdict(drawn),
        "budgets": choice.budgets.given,
        **choice.place,
        "dtype": choice.dtype,
    }


def _collected(
    asked: Evaluation,
    suites: Sequence[Suite],
    vlm: mm.VLM,
    out: Path,
    *,
    done: Mapping[str, str],
    samples: int,
    **how: Any,
) -> None:
    """Collect with progress, and say what came of it."""
    from training.evaluation import collect as work

    before = len(done)
    wanted = samples * sum(suite.n for suite in suites)
    (strategy,) = asked.strategies.values()
    with Console(stderr=True).status("") as status:
        said = work.collect(
            suites,
            strategy,
            vlm,
            out,
            samples=samples,
            done=done,
            tell=lambda c: status.update(
                f"{before + c.traces:,} of {wanted:,} traces, {c.right:,} of the new ones right"
            ),
            **how,
        )
    print(
        f"{said.traces:,} traces, {said.right:,} right, {said.failed:,} failed, "
        f"{before:,} there before: {out}",
        file=sys.stderr,
    )
