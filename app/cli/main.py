"""The `mm` command.

What the user got wrong is one line on stderr and exit code 2; a bug keeps its traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

import mm
from app.errors import EXPECTED, OutputFull, flushed, hush, leave, lost, tell
from app.model_choice import ModelChoice
from app.strategies import judging, matched, strategies_named
from mm.errors import UserError
from vision.depth_source import DepthSource

from .bench import bench
from .bench_verifier import verifier
from .collect import collect
from .data import Format, data, reader_of
from .options import (
    BUDGETS,
    OF_ROWS,
    AbsolutePaths,
    Ignore,
    Strategy,
    System,
    Threads,
    Urls,
    choices_in,
    split,
    takes_depth,
    takes_model,
    takes_sampling,
)
from .train import train

cli = typer.Typer(
    name="mm",
    help="Let a vision-language model look again at an image.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


cli.add_typer(bench, name="bench")
cli.add_typer(data, name="data")
cli.add_typer(train, name="train")

GROUPS = ("bench", "data", "train")
"""Commands whose next word is a command too."""


def main() -> None:
    """The entry point of the `mm` command."""
    hush()
    try:
        code = run(sys.argv[1:])
    except OutputFull as error:
        code = lost(error)
    if sys.argv[1:2] == ["ask"]:
        leave(code)
    sys.exit(flushed(code))


@contextmanager
def needs_train(command: str) -> Iterator[None]:
    """Imports inside that fail for want of the extra `train` are the user's mistake."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in ("trl", "datasets", "matplotlib", "pyarrow"):
            raise
        remedy = "pip install 'multimodal-reasoning[train]'"
        raise UserError(f"{command} needs {error.name}: {remedy}") from None


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    try:
        with needs_train(_named(arguments)):
            code = _command()(arguments or ["--help"], prog_name="mm", standalone_mode=False)
    except EXPECTED as error:
        tell(error)
        return 2
    return code or 0


def _named(arguments: list[str]) -> str:
    """The command in `arguments`, as a person knows it."""
    return " ".join(["mm", *arguments[: 1 + (arguments[0] in GROUPS if arguments else 0)]])


@cache
def _command() -> Any:
    """The commands as they are parsed: made once a process."""
    return typer.main.get_command(cli)


@cli.command()
@takes_model()
@takes_depth()
@takes_sampling()
def ask(
    *,
    choice: ModelChoice,
    depth: DepthSource,
    sampling: dict[str, Any],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILES QUESTION", help="Images or clips, then the question."),
    ] = None,
    strategy: Strategy = "direct",
    choices: Annotated[
        str | None,
        typer.Option(
            help="Answers to choose from: a,b,c; one with a comma in quotes: '\"1,000\",b'."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    draw: Annotated[
        Path | None, typer.Option(help="Write the image with what was looked at, as PNG.")
    ] = None,
    subtitles: Annotated[
        str | None, typer.Option(help="Of the clip: an SRT or WebVTT file.")
    ] = None,
    save_trace: Annotated[
        Path | None, typer.Option(help="Add the whole record to this folder.")
    ] = None,
    batch: Annotated[
        Path | None, typer.Option(help='Ask many: a JSONL file of {"id"?, "image", "question"}.')
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where --batch writes answers; go on by running again.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="With --batch: questions at a time; 8 by default.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest reply.")] = 512,
    system: System = None,
    seed: Annotated[int, typer.Option(help="For a temperature over 0.")] = 0,
) -> None:
    """Ask a question about one image or several: the reply, where it looked, what it cost."""
    from .ask import How
    from .ask import ask as ask_once
    from .batch import ask_batch

    how = How(
        model=choice,
        depth=depth,
        strategy=strategy,
        sampling={"max_tokens": max_tokens, "seed": seed, **sampling},
        system=system,
        choices=choices_in(choices),
        save_trace=save_trace,
    )
    if batch is None and threads:
        raise UserError("--threads is how many rows are asked at a time: give it with --batch")
    if batch is None and out is None:
        code = ask_once(words or [], how, as_program=json, draw=draw, subtitles=subtitles)
        raise typer.Exit(code)
    if batch is None or out is None:
        raise UserError("--batch rows.jsonl and --out answers.jsonl go together")
    if words or json or draw or subtitles:
        raise UserError(
            "with --batch the rows ask: leave out FILE, the question, --json, --draw and "
            "--subtitles, which is a column"
        )
    raise typer.Exit(1 if ask_batch(batch, out, how, threads=threads or 8) else 0)


@cli.command()
@takes_model("model", "backend", "base_url", "processor", *BUDGETS)
def info(
    *,
    choice: ModelChoice,
    file: Annotated[str | None, typer.Argument(help="A clip: what is in it.")] = None,
) -> None:
    """Versions, the device, and what a model or a clip is: box format, tokens per image size."""
    from .info import print_clip, print_info

    if file and choice != ModelChoice():
        raise UserError(f"{file!r} is looked at without a model: leave the model's flags out")
    if file:
        print_clip(file)
    else:
        print_info(choice)


@cli.command()
@takes_model()
@takes_depth("depth_kind", "depth_model")
@takes_sampling()
def demo(
    *,
    choice: ModelChoice,
    depth: DepthSource,
    sampling: dict[str, Any],
    strategy: Annotated[
        str | None,
        typer.Option(help="Those to offer, with their options: zoom(max_looks=3),act; else all."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest reply.")] = 512,
    system: System = None,
    seed: Annotated[int, typer.Option(help="For a temperature over 0.")] = 0,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 7860,
) -> None:
    """A page where you drop an image, ask, and see where the model looked."""
    if depth.kind and not depth.model:
        raise UserError("--depth-kind says what --depth-model's numbers mean: give that too")
    try:
        from app.demo.listening import without_proxies
        from app.demo.uploads import keep_apart

        keep_apart()
        with without_proxies():  # Gradio makes HTTP clients as it is imported
            from app.demo.page import serve
    except ModuleNotFoundError as error:
        if error.name not in ("gradio", "httpx"):
            raise
        raise UserError("mm demo needs gradio: pip install 'multimodal-reasoning[demo]'") from None
    said = {"max_tokens": max_tokens, "seed": seed, **sampling}
    how = {"strategy": strategy, "depth": depth, "sampling": said, "system": system}
    serve(choice, host=host, port=port, **how)


cli.command()(collect)
bench.command()(verifier)


@cli.command("eval")
@takes_model()
@takes_depth(*OF_ROWS)
@takes_sampling(mm.Sampling())
def evaluate(
    *,
    choice: ModelChoice,
    depth: DepthSource,
    sampling: dict[str, Any],
    target: Annotated[str, typer.Argument(help="tabletop, or your questions as .csv or .jsonl.")],
    task: Annotated[str | None, typer.Option(help="Tasks: a,b; all by default.")] = None,
    strategy: Annotated[str, typer.Option(help="Strategies to compare: a,b.")] = "direct",
    nulls: Annotated[bool, typer.Option("--nulls", help="Add the controls.")] = False,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="So many: 500 of a task, all rows of a file by default."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Which test stream.")] = 0,
    level: Annotated[str | None, typer.Option(help="How hard the scenes are.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the table as JSON.")] = None,
    show_errors: Annotated[
        Path | None, typer.Option(help="Write ten wrong answers as one PNG.")
    ] = None,
    format: Format = "auto",
    ignore: Ignore = None,
    allow_absolute_paths: AbsolutePaths = False,
    allow_urls: Urls = False,
    threads: Threads = 8,
    system: System = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest reply.")] = 512,
) -> None:
    """How often strategies are right, with 95 % intervals, costs and controls."""
    from training.data import Access

    from .eval import Evaluation, run_eval

    choice = judging(choice, strategy)
    also = {**choice.place, "verifier": choice.verifier_name, "depth_map": vars(depth)}
    also["format"] = None if format == "auto" else format
    asked = Evaluation(
        target,
        strategies_named(
            strategy, choice.verifier, replace(depth, device=choice.device), choice.judge
        ),
        model=choice.name,
        adapter=choice.adapter,
        tasks=tuple(split(task)),
        controls=nulls,
        limit=limit,
        seed=seed,
        level=level,
        format=format,
        builder=reader_of(choice),
        access=Access(allow_absolute_paths, allow_urls),
        ignore=tuple(split(ignore)),
        out=out,
        show_errors=show_errors,
        threads=threads,
        sampling=mm.Sampling(max_tokens=max_tokens, seed=seed, **sampling),
        system=system,
        matched=matched(choice),
        also=also,
    )
    raise typer.Exit(run_eval(asked, choice.load))
