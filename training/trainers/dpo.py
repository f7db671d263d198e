"""Direct preference optimisation over TRL's trainer."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from typing import Any

from trl.trainer.dpo_trainer import DPOTrainer

from training.batching.collator import IGNORED

from .course import Course, CourseTrainer, trainer_data
from .model_parts import is_sharded


class DPO(CourseTrainer, DPOTrainer):
    """Direct preference optimisation: each row's chosen side over its rejected one.

    A batch holds all chosen sides, then all rejected ones, each with its own images. The vision
    tower must be frozen: policy and reference are given the same features.
    """

    def __init__(self, model: Any, args: Any, course: Course, tokenizer: Any, **kw: Any) -> None:
        self.course, self._told = course, False
        peft = hasattr(model, "peft_config")
        reference = None if peft else reference_of(model, args)
        super().__init__(model, reference, args, **trainer_data(course, tokenizer), **kw)

    def _prepare_dataset(self, dataset: Any, *args: Any, **kw: Any) -> Any:
        return dataset  # rows are read when they are collated

    def log(self, logs: dict[str, float], *args: Any, **kw: Any) -> None:
        super().log(logs, *args, **kw)  # which adds the metrics
        line = None if self._told else falling(logs, self.beta)
        if line and self.accelerator.is_main_process:
            self._told = True
            print(line, file=sys.stderr, flush=True)

    def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
        made = self.model_inputs(model, inputs)
        made["completion_mask"] = (made.pop("labels") != IGNORED).long()
        return super()._compute_loss(model, made, return_outputs)


def falling(logs: Mapping[str, float], beta: float) -> str | None:
    """A line for people once the chosen side's log-probability is lower than before training by
    more than 1 plus a tenth of its size then; None until that."""
    for which in ("", "eval_"):
        now, reward = (logs.get(f"{which}{key}/chosen") for key in ("logps", "rewards"))
        if now is None or reward is None or not beta:
            continue
        before = now - reward / beta
        if before - now > 1 + abs(before) / 10:
            return (
                f"the chosen side's log-probability fell from {before:.2f} to {now:.2f}: "
                "--sft-weight holds it (0.1, or more than now)"
            )
    return None


def reference_of(model: Any, args: Any) -> Any:
    """A frozen copy of `model`, sharded as the model will be."""
    reference = copy.deepcopy(model).requires_grad_(False).eval()
    if not is_sharded():
        return reference
    from .fsdp import shard

    return shard(reference, bf16=args.bf16)
