"""`mm train`: from a file of rows to a model that `mm ask --model` takes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import set_seed
from transformers.trainer_callback import PrinterCallback

from mm.local.hf_vlm import HFVLM
from mm.session import Strategy
from mm.strategies.single import direct
from training.batching.image_features import FrozenFeatureCache, see
from training.evaluation.questions import Questions
from training.trainers.course import Course, Rows
from training.trainers.fsdp import is_sharded, shard, whole
from training.trainers.schedule import Pace

from .held_out import ASKED, judge, questions_of, samples
from .methods import Method, bound, method_of
from .output_folder import CHECKPOINTS, LOG, begin_output, save_model, spent_before
from .plan import Plan, make_plan, prepare_model
from .progress import Progress, plot_losses, plot_rewards
from .recipe import Recipe
from .setup import arguments, asked, load_trainable, read_rows, split

CHECKED = 256
"""The most held-out rows whose loss is taken while training."""

SAVING = 0.06
"""The share of `max_minutes` that is kept for saving and judging the result."""


@dataclass(frozen=True)
class Training:
    """A training, planned.

    Attributes:
        answers: how what is held out is asked.
    """

    recipe: Recipe
    vlm: HFVLM
    way: Method
    plan: Plan
    rows: Rows
    held_out: Rows | None
    answers: Strategy

    @property
    def folder(self) -> Path:
        """Where the result goes."""
        return Path(self.recipe.output)

    @property
    def watched(self) -> Rows | None:
        """What is held out, as far as it is looked at while training."""
        return self.held_out.thinned(CHECKED) if self.held_out else None

    def questions(self, most: int = 500) -> Questions | None:
        """At most so many of the held-out rows as questions."""
        return questions_of(asked(self.recipe, self.held_out), most=most) if self.held_out else None


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
    training = _planned(recipe, strategy, processes)
    if processes.is_main_process:
        print(*training.plan.lines(training.rows, training.held_out), sep="\n", file=sys.stderr)
    if dry_run:
        return
    with processes.main_process_first():
        if processes.is_main_process:
            begin_output(training.folder, recipe, resume=resume)
    pace.spend(spent_before(training.folder) if resume else 0.0)
    trainer = _trainer(training, pace)
    trainer.train(resume_from_checkpoint=resume or None)
    save_model(trainer, recipe, training.folder)
    with whole(trainer.model):
        if processes.is_main_process:
            _end(training)


def _planned(recipe: Recipe, strategy: Strategy, processes: PartialState) -> Training:
    """The model loaded, all rows read, and every choice made."""
    vlm = load_trainable(recipe, processes)
    way = method_of(recipe, vlm, strategy)
    rows = read_rows(recipe, recipe.data, vlm, way.length)
    if recipe.eval_data:
        held_out = read_rows(recipe, recipe.eval_data, vlm, way.length)
    else:
        rows, held_out = split(rows)
    plan = make_plan(recipe, vlm.engine.model)
    by_heart = recipe.looks if recipe.method != "grpo" else None
    answers = ASKED[by_heart] if by_heart else bound(strategy, recipe)
    return Training(recipe, vlm, way, plan, rows, held_out, answers)


def _trainer(training: Training, pace: Pace) -> Any:
    recipe, way, plan, vlm = training.recipe, training.way, training.plan, training.vlm
    course = _course(training, pace)
    best = way.best if course.held_out else None
    more = way.options(recipe, plan, course.train)
    args = arguments(way.config, recipe, plan, training.folder / CHECKPOINTS, best=best, **more)
    set_seed(recipe.seed)  # an adapter begins at random
    model = prepare_model(vlm.engine.model, recipe, plan)
    trainer = way.trainer(model, args, course, vlm.builder.tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_progress(training, pace))
    if is_sharded():
        shard(trainer.model, bf16=plan.autocast)
    return trainer


def _course(training: Training, pace: Pace) -> Course:
    recipe, plan = training.recipe, training.plan
    return Course(
        train=training.rows,
        held_out=training.watched,
        collate=training.way.collate,
        see=see if plan.vision else FrozenFeatureCache(plan.memory // 8),
        pace=pace,
        budget=plan.batch_tokens,
        muon=plan.muon,
        box_loss=recipe.box_loss,
    )


def _progress(training: Training, pace: Pace) -> Progress:
    questions = training.questions(most=3)
    return Progress(
        pace,
        training.folder / LOG,
        len(training.rows),
        training.held_out is not None,
        partial(samples, training.vlm, questions, training.answers) if questions else None,
        words=training.way.words,
        every=training.recipe.iterations,
    )


def _end(training: Training) -> None:
    """Plot, and judge what was learnt."""
    folder, recipe = training.folder, training.recipe
    plot_losses(folder / LOG, folder / "losses.png")
    if recipe.method == "grpo":
        plot_rewards(folder / LOG, folder / "rewards.png")
    if questions := training.questions():
        share = judge(training.vlm, questions, training.answers)
        print(
            f"held out: {100 * share.value:.1f} % right ({100 * share.low:.1f} to "
            f"{100 * share.high:.1f}) of {len(questions)}",
            file=sys.stderr,
        )
    print(f'done: mm ask PICTURE "QUESTION" --model {recipe.output}', file=sys.stderr)
