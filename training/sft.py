"""`mm train sft`: from a file of rows to a model that `mm ask --model` takes."""

from __future__ import annotations

import sys

from trl.trainer.sft_config import SFTConfig

from training.collate import Collator
from training.pace import Pace
from training.plan import make_plan, prepare_model
from training.progress import Progress, plot_losses
from training.recipe import Recipe
from training.saving import CHECKPOINTS, LOG, begin_output, save_model, spent_before
from training.seeing import SeenOnce, see
from training.setup import arguments, load_trainable, read_rows, split
from training.trainer import Trainer

CHECKED = 256
"""The most held-out rows whose loss is taken while training."""


def train_sft(recipe: Recipe, *, dry_run: bool = False, resume: bool = False) -> None:
    """Train as `recipe` says, into its output folder.

    Raises:
        BadData: a row cannot be learnt from, or the output folder holds something else.
        ModelUnavailable: the model cannot be loaded, or cannot be trained.
    """
    pace = Pace(60 * recipe.max_minutes if recipe.max_minutes else None)
    vlm = load_trainable(recipe)
    collator = Collator(vlm.builder)
    train = read_rows(recipe, recipe.data, vlm, collator.length)
    if recipe.eval_data:
        held_out = read_rows(recipe, recipe.eval_data, vlm, collator.length)
    else:
        train, held_out = split(train)
    held_out = held_out.thinned(CHECKED) if held_out else None
    plan = make_plan(recipe, vlm.engine.model)
    print(*plan.lines(train, held_out), sep="\n", file=sys.stderr)
    if dry_run:
        return
    folder = begin_output(recipe, resume=resume)
    pace.spend(spent_before(folder) if resume else 0.0)
    held = held_out is not None
    trainer = Trainer(
        prepare_model(vlm.engine.model, recipe, plan),
        arguments(SFTConfig, recipe, plan, folder / CHECKPOINTS, held_out=held),
        train=train,
        held_out=held_out,
        collator=collator,
        pace=pace,
        batch_tokens=plan.batch_tokens,
        see=see if plan.vision else SeenOnce(plan.memory // 8),
        use_muon=recipe.optimizer == "muon",
        callbacks=[Progress(pace, folder / LOG, len(train), checks=held)],
    )
    trainer.train(resume_from_checkpoint=resume or None)
    save_model(trainer, recipe, folder)
    plot_losses(folder / LOG, folder / "losses.png")
