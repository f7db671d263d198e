"""`mm train`: fine-tuning on one's own rows."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import typer

from app.errors import needs_train
from app.strategies import strategy_named

from .options import AbsolutePaths, Device, Urls

train = typer.Typer(help="Fine-tune a model on your own data.", no_args_is_help=True)


def _flag(name: str, kind: Any, help: str, *written: str, least: int | None = None) -> Parameter:
    """A flag that overrides a recipe's key `name` where it is given; `written` so, if not as its
    name is."""
    option: Any = typer.Option(None, *written, help=help, min=least)
    return Parameter(name, Parameter.KEYWORD_ONLY, default=option, annotation=kind | None)


def _shared(name: str, annotation: Any, default: Any = None) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


_RECIPE: Any = typer.Argument(
    None, help="A YAML file of these options, or one of `mm train recipes`; flags win."
)
_SHARED = (
    _shared("recipe", Path | None, _RECIPE),
    _flag("data", str, "Rows to learn from."),
    _flag("eval_data", str, "Rows held out."),
    _flag("model", str, "`tiny`, a hub id, or a local folder."),
    _flag("output", str, "Folder for the trained model."),
    _flag("max_minutes", float, "Be done by then."),
    _flag("max_steps", int, "Be done by then.", least=1),
    _flag("epochs", float, "How often to see each row."),
    _flag("learning_rate", float, "At its highest."),
    _flag("batch_tokens", int, "Tokens in a batch.", least=1),
    _flag("optimizer", str, "adamw or muon."),
    _flag("quantize", str, "4bit or 8bit weights under an adapter (QLoRA)."),
    _flag("lora", bool, "An adapter, or all weights.", "--lora/--full"),
    _flag("lora_rank", int, "Of the adapter.", least=1),
    _flag("vision", bool, "Train the vision tower too.", "--vision/--no-vision"),
    _flag("compile", bool, "Compile the decoder.", "--compile/--no-compile"),
    _flag("blind", bool, "Show grey pictures: a control.", "--blind"),
    _flag("looks", str, "How replies look again: tool, inline or replay."),
    _flag("seed", int, "Of the order of rows."),
    _flag("report_to", str, "Log to tensorboard or trackio too."),
    _shared("device", Device),
    _flag("format", str, "How rows are written; auto tells."),
    _flag("ignore", str, "Columns to leave unread, names between commas."),
    _shared("allow_absolute_paths", AbsolutePaths),
    _shared("allow_urls", Urls),
    _shared("dry_run", bool, typer.Option(False, "--dry-run", help="Check all, train nothing.")),
    _shared("resume", bool, typer.Option(False, "--resume", help="Go on where it was cut off.")),
)
_ADDED_UP = _flag("accumulate", int, "Batches that a step adds up.", least=1)
_NEAR = _flag("beta", float, "How close to stay to the start.")
_SAMPLED = (
    _NEAR,
    _flag("strategy", str, "How answers are sampled; zoom by default."),
    _flag("rewards", str, "Such as r-grpo, or accuracy + 0.5*looked@accuracy.", "--reward"),
    _flag("prompts", int, "Questions in a step.", least=1),
    _flag("group", int, "Answers to each.", least=2),
    _flag("iterations", int, "How often each answer is learnt from.", least=1),
    _flag("temperature", float, "Of answers."),
    _flag("max_looks", int, "In an answer.", least=0),
    _flag("max_tokens", int, "In a reply.", least=1),
    _flag("loss", str, "grpo, dapo, dr_grpo, gspo or gppo."),
    _flag("clip_low", float, "How far a probability may fall; 0.2 by default."),
    _flag("clip_high", float, "How far it may rise; 0.2 by default."),
)


def _add(method: str, help: str, *own: Parameter) -> None:
    """The command `method`, with the flags `own` besides those that all share."""

    def command(recipe: Path | None, dry_run: bool, resume: bool, **given: Any) -> None:
        _run(recipe, {"method": method, **given}, dry_run=dry_run, resume=resume)

    made: Any = command
    made.__signature__ = Signature([*_SHARED, *own])  # which typer reads
    train.command(method, help=help)(made)


_add(
    "sft",
    "Learn the replies of rows by heart (supervised fine-tuning).",
    _ADDED_UP,
    _flag("box_loss", float, "With --looks replay: VGR's box loss, weighed so."),
)
_add(
    "dpo",
    "Learn to prefer the chosen side of pairs (direct preference optimisation).",
    _ADDED_UP,
    _NEAR,
)
_add(
    "grpo",
    "Learn from rewards of the model's own answers, looks included (GRPO).",
    *_SAMPLED,
)


@train.command()
def recipes() -> None:
    """The recipes that come along, by name."""
    from training.finetune.recipe import shipped

    for name, about in shipped().items():
        print(f"{name:16} {about}")


def _run(recipe: Path | None, given: Mapping[str, Any], *, dry_run: bool, resume: bool) -> None:
    with needs_train("mm train"):
        from training.finetune.run import train as run
    from training.finetune.recipe import load_recipe

    made = load_recipe(recipe, given)
    sampled = made.method == "grpo"
    by = strategy_named(made.strategy) if sampled else strategy_named("direct")
    run(made, strategy=by, dry_run=dry_run, resume=resume)
