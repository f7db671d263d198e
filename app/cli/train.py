"""`mm train`: fine-tuning on one's own rows; its flags are the keys of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any

import typer

from mm.errors import UserError
from training.finetune.recipe import KEYS, Recipe
from training.finetune.recipe_keys import METHODS, MethodName, flag_of, kinds_of

from .options import DepthKind, DepthScale

train = typer.Typer(help="Fine-tune a model on your own data.", no_args_is_help=True)

ABOUT = {
    "sft": "Learn the completions of rows (supervised fine-tuning).",
    "dpo": "Learn to prefer the chosen side of pairs (direct preference optimisation).",
    "grpo": "Learn from rewards of the model's own answers, looks included (GRPO).",
}
"""What each method is, for help."""

KINDS = kinds_of(Recipe)

_RECIPE: Any = typer.Argument(
    None, help="A YAML file of these options, or one of `mm train recipes`; flags win."
)
_DRY_RUN: Any = typer.Option(False, "--dry-run", help="Check all, train nothing.")
_RESUME: Any = typer.Option(False, "--resume", help="Go on where it was cut off.")


def _parameter(name: str, kind: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _flag(name: str) -> Parameter:
    """The flag that overrides a recipe's key `name` where it is given."""
    known = KEYS[name]
    kind = next((each for each in (bool, int, float) if each in KINDS[name]), str)
    about = f"{known.help} ({known.rule})" if known.rule else known.help
    option: Any = typer.Option(None, flag_of(name, known), help=about)
    return _parameter(name, kind | None, option)


def _signature(method: MethodName) -> Signature:
    """The parameters of the command `method`, which typer reads."""
    flags = [
        _flag(name) for name, known in KEYS.items() if method in known.methods and known.flag != ""
    ]
    recipe = _parameter("recipe", Path | None, _RECIPE)
    modes = [_parameter("dry_run", bool, _DRY_RUN), _parameter("resume", bool, _RESUME)]
    return Signature([recipe, *flags, *modes])


def _add(method: MethodName) -> None:
    """The command `method`."""

    def command(recipe: Path | None, dry_run: bool, resume: bool, **given: Any) -> None:
        _run(recipe, {"method": method, **given}, dry_run=dry_run, resume=resume)

    made: Any = command
    made.__signature__ = _signature(method)
    train.command(method, help=ABOUT[method])(made)


for _method in METHODS:
    _add(_method)


@train.command()
def depth(
    data: Annotated[Path, typer.Option(help="Rows: question, rationale, answer, image, depth.")],
    output: Annotated[Path, typer.Option(help="Folder for what is trained.")],
    stage: Annotated[int, typer.Option(min=1, max=2, help="1: from rationales; 2: answers.")] = 1,
    start: Annotated[str | None, typer.Option(help="Stage 2: the folder of stage 1.")] = None,
    model: Annotated[str, typer.Option(help="tiny, a hub id, or a local folder.")] = "tiny",
    learned: Annotated[
        str, typer.Option(help="Stage 2: midi; constant or none as controls.")
    ] = "midi",
    latents: Annotated[int, typer.Option(min=1, help="Vectors in the context.")] = 10,
    learning_rate: Annotated[float | None, typer.Option(help="At its highest.")] = None,
    epochs: Annotated[float, typer.Option(help="How often to see each row.")] = 2.0,
    batch: Annotated[int, typer.Option(min=1, help="Rows in a step.")] = 16,
    lora_rank: Annotated[int, typer.Option(min=1, help="Stage 2: of the adapter.")] = 16,
    max_minutes: Annotated[float | None, typer.Option(help="Be done by then.")] = None,
    depth_scale: DepthScale = None,
    depth_kind: DepthKind = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps; cuda by default.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    allow_absolute_paths: Annotated[bool, typer.Option("--allow-absolute-paths")] = False,
    allow_urls: Annotated[bool, typer.Option("--allow-urls")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where it was cut off.")] = False,
) -> None:
    """Train a module that writes what depth shows into a few vectors of the context (SSR)."""
    from training.data import Access
    from training.latents.recipe import LatentsRecipe
    from training.latents.train import train_latents

    if learned not in ("midi", "constant", "none"):
        raise UserError(f"--learned must be midi, constant or none, got {learned!r}")
    recipe = LatentsRecipe(
        data=data,
        output=output,
        stage=1 if stage == 1 else 2,
        model=model,
        start=start,
        learned=learned,
        latents=latents,
        lora_rank=lora_rank,
        learning_rate=learning_rate,
        epochs=epochs,
        batch=batch,
        max_minutes=max_minutes,
        seed=seed,
        depth_scale=depth_scale,
        depth_kind=depth_kind or "metric",
        device=device,
        access=Access(allow_absolute_paths, allow_urls),
    )
    try:
        train_latents(recipe, resume=resume)
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
    from app.strategies import strategy_named

    return {"strategy": strategy_named(recipe.strategy)}
