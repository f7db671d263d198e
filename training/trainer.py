"""TRL's trainers over our batches: rows by token budget, a rate that knows the clock.

Losses, checkpoints and processes are TRL's and accelerate's; ours are the batches, what the model
takes for them, the optimiser's choice and the schedule.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_trainer import SFTTrainer

from training.batches import TokenBatches
from training.box_loss import BoxTerm
from training.collate import IGNORED, Batch, forward_inputs
from training.data import DataSet, Row
from training.optimisers import muon
from training.pace import Pace, rate_share
from training.parts import bare
from training.seeing import See
from training.sharding import is_sharded, shard

if TYPE_CHECKING:
    from torch import Tensor

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


class SFT(OnCourse, SFTTrainer):
    """Supervised fine-tuning: each row by heart, where it trains."""

    def __init__(self, model: Any, args: Any, course: Course, tokenizer: Any, **kw: Any) -> None:
        self.course = course
        self._boxes = BoxTerm(model) if course.box_loss else None
        super().__init__(model, args, **_data(course, tokenizer), **kw)
        self._trained: Tensor | None = None
        bare(self.model).base_model.register_forward_hook(self._keep_trained)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kw: Any) -> Any:
        """The mean cross-entropy of the trained tokens of a batch; in training also the box loss
        of the regions that it points at.

        The head reads those tokens alone: without Triton, TRL's would score every token.
        """
        made = self.inputs(model, inputs)
        labels = made.pop("labels")[:, 1:]
        self._trained = labels != IGNORED
        made["shift_labels"] = labels[self._trained][None]
        if self._boxes is None:
            return super().compute_loss(model, made, *args, **kw)
        self._boxes.pointed = inputs[POINTED] if model.training else ()
        loss = super().compute_loss(model, made, *args, **kw)
        return self._with_boxes(loss, self._boxes.loss)

    def _with_boxes(self, loss: Any, boxes: Tensor | None) -> Any:
        if boxes is None:
            return loss
        self._metrics["train"]["box_loss"].append(boxes.item())
        return loss + self.course.box_loss * boxes / self.current_gradient_accumulation_steps

    def _keep_trained(self, backbone: Any, args: Any, output: Any) -> None:
        """Leave of what the backbone made, (rows, length, width), where a trained token follows."""
        if self._trained is not None:  # else the engine asks
            output.last_hidden_state = output.last_hidden_state[:, :-1][self._trained][None]
            self._trained = None


class DPO(OnCourse, DPOTrainer):
    """Direct preference optimisation: each row's good side over its bad one.

    A batch holds all good sides, then all bad ones, each with its own pictures. The vision tower
    must rest: policy and reference are given the same features.
    """

    def __init__(self, model: Any, args: Any, course: Course, tokenizer: Any, **kw: Any) -> None:
        self.course = course
        peft = hasattr(model, "peft_config")
        reference = None if peft else copied(model, args)
        super().__init__(model, reference, args, **_data(course, tokenizer), **kw)

    def _prepare_dataset(self, dataset: Any, *args: Any, **kw: Any) -> Any:
        return dataset  # rows are read by the collator

    def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
        made = self.inputs(model, inputs)
        made["completion_mask"] = (made.pop("labels") != IGNORED).long()
        return super()._compute_loss(model, made, return_outputs)


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


def copied(model: Any, args: Any) -> Any:
    """A copy of `model` that stays as it is, shared out as the model will be."""
    reference = copy.deepcopy(model).requires_grad_(False).eval()
    return shard(reference, bf16=args.bf16) if is_sharded() else reference


def prepared(model: Any, inputs: Mapping[str, Any], see: See) -> dict[str, Any]:
    """What `model` takes for a batch that `collate` made."""
    rest = {k: v for k, v in inputs.items() if k not in (PICTURES, POINTED, "labels")}
    batch = Batch(rest, inputs["labels"], tuple(inputs[PICTURES]))
    return forward_inputs(bare(model), batch, see)


def _data(course: Course, tokenizer: Any) -> dict[str, Any]:
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
