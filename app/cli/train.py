"""`mm train`: fine-tuning on one's own rows; its flags are the keys of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import typer

from app.errors import needs_train
from training.finetune.recipe import KEYS, Recipe
from training.finetune.recipe_keys import METHODS, MethodName, flag_of, kinds_of

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
def recipes() -> None:
    """The recipes that come along, by name."""
    from training.finetune.recipe_file import shipped

    for name, about in shipped().items():
        print(f"{name:16} {about}")


def _run(recipe: Path | None, given: Mapping[str, Any], *, dry_run: bool, resume: bool) -> None:
    with needs_train("mm train"):
        from training.finetune.run import train as run
    from training.finetune.recipe_file import load_recipe

    made = load_recipe(recipe, given)
    run(made, **_strategy(made), dry_run=dry_run, resume=resume)


def _strategy(recipe: Recipe) -> dict[str, Any]:
    """By what the answers are sampled, where some are."""
    if recipe.method != "grpo":
        return {}
    from app.strategies import strategy_named

    return {"strategy": strategy_named(recipe.strategy)}
