"""`mm train`: from a file of rows to a model that `mm ask --model` takes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import set_seed
from transformers.trainer_callback import PrinterCallback

from mm.model import HFVLM
from mm.session import Strategy
from mm.strategies import direct
from training.judge import ASKED, judge, questions_of, samples
from training.pace import Pace
from training.plan import Plan, make_plan, prepare_model
from training.progress import Progress, plot_losses, plot_rewards
from training.recipe import Recipe
from training.saving import CHECKPOINTS, LOG, begin_output, save_model, spent_before
from training.seeing import SeenOnce, see
from training.setup import arguments, asked, load_trainable, read_rows, split
from training.trainer import Course, Rows
from training.ways import Way, bound, way_of

CHECKED = 256
"""The most held-out rows whose loss is taken while training."""

SAVING = 0.06
"""The share of `max_minutes` that is kept for saving and judging the result."""


def train(
    recipe: Recipe,
    *,
    strategy: Strategy = direct,
    dry_run: bool = False,
    resume: bool = False,
) -> None:
    """Train as `recipe` says, into its output folder; `strategy` answers what is asked meanwhile.

    Raises:
        BadData: a row cannot be learnt from, or the output folder holds something else.
        ModelUnavailable: the model cannot be loaded, or cannot be trained.
    """
    pace = Pace(60 * recipe.max_minutes * (1 - SAVING) if recipe.max_minutes else None)
    processes = PartialState(cpu=recipe.device == "cpu" or not torch.cuda.is_available())
    vlm = load_trainable(recipe, processes)
    way = way_of(recipe, vlm, strategy)
    rows, held_out = _rows(recipe, vlm, way.length)
    plan = make_plan(recipe, vlm.engine.model)
    if processes.is_main_process:
        print(*plan.lines(rows, held_out), sep="\n", file=sys.stderr)
    if dry_run:
        return
    folder = Path(recipe.output)
    with processes.main_process_first():
        if processes.is_main_process:
            begin_output(folder, recipe, resume=resume)
    pace.spend(spent_before(folder) if resume else 0.0)
    watched = held_out.thinned(CHECKED) if held_out else None
    course = Course(
        train=rows,
        held_out=watched,
        collate=way.collate,
        see=see if plan.vision else SeenOnce(plan.memory // 8),
        pace=pace,
        budget=plan.batch_tokens,
        muon=recipe.optimizer == "muon",
        box_loss=recipe.box_loss,
    )
    trainer = _trainer(way, recipe, plan, course, vlm, folder / CHECKPOINTS)
    questions = questions_of(asked(recipe, held_out), most=3) if held_out else None
    answers = ASKED[recipe.looks] if recipe.looks else bound(strategy, recipe)
    told = partial(samples, vlm, questions, answers) if questions else None
    trainer.add_callback(
        Progress(
            pace,
            folder / LOG,
            len(rows),
            watched is not None,
            told,
            words=way.words,
            every=recipe.iterations,
        )
    )
    trainer.train(resume_from_checkpoint=resume or None)
    if processes.is_main_process:
        save_model(trainer, recipe, folder)
        plot_losses(folder / LOG, folder / "losses.png")
        if recipe.method == "grpo":
            plot_rewards(folder / LOG, folder / "rewards.png")
        _say_result(vlm, held_out, recipe, answers)


def _rows(recipe: Recipe, vlm: HFVLM, length: Callable[[Any], int]) -> tuple[Rows, Rows | None]:
    train = read_rows(recipe, recipe.data, vlm, length)
    if recipe.eval_data:
        return train, read_rows(recipe, recipe.eval_data, vlm, length)
    return split(train)


def _trainer(
    way: Way, recipe: Recipe, plan: Plan, course: Course, vlm: HFVLM, checkpoints: Path
) -> Any:
    best = way.best if course.held_out else None
    more = way.options(recipe, plan, course.train)
    args = arguments(way.config, recipe, plan, checkpoints, best=best, **more)
    set_seed(recipe.seed)  # an adapter begins at random
    model = prepare_model(vlm.engine.model, recipe, plan)
    trainer = way.trainer(model, args, course, vlm.builder.tokenizer)
    trainer.remove_callback(PrinterCallback)
    return trainer


def _say_result(vlm: HFVLM, held_out: Rows | None, recipe: Recipe, strategy: Strategy) -> None:
    questions = questions_of(asked(recipe, held_out)) if held_out else None
    if questions:
        share = judge(vlm, questions, strategy)
        print(
            f"held out: {100 * share.value:.1f} % right ({100 * share.low:.1f} to "
            f"{100 * share.high:.1f}) of {len(questions)}",
            file=sys.stderr,
        )
    print(f'done: mm ask PICTURE "QUESTION" --model {recipe.output}', file=sys.stderr)
