"""`mm bench`: what the engine is worth, as ratios within one run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.errors import check_file, writing
from app.model_choice import ModelChoice
from app.terminal import command_line
from mm.errors import UserError

from .bench_compare import compare
from .options import split, takes_model

if TYPE_CHECKING:
    from mm.local.hf_vlm import HFVLM
    from training.benchmarks.measure import Measured

bench = typer.Typer(help="Time the engine against the model's own generate.", no_args_is_help=True)

bench.command()(compare)

Rounds = Annotated[int, typer.Option(min=1, help="Rounds that count; both sides take turns.")]
Out = Annotated[Path | None, typer.Option(help="Write the table as JSON.")]


@bench.command()
@takes_model("model", "device", "dtype")
def looks(
    *,
    choice: ModelChoice,
    rounds: Rounds = 5,
    out: Out = None,
) -> None:
    """One conversation that looks again four times."""
    from training.benchmarks import engine_speed

    vlm = _engine(choice)
    _report(engine_speed.looks(vlm, engine_speed.Load(rounds=rounds)), vlm, out)


@bench.command()
def tokens(
    files: Annotated[list[Path], typer.Argument(help="Tables that `mm eval --out` wrote.")],
    out: Annotated[Path, typer.Option(help="The plot, as .png or .svg.")],
    task: Annotated[str, typer.Option(help="Which task of theirs.")] = "read",
) -> None:
    """Plot accuracy against the visual tokens of an answer, from tables of `mm eval`."""
    from training.evaluation.plot import plot, read_points

    check_file("--out", out)
    points = read_points(files, task)
    plot(points, task, out)
    print(f"{len(points)} points: {out}")


@bench.command()
@takes_model("model", "device", "dtype")
def replay(
    *,
    choice: ModelChoice,
    side: Annotated[int, typer.Option(min=32, help="Sides of the square image.")] = 768,
    looks: Annotated[str, typer.Option(help="Numbers of looks: a,b.")] = "1,2,4",
    rounds: Rounds = 5,
    out: Out = None,
) -> None:
    """Looks from memory (ours) against zoom's crops (theirs), at the same places of an image."""
    from training.benchmarks import replay_cost

    counts = [int(count) if count.isdigit() else 0 for count in split(looks)]
    if not counts or min(counts) < 1 or max(counts) < 2:
        raise UserError(f"--looks takes whole numbers from 1, one of them above 1, got {looks!r}")
    vlm = _engine(choice)
    _report(replay_cost.replay_against_zoom(vlm, side, counts, rounds), vlm, out)


@bench.command()
@takes_model("model", "device", "dtype")
def users(
    *,
    choice: ModelChoice,
    clients: Annotated[int, typer.Option(min=1, help="Users at once.")] = 16,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens of each reply.")] = 40,
    requests: Annotated[int, typer.Option(min=0, help="For the row of memory; 0: none.")] = 1000,
    served: Annotated[
        bool, typer.Option("--serve/--no-serve", help="The row against transformers serve.")
    ] = True,
    rounds: Rounds = 5,
    out: Out = None,
) -> None:
    """Many conversations at once."""
    from training.benchmarks import engine_speed, server_speed
    from training.benchmarks.memory_growth import memory
    from training.evaluation.run import place_of

    if served and not server_speed.available():
        raise UserError(
            "transformers serve needs its extra: pip install 'transformers[serving]', "
            "or leave its row out with --no-serve"
        )
    vlm = _engine(choice)

    def measures() -> Iterator[Measured]:
        yield from engine_speed.users(vlm, engine_speed.Load(tokens, rounds), clients)
        if served:
            yield server_speed.users_served(
                engine_speed.Load(tokens, rounds), clients, **place_of(vlm)
            )
        if requests:
            yield memory(vlm, requests, tell=partial(_count, "requests"))

    _report(measures(), vlm, out)


@bench.command()
@takes_model("model", "device", "dtype")
def same(
    *,
    choice: ModelChoice,
    items: Annotated[int, typer.Option(min=1, help="Tabletop questions.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the test stream.")] = 0,
    out: Out = None,
) -> None:
    """How often a question gets the same answer alone and in a batch."""
    from training.benchmarks.batch_invariance import sameness

    vlm = _engine(choice)
    tell = partial(_count, "questions")
    _report([sameness(vlm, items=items, seed=seed, tell=tell)], vlm, out)


@bench.command()
@takes_model("model", "device")
def soak(
    *,
    choice: ModelChoice,
    minutes: Annotated[float, typer.Option(min=0, help="At least one round is done.")] = 10,
    conversations: Annotated[int, typer.Option(min=1, help="Of a round.")] = 200,
    clients: Annotated[int, typer.Option(min=1, help="Conversations at once.")] = 16,
    seed: Annotated[int, typer.Option(help="Of what is done to conversations.")] = 0,
    out: Out = None,
) -> None:
    """Rounds of conversations, many cancelled, late, too long or forked; every reply is checked.

    In float32, where a reply has to be the one computed alone. Exit code 1: some was not, or a
    conversation ended in neither an answer nor a named error.
    """
    from training.benchmarks.engine_speed import unseen_image
    from training.benchmarks.soak import Soaked
    from training.benchmarks.soak import soak as run_soak

    def tell(found: Soaked) -> None:
        said = f"{found.ends.total()} conversations, {found.checked} replies checked"
        print(f"{said}, {len(found.wrong)} wrong, {found.lost} lost", file=sys.stderr, flush=True)

    vlm = _engine(replace(choice, dtype="float32"))
    found = run_soak(
        vlm,
        cache(unseen_image),
        minutes=minutes,
        conversations=conversations,
        clients=clients,
        seed=seed,
        tell=tell,
    )
    for end, times in sorted(found.ends.items()):
        print(f"{end:36} {times:>12}")
    _report(found.measures(), vlm, out)
    if found.wrong or found.lost:
        raise typer.Exit(1)


def _count(what: str, number: int) -> None:
    """A line of progress every hundred."""
    if number and number % 100 == 0:
        print(f"{number} {what}", file=sys.stderr, flush=True)


@bench.command("train")
@takes_model("model", "device")
def training(
    *,
    choice: ModelChoice,
    samples: Annotated[int, typer.Option(min=2, help="Rows in the mix.")] = 96,
    vision: Annotated[
        bool, typer.Option("--vision/--no-vision", help="Train the vision tower too.")
    ] = False,
    rounds: Rounds = 3,
    out: Out = None,
) -> None:
    """Fine-tuning by tokens, against TRL's collator and fixed batches of the same memory."""
    from training.benchmarks.training_speed import throughput

    vlm = _engine(choice)
    _report(
        throughput(choice.name, choice.device, count=samples, vision=vision, rounds=rounds),
        vlm,
        out,
    )


def _engine(choice: ModelChoice) -> HFVLM:
    from mm.local.hf_vlm import HFVLM

    vlm = choice.load()
    if not isinstance(vlm, HFVLM):
        raise UserError(f"{choice.name} is of no listed family and runs without the engine")
    return vlm


def _report(measures: Iterable[Measured], vlm: HFVLM, out: Path | None) -> None:
    """Print each row as soon as it is measured; write all of them, or those before a failure."""
    from training.benchmarks.measure import row_of
    from training.evaluation.results import envelope
    from training.evaluation.run import place_of

    if out:
        check_file("--out", out)
    rows = []
    print(f"{'measure':42} {'ours':>12} {'theirs':>12} {'ratio':>7}  spread      unit")
    try:
        for measured in measures:
            row = row_of(measured)
            rows.append(row)
            print(_line(row), flush=True)
    finally:  # what was measured before a failure stays
        if out and rows:
            command = command_line()
            about = {"command": command, "model": vlm.name, **place_of(vlm)}
            with writing("--out", out):
                out.write_text(json.dumps(envelope(rows, [], **about), indent=1) + "\n")


def _line(row: dict) -> str:
    theirs, ratio, spread = "", "", ""
    if row["ratio"] is not None:
        theirs, ratio = f"{row['theirs']:.4g}", f"{row['ratio']:.2f}"
        spread = "{:.2f}-{:.2f}".format(*row["spread"])
    return (
        f"{row['measure']:42} {row['ours']:>12.4g} {theirs:>12} {ratio:>7}  {spread:11} "
        f"{row['unit']}"
    )
