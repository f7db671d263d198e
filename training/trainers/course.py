"""What every trainer trains on: rows by token budget, a learning rate that knows the clock."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME

from training.batching.batch_sampler import TokenBatches
from training.batching.built_rows import BuiltRows
from training.batching.collator import Batch, Collator, forward_inputs
from training.batching.image_features import EncodeImages
from training.data import DataSet
from training.muon import muon

from .checkpoints import ASIDE, Checkpoint, path_of, prune, seal
from .model_parts import bare
from .schedule import Pace

IMAGES, POINTED = "images", "pointed"


@dataclass(frozen=True)
class Rows:
    """Rows to train on, or held out.

    Attributes:
        built: all rows of the data set.
        chosen: indices of the rows in this selection.
        lengths: tokens that each takes, padded within its row.
        images: the ids of the images of each.
        targets: a checksum of what each teaches: its ids, those that train, and what is right.
    """

    built: BuiltRows
    chosen: Sequence[int]
    lengths: Sequence[int]
    images: Sequence[Sequence[str]]
    targets: Sequence[int]

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def data(self) -> DataSet:
        return self.built.data

    def some(self, wanted: Sequence[bool]) -> Rows:
        """Those that are `wanted`."""
        return Rows(
            self.built,
            list(compress(self.chosen, wanted)),
            list(compress(self.lengths, wanted)),
            list(compress(self.images, wanted)),
            list(compress(self.targets, wanted)),
        )

    def thinned(self, most: int) -> Rows:
        """Of more than `most` so many by chance, in order: any stride may fit a pattern in them."""
        if len(self) <= most:
            return self
        drawn = set(random.Random(0).sample(range(len(self)), most))
        return self.some([at in drawn for at in range(len(self))])

    @property
    def dataset(self) -> Dataset:
        """Indices alone: TRL wants a data set, the rows are read when they are collated."""
        return Dataset.from_dict({"index": list(self.chosen)})


@dataclass(frozen=True)
class Course:
    """What a trainer trains on, and how fast.

    Attributes:
        collator: makes batches of built rows.
        encode: encodes the images of a batch.
        budget: padded tokens in a batch.
        muon: Muon for the matrices that it fits, else AdamW alone.
        box_loss: the weight of VGR's box loss, where completions point at regions; 0 for none.
    """

    train: Rows
    held_out: Rows | None
    collator: Collator
    encode: EncodeImages
    pace: Pace
    budget: int
    muon: bool = False
    box_loss: float = 0.0


class CourseTrainer(Trainer):
    """A trainer of transformers that follows a `Course`; a subclass takes TRL's as its second base.

    Its loaders, optimizer and schedule are the course's, in place of TRL's.
    """

    course: Course
    set_epoch: Callable[[int], None]
    """Has the sampler of the rows use the order of an epoch."""

    _aside: str | None = None

    def get_train_dataloader(self) -> DataLoader[Any]:
        batches = self._batches_of(self.course.train, shuffle=True)
        self.set_epoch = batches.set_epoch
        return self._loader(self.course.train, batches)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        if self.course.held_out is None:
            raise ValueError("evaluation needs held-out rows, found none")
        batches = self._batches_of(self.course.held_out, shuffle=False)
        return self._loader(self.course.held_out, batches)

    def create_optimizer(self, model: Any = None) -> Optimizer:
        if self.optimizer is None and self.course.muon:
            trained: Any = model or self.model
            self.optimizer = muon(trained, self.args.learning_rate, self.args.weight_decay)
        return super().create_optimizer(model)

    def create_scheduler(
        self, num_training_steps: int, optimizer: Optimizer | None = None
    ) -> LRScheduler:
        """A rate that falls with the steps or with the time, whichever runs out first."""
        if self.lr_scheduler is None:
            share = partial(self.course.pace.rate_share, steps=num_training_steps)
            scheduled: Any = optimizer or self.optimizer
            self.lr_scheduler = LambdaLR(scheduled, share)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _get_output_dir(self, trial: Any) -> str:
        return self._aside or super()._get_output_dir(trial)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As transformers does, but aside, and moved into place once it is whole."""
        folder, step = Path(str(self.args.output_dir)), self.state.global_step
        if self.args.should_save:
            shutil.rmtree(folder / ASIDE, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._aside = str(folder / ASIDE)
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._aside = None
        self.accelerator.wait_for_everyone()
        best = self.state.best_global_step or None
        self.state.best_model_checkpoint = str(path_of(folder, best)) if best else None
        if self.args.should_save:
            written = path_of(folder / ASIDE, step)
            self.state.save_to_json(str(written / TRAINER_STATE_NAME))
            pace = self.course.pace
            place = path_of(folder, step)
            seal(written, Checkpoint(place, step, pace.spent_s, best, pace.preparing_s))
            prune(folder)
        self.accelerator.wait_for_everyone()

    def _run_epoch(self, *args: Any, epoch: int, **kw: Any) -> None:
        """An epoch, unless a training that goes on has come to its end already."""
        step, steps = self.state.global_step, self.state.max_steps
        if step and self.course.pace.done(step, steps) >= 1:
            self.control.should_training_stop = True
            return
        self.set_epoch(epoch)  # resumed in several processes, Trainer's own does not reach it
        super()._run_epoch(*args, epoch=epoch, **kw)

    def model_inputs(self, model: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What `model` takes for a batch that `as_mapping` made, its images encoded."""
        tensors = {k: v for k, v in batch.items() if k not in (IMAGES, POINTED, "labels")}
        built = Batch(tensors, batch["labels"], tuple(batch[IMAGES]))
        with self.accelerator.autocast():  # they are encoded here, not in the forward
            return forward_inputs(bare(model), built, self.course.encode)

    def _batches_of(self, rows: Rows, *, shuffle: bool) -> TokenBatches:
        args = self.args
        together = args.world_size * (args.gradient_accumulation_steps if shuffle else 1)
        return TokenBatches(
            rows.lengths, self.course.budget, shuffle=shuffle, seed=args.seed, together=together
        )

    def _loader(self, rows: Rows, batches: TokenBatches) -> DataLoader[Any]:
        indices: Any = rows.dataset
        loader = DataLoader(
            indices,
            batch_sampler=batches,
            collate_fn=partial(collate, rows.built, self.course.collator),
        )
        return self.accelerator.prepare(loader)


def collate(
    rows: BuiltRows, collator: Collator, examples: Sequence[Mapping[str, int]]
) -> dict[str, Any]:
    """The batch of the `rows` that `examples` name by index, as one mapping."""
    return as_mapping(collator.join_sides(rows.take([example["index"] for example in examples])))


def as_mapping(batch: Batch) -> dict[str, Any]:
    """`batch` as one mapping, as TRL's trainers hand it on."""
    return {
        **batch.inputs,
        "labels": batch.labels,
        IMAGES: list(batch.images),
        POINTED: batch.pointed,
    }


def trainer_data(course: Course, tokenizer: Any) -> dict[str, Any]:
    """What TRL must be given of the data, which our loaders read."""
    return {
        "data_collator": partial(collate, course.train.built, course.collator),
        "train_dataset": course.train.dataset,
        "eval_dataset": course.held_out.dataset if course.held_out else None,
        "processing_class": tokenizer,
    }
