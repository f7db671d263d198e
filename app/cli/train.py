"""`mm train`: fine-tuning on one's own rows; its flags are the keys of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from training.finetune.recipe import KEYS, Recipe
from training.finetune.recipe_keys import METHODS, MethodName

from .data import Format
from .options import (
    AbsolutePaths,
    DepthKind,
    DepthScale,
    Device,
    Ignore,
    MaxPixels,
    MinPixels,
    Model,
    Urls,
    VisualTokens,
    key_flag,
    split,
    with_flags,
)

train = typer.Typer(help="Fine-tune a model on your own data.", no_args_is_help=True)

ABOUT = {
    "sft": "Learn the completions of rows (supervised fine-tuning).",
    "dpo": "Learn to prefer the chosen side of pairs (direct preference optimisation).",
    "grpo": "Learn from rewards of the model's own answers, looks included (GRPO).",
}
"""What each method is, for help."""

_Recipe = Annotated[
    Path | None,
    typer.Argument(help="A YAML file of these options, or one of `mm train recipes`; flags win."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check all, train nothing.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where it was cut off.")]


def _add(method: MethodName) -> None:
    """The command `method`, whose flags override a recipe's keys where they are given."""

    def command(
        *,
        given: dict[str, Any],
        recipe: _Recipe = None,
        dry_run: DryRun = False,
        resume: Resume = False,
    ) -> None:
        _run(recipe, {"method": method, **given}, dry_run=dry_run, resume=resume)

    known = [name for name, key in KEYS.items() if method in key.methods and key.flag != ""]
    made = with_flags("given", [*map(key_flag, known)], dict, command)
    train.command(method, help=ABOUT[method])(made)


for _method in METHODS:
    _add(_method)


@train.command()
def depth(
    data: Annotated[Path, typer.Option(help="Rows: question, rationale, answer, image, depth.")],
    output: Annotated[Path, typer.Option(help="Folder for what is trained.")],
    stage: Annotated[int, typer.Option(min=1, max=2, help="1: from rationales; 2: answers.")] = 1,
    start: Annotated[str | None, typer.Option(help="Stage 2: the folder of stage 1.")] = None,
    model: Model = "tiny",
    learned: Annotated[
        Literal["midi", "constant", "none"],
        typer.Option(help="Stage 2: midi; constant or none as controls."),
    ] = "midi",
    reads: Annotated[
        Literal["model", "features"],
        typer.Option(help="Who reads image and depth: the model, with an adapter, or the Mamba."),
    ] = "model",
    latents: Annotated[int, typer.Option(min=1, help="Vectors in the context.")] = 10,
    learning_rate: Annotated[
        float | None, typer.Option(help="At its highest; by the model's size by default.")
    ] = None,
    epochs: Annotated[float, typer.Option(help="How often to see each row.")] = 2.0,
    batch: Annotated[int, typer.Option(min=1, help="Rows in a step.")] = 16,
    lora_rank: Annotated[int, typer.Option(min=1, help="Of the adapter.")] = 16,
    max_minutes: Annotated[float | None, typer.Option(help="Be done by then.")] = None,
    depth_scale: DepthScale = None,
    depth_kind: DepthKind = None,
    max_pixels: MaxPixels = None,
    min_pixels: MinPixels = None,
    visual_tokens: VisualTokens = None,
    device: Device = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of rows, and of weights.")] = 0,
    format: Format = "auto",
    ignore: Ignore = None,
    allow_absolute_paths: AbsolutePaths = False,
    allow_urls: Urls = False,
    dry_run: DryRun = False,
    resume: Resume = False,
) -> None:
    """Train a module that writes what depth shows into a few vectors of the context (SSR)."""
    from training.data import Access
    from training.latents.recipe import LatentsRecipe
    from training.latents.train import train_latents

    recipe = LatentsRecipe(
        data=data,
        output=output,
        stage=1 if stage == 1 else 2,
        model=model,
        start=start,
        learned=learned,
        reads=reads,
        latents=latents,
        lora_rank=lora_rank,
        learning_rate=learning_rate,
        epochs=epochs,
        batch=batch,
        max_minutes=max_minutes,
        seed=seed,
        depth_scale=depth_scale,
        depth_kind=depth_kind or "metric",
        max_pixels=max_pixels,
        min_pixels=min_pixels,
        visual_tokens=visual_tokens,
        format=format,
        ignore=tuple(split(ignore)),
        device=device,
        access=Access(allow_absolute_paths, allow_urls),
    )
    try:
        train_latents(recipe, dry_run=dry_run, resume=resume)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@train.command()
def recipes() -> None:
    """The recipes that come along, by name."""
    from training.finetune.recipe_file import shipped

    for name, about in shipped().items():
        print(f"{name:16} {about}")


def _run(recipe: Path | None, given: Mapping[str, Any], *, dry_run: bool, resume: bool) -> None:
    from training.finetune.recipe_file import load_recipe
    from training.finetune.run import train as run

    made = load_recipe(recipe, given)
    run(made, **_strategy(made), dry_run=dry_run, resume=resume)


def _strategy(recipe: Recipe) -> dict[str, Any]:
    """By what the answers are sampled, where some are."""
    if recipe.method != "grpo":
        return {}
    from app.strategies import strategy_named, with_depth
    from vision.depth_source import DepthSource

    scale, kind, model = recipe.depth_scale, recipe.depth_kind, recipe.depth_model
    source = DepthSource(None, scale, kind, model, recipe.device)
    return {"strategy": with_depth(strategy_named(recipe.strategy), source)}
