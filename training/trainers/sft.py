"""Supervised fine-tuning over TRL's trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trl.trainer.sft_trainer import SFTTrainer

from training.batching.collator import IGNORED

from .course import POINTED, Course, CourseTrainer, trainer_data
from .model_parts import bare

if TYPE_CHECKING:
    from torch import Tensor


class SFT(CourseTrainer, SFTTrainer):
    """Supervised fine-tuning: cross-entropy on the tokens marked trainable."""

    def __init__(self, model: Any, args: Any, course: Course, tokenizer: Any, **kw: Any) -> None:
        self.course = course
        self._boxes = _box_term(model) if course.box_loss else None
        super().__init__(model, args, **trainer_data(course, tokenizer), **kw)
        self._trained: Tensor | None = None
        bare(self.model).base_model.register_forward_hook(self._select_trained)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kw: Any) -> Any:
        """The mean cross-entropy of the trained tokens of a batch; in training also the box loss
        of the regions that it points at.

        The head reads those tokens alone: without Triton, TRL's would score every token.
        """
        made = self.model_inputs(model, inputs)
        labels = made.pop("labels")[:, 1:]
        self._trained = labels != IGNORED
        made["shift_labels"] = labels[self._trained][None]
        if self._boxes is not None:
            self._boxes.pointed = inputs[POINTED] if model.training else ()
        try:
            loss = super().compute_loss(model, made, *args, **kw)
        finally:
            self._trained = None  # the engine's forwards pass the same hook
        return self._with_boxes(loss, self._boxes.loss) if self._boxes is not None else loss

    def _with_boxes(self, loss: Any, boxes: Tensor | None) -> Any:
        if boxes is None:
            return loss
        self._metrics["train"]["box_loss"].append(boxes.item())
        return loss + self.course.box_loss * boxes / self.current_gradient_accumulation_steps

    def _select_trained(self, backbone: Any, args: Any, output: Any) -> None:
        """Leave of the hidden states (B, T, D) those before a trained token, as (1, trained, D)."""
        if self._trained is not None:  # else the engine asks
            output.last_hidden_state = output.last_hidden_state[:, :-1][self._trained][None]


def _box_term(model: Any) -> Any:
    from .box_loss import BoxTerm

    return BoxTerm(model)
