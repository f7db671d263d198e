"""`mm data`: look at rows, check them, convert them, count them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import mm
from app.errors import check_file, writing
from app.model_choice import ModelChoice
from app.terminal import progress
from mm.errors import UserError
from mm.remote.connect import connect
from mm.remote.responses import shown

from .options import BUDGETS, UNJUDGED, AbsolutePaths, Ignore, Urls, split, takes_model

if TYPE_CHECKING:
    from mm.tokens.builder import TokenBuilder
    from training.data import DataSet
    from training.evaluation.questions import Questions
    from training.evaluation.thoughts import Writers

data = typer.Typer(help="Look at your own data as a model sees it.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="CSV, JSONL, JSON, parquet, or a datasets folder.")]
Format = Annotated[
    str, typer.Option("--format", help="How rows are written; auto tells by their columns.")
]
Purpose = Literal["sft", "dpo", "grpo"]


@data.command()
@takes_model("model", *BUDGETS)
def inspect(
    *,
    choice: ModelChoice,
    file: File,
    row: Annotated[int, typer.Option(min=1, help="Which row, from 1.")] = 1,
    html: Annotated[Path | None, typer.Option(help="Write it as a page instead.")] = None,
    format: Format = "auto",
    ignore: Ignore = None,
    allow_absolute_paths: AbsolutePaths = False,
    allow_urls: Urls = False,
) -> None:
    """Print a row as a model sees it: what trains is green, what is only read is grey."""
    from rich.console import Console

    from training.data import inspect_row

    check_file("--html", html, [file])
    rows = opened(file, format, ignore, allow_absolute_paths, allow_urls)
    if row > len(rows):
        raise UserError(f"{file} has {len(rows)} rows: there is no row {row}")
    builder = builder_of(choice)
    one = rows.shown_to(builder)[row - 1]
    titled = [
        (f"{one.id} {side}".strip(), inspect_row.pieces(builder, said, one))
        for side, said in inspect_row.sides(one)
    ]
    if html:
        with writing("--html", html):
            html.write_text(inspect_row.as_html(titled), encoding="utf-8")
        return
    console = Console(highlight=False)
    for title, found in titled:
        console.rule(title)
        console.print(inspect_row.as_text(found))


@data.command()
@takes_model("model", *BUDGETS)
def check(
    *,
    choice: ModelChoice,
    file: File,
    purpose: Annotated[
        Purpose | None,
        typer.Option("--for", help="What the rows are for; told by the first that can be read."),
    ] = None,
    format: Format = "auto",
    ignore: Ignore = None,
    allow_absolute_paths: AbsolutePaths = False,
    allow_urls: Urls = False,
) -> None:
    """Read every row and image, and name each that cannot be trained on."""
    from training.data import BadData
    from training.trainers.row_builders import ROW_BUILDERS

    builder = builder_of(choice)
    rows = opened(file, format, ignore, allow_absolute_paths, allow_urls).shown_to(builder)
    purpose = purpose or _guessed(rows)
    bad = 0
    each = rows.each(ROW_BUILDERS[purpose](builder))
    for found in progress(each, "checking", len(rows), transient=True):
        if isinstance(found, BadData):
            print(found)
            bad += 1
    good = f"{len(rows) - bad:,} of {len(rows):,} rows are good for {purpose}"
    print(good + (f", {bad:,} bad" if bad else ""))
    raise typer.Exit(1 if bad else 0)


def _guessed(rows: DataSet) -> Purpose:
    from training.data import BadData
    from training.trainers.row_builders import purpose_of

    for found in rows.each(purpose_of, threads=1):
        if not isinstance(found, BadData):
            return found
    return "sft"


@data.command()
def convert(
    file: File,
    out: Annotated[Path, typer.Option(help="A .jsonl, .json or .parquet file.")],
    to: Annotated[str, typer.Option(help="native, llava, sharegpt, openai, swift, trl.")] = (
        "native"
    ),
    format: Format = "auto",
    ignore: Ignore = None,
) -> None:
    """Write the same rows in another format or kind of file."""
    from training.data import read_data
    from training.data.convert import convert as write

    count = write(read_data(file, dialect=format, ignore=split(ignore)), to, out)
    print(f"{count:,} rows: {out}")


@data.command()
@takes_model("model", *BUDGETS)
def stats(
    *,
    choice: ModelChoice,
    file: File,
    plot: Annotated[Path | None, typer.Option(help="Write them as one PNG too.")] = None,
    format: Format = "auto",
    ignore: Ignore = None,
    allow_absolute_paths: AbsolutePaths = False,
    allow_urls: Urls = False,
) -> None:
    """How long rows are, what images they have, and which answers."""
    from training.data import refuse
    from training.data import stats as made

    check_file("--plot", plot, [file])
    if plot:
        import_module("matplotlib")  # its lack is told before all rows are read
    rows = opened(file, format, ignore, allow_absolute_paths, allow_urls)
    builder = builder_of(choice)
    each = partial(made.facts_of, builder)
    results = rows.shown_to(builder).each(each)
    found = list(progress(results, "reading", len(rows), transient=True))
    refuse(found)
    facts = [each for each in found if isinstance(each, made.Facts)]
    for name, value in made.table(facts):
        print(f"{name:22} {value}")
    if plot:
        made.plot(facts, plot)


@data.command()
def pairs(
    traces: Annotated[Path, typer.Argument(help="The folder that `mm collect` wrote.")],
    out: Annotated[Path, typer.Option(help="A .jsonl file, beside or above that folder.")],
    kind: Annotated[
        Literal["verdict", "trajectory", "step"],
        typer.Option(
            help="verdict: is it enough, yes or no; trajectory: right ways over wrong; step: one "
            "step over another at the same place, by the answers that followed."
        ),
    ] = "verdict",
    per_group: Annotated[int, typer.Option(min=1, help="Trajectories or steps of a question.")] = 4,
    across: Annotated[
        bool,
        typer.Option("--across", help="Verdicts across questions too, of one task and length."),
    ] = False,
) -> None:
    """Make preference pairs of graded traces, for `mm train dpo`."""
    from training.evaluation.pairs import write_pairs

    for line in write_pairs(traces, out, kind=kind, per_group=per_group, across=across).lines():
        print(line)


@data.command()
@takes_model(*UNJUDGED)
def thoughts(
    *,
    choice: ModelChoice,
    file: File,
    out: Annotated[
        Path, typer.Option(help="A .jsonl file beside or above FILE; goes on by running again.")
    ],
    writer: Annotated[
        str | None, typer.Option(help="Who thinks: a model's name; the one that sees by default.")
    ] = None,
    writer_url: Annotated[
        str | None,
        typer.Option(
            help="Where it is, over OpenAI's API; here by default. Its key: WRITER_API_KEY, else "
            "OPENAI_API_KEY."
        ),
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="Of a clip.")] = 16,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of each text.")] = 2048,
    limit: Annotated[int | None, typer.Option(min=1, help="So many rows; all by default.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Rows at a time.")] = 4,
    format: Format = "auto",
    ignore: Ignore = None,
    allow_absolute_paths: AbsolutePaths = False,
    allow_urls: Urls = False,
) -> None:
    """Write thoughts for rows: describe, think blind, mend, leave out what ends wrong."""
    from training.data import Access
    from training.evaluation.questions import read_questions
    from training.evaluation.thoughts import Writers, open_thoughts

    _check_thoughts(file, out)
    if writer_url and not writer:
        raise UserError("--writer-url needs --writer, the model's name there")
    access = Access(allow_absolute_paths, allow_urls)
    how = {"limit": limit, "dialect": format, "access": access, "ignore": split(ignore)}
    rows = read_questions(file, **how, builder=reader_of(choice))
    tell_left_out(rows)
    asked = {"file": file.name, "frames": frames}  # nothing that max_tokens cut is kept
    done = open_thoughts(_steps(out), {**asked, **_facts(choice, writer, writer_url)})
    seeing = choice.load()
    thinking = _writer(writer, writer_url, choice.device) if writer else seeing
    writers = Writers(seeing, thinking, mm.Sampling(max_tokens=max_tokens), frames)
    _written(rows, writers, out, done=done, threads=threads)


def _facts(choice: ModelChoice, writer: str | None, writer_url: str | None) -> dict[str, Any]:
    """Who writes, for a folder that must not mix the thoughts of different ones."""
    return {
        "model": choice.name,
        "adapter": choice.adapter,
        **choice.place,
        "dtype": choice.dtype,
        "budgets": choice.budgets.given,
        "writer": writer,
        "writer_url": writer_url and shown(writer_url),
    }


def _check_thoughts(file: Path, out: Path) -> None:
    if out.suffix.lower() != ".jsonl":
        raise UserError(f"--out {out} must end in .jsonl, which is what is written")
    if not file.resolve().is_relative_to(out.resolve().parent):
        raise UserError(f"--out must lie beside {file} or above it, so that rows find their images")
    check_file("--out", out, [file])


def _steps(out: Path) -> Path:
    """The folder that keeps every step."""
    return out.with_suffix(".steps")


def _writer(name: str, url: str | None, device: str | None) -> mm.VLM:
    """The model that thinks: on `device`, or behind a server, which may want a key of its own."""
    if url is None:
        return ModelChoice(name=name, device=device).load()
    return connect(name, base_url=url, key=os.environ.get("WRITER_API_KEY"))


def _written(rows: Questions, writers: Writers, out: Path, **how: Any) -> None:
    """Write the thoughts with progress, and say what came of it."""
    from rich.console import Console

    from training.evaluation.thoughts import write_thoughts

    with Console(stderr=True).status("") as status:
        kept = write_thoughts(
            rows,
            partial(rows.fields, out=out),
            writers,
            _steps(out),
            out,
            tell=lambda k: status.update(f"{k.kept + k.wrong + k.failed:,} of {len(rows):,} rows"),
            **how,
        )
    print(
        f"{kept.kept:,} rows with thoughts, {kept.wrong:,} left out: their answer is wrong, "
        f"{kept.failed:,} failed (run again to try them): {out}"
    )
    if kept.why:
        print(f"the first that failed: {kept.why}")


def opened(
    file: Path, format: str, ignore: str | None, absolute_paths: bool, urls: bool
) -> DataSet:
    """The rows of `file`."""
    from training.data import Access, read_data

    access = Access(absolute_paths, urls)
    return read_data(file, dialect=format, access=access, ignore=split(ignore))


def builder_of(choice: ModelChoice) -> TokenBuilder:
    """The token builder of a model whose weights are not loaded."""
    from mm.local.adapters import checkpoint_of
    from mm.tokens.loading import load_builder

    folder = str(checkpoint_of(choice.name))
    try:
        return load_builder(folder, budgets=choice.budgets, local_files_only=True)
    except (OSError, ValueError) as error:
        raise mm.ModelUnavailable(f"{choice.name}: {error}") from error


def tell_left_out(questions: Questions) -> None:
    """Say on stderr which rows a limit leaves out."""
    if len(questions) < questions.total:
        first = f"the first {len(questions):,} of {questions.total:,} rows (--limit)"
        print(f"{questions.data.path}: {first}", file=sys.stderr)


def reader_of(choice: ModelChoice) -> Callable[[], TokenBuilder] | None:
    """What makes the model's token builder, without its weights; None for a server's model whose
    processor is not here."""
    name = choice.name if choice.backend == "local" else choice.processor
    return partial(builder_of, replace(choice, name=name)) if name else None
