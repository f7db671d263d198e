"""`mm train`: from a file of rows to a model that `mm ask --model` takes."""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from transformers import set_seed
from transformers.trainer_callback import PrinterCallback

from mm.local.adapters import is_adapter
from mm.local.hf_vlm import HFVLM
from mm.session import Strategy
from mm.strategies.single import direct
from training.batching.collator import Collator
from training.batching.image_features import FrozenFeatureCache, encode_images
from training.trainers.course import Course, Rows
from training.trainers.schedule import Pace
from vision.verifier import write_verifier

from .methods import Method, method_of
from .output_folder import (
    CHECKPOINTS,
    CHOICES,
    LOG,
    begin_run,
    begun_run,
    clear_for,
    finish,
    is_finished,
    last_checkpoint,
    refusing_full_disk,
    save_model,
)
from .plan import Plan, make_plan, prepare_model
from .progress import Progress, gathered_if_sharded, plot_losses, plot_rewards
from .recipe import Recipe
from .setup import load_trainable, read_rows, split, training_arguments
from .taught_verifier import taught_verifier

if TYPE_CHECKING:
    from .held_out import HeldOut

CHECKED = 256
"""The most held-out rows whose loss is taken while training."""

SAVING = 0.06
"""The share of `max_minutes` that is left for saving and judging the result."""


@dataclass(frozen=True)
class Training:
    """A training with everything that it needs.

    Attributes:
        plan: the recipe, and every choice.
        questions: held-out rows that can be asked and judged; None where no row is held out.
    """

    plan: Plan
    vlm: HFVLM
    method: Method
    rows: Rows
    held_out: Rows | None
    questions: HeldOut | None
    folder: Path

    def lines(self) -> list[str]:
        """What a person may want to know before it begins."""
        lines = self.plan.lines(self.rows, self.held_out)
        if self.questions is not None and self.questions.unjudged:
            lines.append(
                f"held out: {self.questions.unjudged} rows have no answer that can be judged: "
                "they count for the loss alone (a column answer would say what is right)"
            )
        return lines

    def record(self, processes: int) -> dict[str, Any]:
        """What must be the same when the training goes on."""
        known = [each for each in (self.rows, self.held_out) if each]
        rows = [(each.lengths, each.images) for each in known]
        targets = [list(each.targets) for each in known]
        return {
            "choices": {name: getattr(self.plan, name) for name in CHOICES},
            "processes": processes,
            "rows": zlib.crc32(json.dumps(rows).encode()),
            "targets": zlib.crc32(json.dumps(targets).encode()),
        }


def train(
    recipe: Recipe,
    *,
    strategy: Strategy = direct,
    dry_run: bool = False,
    resume: bool = False,
) -> None:
    """Train as `recipe` says, into its output folder; grpo samples answers by `strategy`.

    Raises:
        BadData: a row cannot be learnt from, or the output folder holds something else.
        ModelUnavailable: the model cannot be loaded, or cannot be trained.
    """
    folder = Path(recipe.output)
    if is_finished(folder, recipe, resume=resume):
        print(f"{folder} is trained to its end: mm ask --model {folder}", file=sys.stderr)
        return
    begun = begun_run(folder)
    pace = Pace(60 * recipe.max_minutes * (1 - SAVING) if recipe.max_minutes else None)
    processes = PartialState(cpu=recipe.device == "cpu" or not torch.cuda.is_available())
    training = _prepared(recipe, strategy, processes, begun)
    if processes.is_main_process:
        print(*training.lines(), sep="\n", file=sys.stderr)
    if dry_run:
        return
    with refusing_full_disk(folder):
        _run(training, pace, processes, resume=begun is not None)


def _run(training: Training, pace: Pace, processes: PartialState, *, resume: bool) -> None:
    """Train, save, and measure the result."""
    folder = training.folder
    with processes.main_process_first():
        if processes.is_main_process:
            begin_run(folder, training.plan.recipe, training.record(processes.num_processes))
        checkpoint = last_checkpoint(folder)
    processes.wait_for_everyone()  # before anything is removed that others read
    if resume and processes.is_main_process:
        clear_for(folder, checkpoint)
    if checkpoint:
        pace.spend(checkpoint.seconds, checkpoint.preparing)
    trainer = _trainer(training, pace)
    trainer.train(resume_from_checkpoint=str(checkpoint.folder) if checkpoint else None)
    save_model(trainer, training.plan, folder)
    with gathered_if_sharded(trainer.model):
        if processes.is_main_process:
            if is_adapter(folder) and training.plan.recipe.method == "dpo":
                pairs = (training.rows.data[index] for index in training.rows.chosen)
                write_verifier(folder, taught_verifier(pairs))
            finish(folder, _end(training))


def _prepared(
    recipe: Recipe,
    strategy: Strategy,
    processes: PartialState,
    begun: Mapping[str, Any] | None,
) -> Training:
    """The model loaded, every choice made, or kept as it was `begun` with, all rows read."""
    vlm = load_trainable(recipe, processes)
    plan = make_plan(recipe, vlm.engine.model)
    if begun:
        plan = replace(plan, **begun["choices"])
    method = method_of(plan, vlm, strategy)
    rows = read_rows(plan, recipe.data, vlm, method.build)
    if recipe.eval_data:
        held_out = read_rows(plan, recipe.eval_data, vlm, method.build)
    else:
        rows, held_out = split(rows)
    questions = _questions(plan, held_out) if held_out else None
    return Training(plan, vlm, method, rows, held_out, questions, Path(recipe.output))


def _questions(plan: Plan, held_out: Rows) -> HeldOut:
    from .held_out import held_out_questions

    return held_out_questions(plan, held_out)


def _trainer(training: Training, pace: Pace) -> Any:
    method, plan, vlm = training.method, training.plan, training.vlm
    course = _course(training, pace)
    args = training_arguments(
        method.config,
        plan,
        training.folder / CHECKPOINTS,
        best_metric=method.best_metric if course.held_out else None,
        **method.options(plan, course.train),
    )
    set_seed(plan.recipe.seed)  # an adapter begins at random
    model = prepare_model(vlm.engine.model, plan)
    trainer = method.trainer(model, args, course, vlm.builder.tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_progress(training, pace))
    if plan.sharded:
        from training.trainers.fsdp import shard

        shard(trainer.model, bf16=plan.autocast)
    return trainer


def _course(training: Training, pace: Pace) -> Course:
    plan = training.plan
    return Course(
        train=training.rows,
        held_out=training.held_out.thinned(CHECKED) if training.held_out else None,
        collator=Collator(training.vlm.builder),
        encode=encode_images if plan.vision else FrozenFeatureCache(plan.memory // 8),
        pace=pace,
        budget=plan.batch_tokens,
        muon=plan.muon,
        box_loss=plan.recipe.box_loss,
    )


def _progress(training: Training, pace: Pace) -> Progress:
    return Progress(
        pace,
        training.folder / LOG,
        len(training.rows),
        training.held_out is not None,
        partial(_sample_replies, training) if training.questions else None,
        labels=training.method.labels,
        every=training.plan.recipe.iterations,
    )


def _sample_replies(training: Training) -> Sequence[str]:
    from .held_out import sample_replies

    if not training.questions:
        return ()
    return sample_replies(training.vlm, training.questions, training.method.strategy)


def _end(training: Training) -> dict[str, Any]:
    """Plot the log, and measure the accuracy of the result."""
    folder, result = training.folder, {}
    plot_losses(folder / LOG, folder / "losses.png")
    if training.plan.recipe.method == "grpo":
        plot_rewards(folder / LOG, folder / "rewards.png")
    if training.questions:
        from .held_out import accuracy

        share = accuracy(training.vlm, training.questions, training.method.strategy)
        result = {"accuracy": share.value, "questions": len(training.questions)}
        print(
            f"held out: {100 * share.value:.1f} % right ({100 * share.low:.1f} to "
            f"{100 * share.high:.1f}) of {len(training.questions)}",
            file=sys.stderr,
        )
    print(f'done: mm ask IMAGE "QUESTION" --model {folder}', file=sys.stderr)
    return result
