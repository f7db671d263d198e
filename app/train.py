"""`mm train`: fine-tuning on one's own rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .data import bad_data
from .mistakes import needs_train
from .options import AbsolutePaths, Device, Urls
from .strategies import strategy_named

METHODS = {
    "sft": "Learn the replies of rows by heart (supervised fine-tuning).",
    "dpo": "Learn to prefer the chosen side of pairs (direct preference optimisation).",
    "grpo": "Learn from rewards of the model's own answers, looks included (GRPO).",
}

train = typer.Typer(help="Fine-tune a model on your own data.", no_args_is_help=True)


def _add(method: str, help: str) -> None:
    @train.command(method, help=help)
    def command(
        recipe: Annotated[
            Path | None,
            typer.Argument(
                help="A YAML file of these options, or one of `mm train recipes`; flags win."
            ),
        ] = None,
        data: Annotated[str | None, typer.Option(help="Rows to learn from.")] = None,
        eval_data: Annotated[str | None, typer.Option(help="Rows held out.")] = None,
        model: Annotated[
            str | None, typer.Option(help="`tiny`, a hub id, or a local folder.")
        ] = None,
        output: Annotated[str | None, typer.Option(help="Folder for the trained model.")] = None,
        max_minutes: Annotated[float | None, typer.Option(help="Be done by then.")] = None,
        max_steps: Annotated[int | None, typer.Option(min=1, help="Be done by then.")] = None,
        epochs: Annotated[float | None, typer.Option(help="How often to see each row.")] = None,
        learning_rate: Annotated[float | None, typer.Option(help="At its highest.")] = None,
        batch_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens in a batch.")] = None,
        accumulate: Annotated[
            int | None, typer.Option(min=1, help="Batches that a step adds up.")
        ] = None,
        optimizer: Annotated[str | None, typer.Option(help="adamw or muon.")] = None,
        quantize: Annotated[
            str | None, typer.Option(help="4bit or 8bit weights under an adapter (QLoRA).")
        ] = None,
        lora: Annotated[
            bool | None, typer.Option("--lora/--full", help="An adapter, or all weights.")
        ] = None,
        lora_rank: Annotated[int | None, typer.Option(min=1, help="Of the adapter.")] = None,
        vision: Annotated[
            bool | None, typer.Option("--vision/--no-vision", help="Train the vision tower too.")
        ] = None,
        compile: Annotated[
            bool | None, typer.Option("--compile/--no-compile", help="Compile the decoder.")
        ] = None,
        blind: Annotated[
            bool | None, typer.Option("--blind", help="Show grey pictures: a control.")
        ] = None,
        beta: Annotated[
            float | None, typer.Option(help="dpo, grpo: how close to stay to the start.")
        ] = None,
        strategy: Annotated[
            str | None, typer.Option(help="grpo: how answers are sampled; zoom by default.")
        ] = None,
        rewards: Annotated[
            str | None,
            typer.Option(
                "--reward", help="grpo: such as r-grpo, or accuracy + 0.5*looked@accuracy."
            ),
        ] = None,
        prompts: Annotated[
            int | None, typer.Option(min=1, help="grpo: questions in a step.")
        ] = None,
        group: Annotated[int | None, typer.Option(min=2, help="grpo: answers to each.")] = None,
        iterations: Annotated[
            int | None, typer.Option(min=1, help="grpo: how often each answer is learnt from.")
        ] = None,
        temperature: Annotated[float | None, typer.Option(help="grpo: of answers.")] = None,
        max_looks: Annotated[int | None, typer.Option(min=0, help="grpo: in an answer.")] = None,
        max_tokens: Annotated[int | None, typer.Option(min=1, help="grpo: in a reply.")] = None,
        loss: Annotated[
            str | None, typer.Option(help="grpo: grpo, dapo, dr_grpo, gspo or gppo.")
        ] = None,
        clip_low: Annotated[float | None, typer.Option(help="grpo: 0.2 by default.")] = None,
        clip_high: Annotated[float | None, typer.Option(help="grpo: 0.2 by default.")] = None,
        looks: Annotated[
            str | None, typer.Option(help="How replies look again: tool, inline or replay.")
        ] = None,
        box_loss: Annotated[
            float | None, typer.Option(help="sft, --looks replay: VGR's box loss, weighed so.")
        ] = None,
        seed: Annotated[int | None, typer.Option(help="Of the order of rows.")] = None,
        report_to: Annotated[
            str | None, typer.Option(help="Log to tensorboard or trackio too.")
        ] = None,
        device: Device = None,
        format: Annotated[str | None, typer.Option(help="How rows are written; auto tells.")] = (
            None
        ),
        allow_absolute_paths: AbsolutePaths = False,
        allow_urls: Urls = False,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Check everything, train nothing.")
        ] = False,
        resume: Annotated[
            bool, typer.Option("--resume", help="Go on where it was cut off.")
        ] = False,
    ) -> None:
        given = {
            "method": method,
            "data": data,
            "eval_data": eval_data,
            "model": model,
            "output": output,
            "max_minutes": max_minutes,
            "max_steps": max_steps,
            "epochs": epochs,
            "learning_rate": learning_rate,
            "batch_tokens": batch_tokens,
            "accumulate": accumulate,
            "optimizer": optimizer,
            "quantize": quantize,
            "lora": lora,
            "lora_rank": lora_rank,
            "vision": vision,
            "compile": compile,
            "blind": blind,
            "beta": beta,
            "strategy": strategy,
            "rewards": rewards,
            "prompts": prompts,
            "group": group,
            "iterations": iterations,
            "temperature": temperature,
            "max_looks": max_looks,
            "max_tokens": max_tokens,
            "loss": loss,
            "clip_low": clip_low,
            "clip_high": clip_high,
            "looks": looks,
            "box_loss": box_loss,
            "seed": seed,
            "device": device,
            "report_to": report_to,
            "format": format,
            "allow_absolute_paths": allow_absolute_paths or None,
            "allow_urls": allow_urls or None,
        }
        _run(recipe, given, dry_run=dry_run, resume=resume)


for _method, _help in METHODS.items():
    _add(_method, _help)


@train.command()
def recipes() -> None:
    """The recipes that come along, by name."""
    from training.recipe import shipped

    for name, about in shipped().items():
        print(f"{name:16} {about}")


def _run(recipe: Path | None, given: dict[str, object], *, dry_run: bool, resume: bool) -> None:
    with needs_train("mm train"):
        from training.run import train as run
    from training.recipe import load_recipe

    with bad_data():
        made = load_recipe(recipe, given)
        sampled = made.method == "grpo"
        by = strategy_named(made.strategy) if sampled else strategy_named("direct")
        run(made, strategy=by, dry_run=dry_run, resume=resume)
