"""`mm train sft`: fine-tuning on one's own rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .data import bad_data
from .mistakes import Mistake
from .options import AbsolutePaths, Device, Urls

train = typer.Typer(help="Fine-tune a model on your own data.", no_args_is_help=True)


@train.command()
def sft(
    recipe: Annotated[
        Path | None, typer.Argument(help="A YAML file; the flags override it.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Rows to learn: CSV, JSONL, parquet.")] = None,
    eval_data: Annotated[str | None, typer.Option(help="Rows held out.")] = None,
    model: Annotated[str | None, typer.Option(help="`tiny`, a hub id, or a local folder.")] = None,
    output: Annotated[str | None, typer.Option(help="Folder for the trained model.")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Be done by then.")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Be done by then.")] = None,
    epochs: Annotated[float | None, typer.Option(help="How often to see each row.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At its highest.")] = None,
    batch_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens in a batch.")] = None,
    lora: Annotated[
        bool | None, typer.Option("--lora/--full", help="An adapter, or all weights.")
    ] = None,
    lora_rank: Annotated[int | None, typer.Option(min=1, help="Of the adapter.")] = None,
    vision: Annotated[
        bool | None, typer.Option("--vision/--no-vision", help="Train the vision tower too.")
    ] = None,
    blind: Annotated[
        bool | None, typer.Option("--blind", help="Show grey pictures: a control.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of order and dropout.")] = None,
    device: Device = None,
    format: Annotated[str | None, typer.Option(help="How rows are written; auto tells.")] = None,
    allow_absolute_paths: AbsolutePaths = False,
    allow_urls: Urls = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, train nothing.")] = (
        False
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Go on where it was cut off.")] = False,
) -> None:
    """Learn the replies of rows by heart (supervised fine-tuning)."""
    given = dict(locals())
    file = given.pop("recipe")
    flags = {key: given.pop(key) for key in ("dry_run", "resume")}
    given = {key: value for key, value in given.items() if value not in (None, False)}
    given |= {k: v for k, v in (("lora", lora), ("vision", vision)) if v is not None}
    try:
        from training.run import train as run
    except ModuleNotFoundError as error:
        if error.name not in ("trl", "datasets", "matplotlib"):
            raise
        remedy = "pip install 'multimodal-reasoning[train]'"
        raise Mistake(f"mm train needs {error.name}: {remedy}") from None
    from training.recipe import load_recipe

    with bad_data():
        run(load_recipe(file, given), **flags)
