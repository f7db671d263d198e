"""TRL's trainer over our batches: rows by token budget, a rate that knows the clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress
from typing import Any

from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from trl.trainer.sft_trainer import SFTTrainer

from training.batches import TokenBatches
from training.collate import Batch, Collator, forward_inputs
from training.data import DataSet, Row
from training.optimisers import muon
from training.pace import Pace, rate_share
from training.seeing import See, see

PICTURES = "pictures"


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
            self.data, *(list(compress(v, wanted)) for v in (self.chosen, self.lengths, self.keys))
        )

    def thinned(self, most: int) -> Rows:
        """At most so many of them, evenly spaced."""
        step = -(-len(self) // most)
        return self.some([at % step == 0 for at in range(len(self))])

    @property
    def dataset(self) -> Dataset:
        """Indices alone: TRL wants a data set, the rows are read by the collator."""
        return Dataset.from_dict({"index": list(self.chosen)})


class Trainer(SFTTrainer):
    """Supervised fine-tuning on rows, each whole and its pictures with it.

    Every loss, optimiser, checkpoint and process is TRL's and accelerate's; ours are the batches,
    the model's inputs and the schedule.
    """

    def __init__(
        self,
        model: Any,
        args: Any,
        *,
        train: Rows,
        held_out: Rows | None,
        collator: Collator,
        pace: Pace,
        batch_tokens: int,
        use_muon: bool = False,
        see: See = see,
        **kw: Any,
    ) -> None:
        self.rows = {"train": train, "held out": held_out}
        self.pace = pace
        self.use_muon = use_muon
        self.see = see
        self.batch_tokens = batch_tokens
        self._collator = collator
        super().__init__(
            model,
            args,
            data_collator=partial(collate, train.data, collator),
            train_dataset=train.dataset,
            eval_dataset=held_out.dataset if held_out else None,
            processing_class=collator.builder.tokenizer,
            **kw,
        )

    def get_train_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.rows["train"], shuffle=True)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        return self._loader(self.rows["held out"], shuffle=False)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kw: Any) -> Any:
        """The loss of a batch as `collate` makes it."""
        with self.accelerator.autocast():  # the pictures are encoded here, not in the forward
            made = prepared(model, inputs, self.see)
        return super().compute_loss(model, made, *args, **kw)

    def create_optimizer(self, model: Any = None) -> Any:
        if self.optimizer is None and self.use_muon:
            self.optimizer = muon(
                model or self.model, self.args.learning_rate, self.args.weight_decay
            )
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """A rate that falls with the steps or with the time, whichever runs out first."""
        if self.lr_scheduler is None:
            share = partial(_share, self.pace, num_training_steps)
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, share)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _loader(self, rows: Rows | None, *, shuffle: bool) -> DataLoader[Any]:
        assert rows, "there are no held-out rows"
        batches = TokenBatches(
            rows.lengths,
            self.batch_tokens,
            shuffle=shuffle,
            seed=self.args.seed,
            processes=self.args.world_size,
        )
        return self.accelerator.prepare(
            DataLoader(
                rows.dataset,
                batch_sampler=batches,
                collate_fn=partial(collate, rows.data, self._collator),
                num_workers=self.args.dataloader_num_workers,
                persistent_workers=self.args.dataloader_num_workers > 0,
            )
        )


def collate(
    rows: Sequence[Row], collator: Collator, examples: Sequence[Mapping[str, int]]
) -> dict[str, Any]:
    """The batch of the rows that `examples` name by index, as one mapping."""
    batch = collator([rows[example["index"]] for example in examples])
    return {**batch.inputs, "labels": batch.labels, PICTURES: list(batch.pictures)}


def prepared(model: Any, inputs: Mapping[str, Any], see: See = see) -> dict[str, Any]:
    """What `model` takes for a batch that `collate` made."""
    rest = {k: v for k, v in inputs.items() if k not in (PICTURES, "labels")}
    batch = Batch(rest, inputs["labels"], tuple(inputs[PICTURES]))
    return forward_inputs(bare(model), batch, see)


def bare(model: Any) -> Any:
    """The model inside what accelerate and peft put around it."""
    while hasattr(model, "module"):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _share(pace: Pace, steps: int, step: int) -> float:
    return rate_share(pace.done(step, steps))
