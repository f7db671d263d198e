"""Direct preference optimisation over TRL's trainer."""

from __future__ import annotations

import copy
from typing import Any

from trl.trainer.dpo_trainer import DPOTrainer

from training.batching.collator import IGNORED

from .course import Course, OnCourse, trainer_data
from .fsdp import is_sharded, shard


class DPO(OnCourse, DPOTrainer):
    """Direct preference optimisation: each row's good side over its bad one.

    A batch holds all good sides, then all bad ones, each with its own pictures. The vision tower
    must rest: policy and reference are given the same features.
    """

    def __init__(self, model: Any, args: Any, course: Course, tokenizer: Any, **kw: Any) -> None:
        self.course = course
        peft = hasattr(model, "peft_config")
        reference = None if peft else copied(model, args)
        super().__init__(model, reference, args, **trainer_data(course, tokenizer), **kw)

    def _prepare_dataset(self, dataset: Any, *args: Any, **kw: Any) -> Any:
        return dataset  # rows are read by the collator

    def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
        made = self.inputs(model, inputs)
        made["completion_mask"] = (made.pop("labels") != IGNORED).long()
        return super()._compute_loss(model, made, return_outputs)


def copied(model: Any, args: Any) -> Any:
    """A copy of `model` that stays as it is, shared out as the model will be."""
    reference = copy.deepcopy(model).requires_grad_(False).eval()
    return shard(reference, bf16=args.bf16) if is_sharded() else reference
