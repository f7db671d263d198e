"""What every trainer trains on: rows by token budget, a rate that knows the clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any, Protocol

from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from training.batching.batch_sampler import TokenBatches
from training.batching.collator import Batch, forward_inputs
from training.batching.image_features import See
from training.data import DataSet, Row
from training.muon import muon

from .model_parts import bare
from .schedule import Pace, rate_share

PICTURES, POINTED = "pictures", "pointed"


class Collates(Protocol):
    """Makes a batch of rows."""

    def __call__(self, rows: Sequence[Row]) -> Batch: ...


@dataclass(frozen=True)
class Rows:
    """Rows to train on, or to be judged by.

    Attributes:
        chosen: indices of those of `data` that are meant.
        lengths: tokens that each takes.
        keys: what names the picture of each.
    """

    data: DataSet
    chosen: Sequence[int]
    lengths: Sequence[int]
    keys: Sequence[str]

    def __len__(self) -> int:
        return len(self.chosen)

    def some(self, wanted: Sequence[bool]) -> Rows:
        """Those that are `wanted`."""
        return Rows(
            self.data,
            list(compress(self.chosen, wanted)),
            list(compress(self.lengths, wanted)),
            list(compress(self.keys, wanted)),
        )

    def thinned(self, most: int) -> Rows:
        """At most so many of them, evenly spaced."""
        step = -(-len(self) // most)
        return self.some([at % step == 0 for at in range(len(self))])

    @property
    def dataset(self) -> Dataset:
        """Indices alone: TRL wants a data set, the rows are read by the collator."""
        return Dataset.from_dict({"index": list(self.chosen)})


@dataclass(frozen=True)
class Course:
    """What a trainer trains on, and how fast.

    Attributes:
        collate: makes a batch of rows.
        see: encodes a batch's pictures.
        budget: padded tokens in a batch.
        muon: Muon where it can, else AdamW alone.
        box_loss: the weight of VGR's box loss, where replies point at regions; 0 for none.
    """

    train: Rows
    held_out: Rows | None
    collate: Collates
    see: See
    pace: Pace
    budget: int
    muon: bool = False
    box_loss: float = 0.0


class OnCourse:
    """A trainer of transformers that goes by a `Course`."""

    course: Course

    def get_train_dataloader(self: Any) -> DataLoader[Any]:
        return _loader(self, self.course.train, shuffle=True)

    def get_eval_dataloader(self: Any, eval_dataset: Any = None) -> DataLoader[Any]:
        return _loader(self, self.course.held_out, shuffle=False)

    def create_optimizer(self: Any, model: Any = None) -> Any:
        if self.optimizer is None and self.course.muon:
            of = model or self.model
            self.optimizer = muon(of, self.args.learning_rate, self.args.weight_decay)
        return super().create_optimizer(model)  # type: ignore[misc]

    def create_scheduler(self: Any, num_training_steps: int, optimizer: Any = None) -> Any:
        """A rate that falls with the steps or with the time, whichever runs out first."""
        if self.lr_scheduler is None:
            share = partial(_share, self.course.pace, num_training_steps)
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, share)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def save_model(self: Any, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As transformers does, which looks whether the best checkpoint's folder is there before a
        sharded one is written into it."""
        if output_dir:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
        super().save_model(output_dir, _internal_call)  # type: ignore[misc]

    def inputs(self: Any, model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What `model` takes for a batch, its pictures encoded."""
        with self.accelerator.autocast():  # they are encoded here, not in the forward
            return prepared(model, inputs, self.course.see)


def collate(
    data: DataSet, collates: Collates, examples: Sequence[Mapping[str, int]]
) -> dict[str, Any]:
    """The batch of the rows of `data` that `examples` name by index, as one mapping."""
    return collated(collates([data[example["index"]] for example in examples]))


def collated(batch: Batch) -> dict[str, Any]:
    """`batch` as one mapping, as TRL's trainers hand it on."""
    return {
        **batch.inputs,
        "labels": batch.labels,
        PICTURES: list(batch.pictures),
        POINTED: batch.pointed,
    }


def prepared(model: Any, inputs: Mapping[str, Any], see: See) -> dict[str, Any]:
    """What `model` takes for a batch that `collate` made."""
    rest = {k: v for k, v in inputs.items() if k not in (PICTURES, POINTED, "labels")}
    batch = Batch(rest, inputs["labels"], tuple(inputs[PICTURES]))
    return forward_inputs(bare(model), batch, see)


def trainer_data(course: Course, tokenizer: Any) -> dict[str, Any]:
    """What TRL must be told of the data, which our loaders read."""
    return {
        "data_collator": partial(collate, course.train.data, course.collate),
        "train_dataset": course.train.dataset,
        "eval_dataset": course.held_out.dataset if course.held_out else None,
        "processing_class": tokenizer,
    }


def _loader(trainer: Any, rows: Rows | None, *, shuffle: bool) -> DataLoader[Any]:
    assert rows, "there are no held-out rows"
    args, course = trainer.args, trainer.course
    together = args.world_size * (args.gradient_accumulation_steps if shuffle else 1)
    batches = TokenBatches(
        rows.lengths, course.budget, shuffle=shuffle, seed=args.seed, together=together
    )
    indices: Any = rows.dataset
    loader = DataLoader(
        indices,
        batch_sampler=batches,
        collate_fn=partial(collate, rows.data, course.collate),
    )
    return trainer.accelerator.prepare(loader)


def _share(pace: Pace, steps: int, step: int) -> float:
    return rate_share(pace.done(step, steps))
