"""GRPO over TRL's trainer, its rollouts from our engine: looks in the middle of an answer included.

TRL's are the loss, the advantages, the buffering of rollouts over several steps, and the metrics.
Ours are the rollouts, and what the model takes for them: TRL's own would need a processor, render
every prompt anew each turn, and lose the images of a batch whose counts do not match
(`_generate_and_score_completions`, trl 1.16). Private methods of TRL are overridden for that, so
its minor version is pinned.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

from training.batching.batch_sampler import TokenBatches
from training.batching.collator import Collator

from .course import Course, CourseTrainer, as_mapping
from .dpo import reference_of
from .fsdp import gathered
from .gppo_clip import keep_gradients
from .rollouts import Explorer, Rollout, failures, means

LOSSES: Mapping[str, Mapping[str, Any]] = {
    "grpo": {"loss_type": "grpo"},
    "dapo": {"loss_type": "dapo"},
    "dr_grpo": {"loss_type": "dr_grpo", "scale_rewards": "none"},
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    "gppo": {"loss_type": "dapo"},
}
"""Losses by name, as TRL's arguments. GPPO is DAPO's, clipped by `gppo_clip.keep_gradients`."""

ROLLOUTS = "rollouts"
_NEVER = 1e9  # a bound that no ratio reaches


@dataclass(frozen=True)
class Clip:
    """How far a token's probability may move from that of its sampling: [1 - low, 1 + high].

    `gradients`: clipped tokens keep their gradients (GPPO).
    """

    low: float = 0.2
    high: float = 0.2
    gradients: bool = False


@dataclass(frozen=True)
class Column:
    """The reward `term` of every rollout, as TRL asks for it; None where one has no such term."""

    term: str

    @property
    def __name__(self) -> str:
        return self.term

    def __call__(self, completions: Sequence[Mapping[str, float]], **kw: Any) -> list[float | None]:
        return [rewards.get(self.term) for rewards in completions]


class GRPO(CourseTrainer, GRPOTrainer):
    """Group-relative policy optimisation: siblings of one prompt, compared with each other.

    A step's rollouts are trained on in batches of equal count. In TRL's terms a row's prompt is its
    first token, its completion all the rest, and `tool_mask` says what was sampled.
    """

    def __init__(
        self,
        model: Any,
        args: Any,
        course: Course,
        tokenizer: Any,
        *,
        explorer: Explorer,
        clip: Clip = Clip(),
    ) -> None:
        self.course = course
        self.explorer = explorer
        self.clip = clip
        self._collator = Collator(explorer.vlm.builder)
        self._current: Sequence[Rollout] = ()
        self._clipped: tuple[Tensor, Tensor] | None = None
        beta, args.beta = args.beta, 0.0  # TRL would load a reference from the model's hub id
        peft = hasattr(model, "peft_config")
        reference = reference_of(model, args) if beta and not peft else None
        held_out = course.held_out.dataset if course.held_out else None
        columns: Any = [Column(name) for name in explorer.terms]
        super().__init__(
            model, columns, args, course.train.dataset, held_out, processing_class=tokenizer
        )
        self.beta = args.beta = beta
        if clip.gradients:  # ours clips, then TRL's must not
            self.epsilon_low = self.epsilon_high = _NEVER
        if reference is not None:
            add_fused_lm_head(reference, temperature=self.temperature)
            self.ref_model = self.accelerator.prepare_model(reference, evaluation_mode=True)

    def get_train_dataloader(self) -> DataLoader[Any]:
        args: Any = self.args
        groups = Groups(
            len(self.course.train),
            group=args.num_generations,
            questions=args.generation_batch_size // args.num_generations // args.world_size,
            repeats=args.steps_per_generation * self.num_iterations,
            seed=args.seed,
            processes=args.world_size,
        )
        self.set_epoch = groups.set_epoch
        indices: Any = self.course.train.dataset
        loader = DataLoader(indices, batch_sampler=groups, collate_fn=list)
        return self.accelerator.prepare(loader)

    def evaluate(self, *args: Any, **kw: Any) -> dict[str, float]:
        """The mean rewards of the policy's greedy answers to the held-out rows."""
        held_out, model = self.course.held_out, self.model
        if held_out is None or model is None:
            raise ValueError("evaluation needs held-out rows and a model, found none")
        mode = model.training
        rows = [held_out.data[at] for at in held_out.chosen]
        with gathered(model):
            rollouts = self.explorer.explore(rows, step=0, greedy=True)
        self._check_failures([rollout.error for rollout in rollouts])
        found = means(rollout.measures for rollout in rollouts)
        metrics = {f"eval_{name}": value for name, value in found.items()}
        model.eval()
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        model.train(mode)
        return metrics

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        prompts = [{"prompt": example["index"]} for example in inputs]
        made = super()._generate_and_score_completions(prompts)
        return {**made, ROLLOUTS: list(self._current)}

    def _generate(self, prompts: list[Any]) -> tuple[Any, ...]:
        known = {index: self.course.train.data[index] for index in set(prompts)}
        rows = [known[index] for index in prompts]
        before = self.args.process_index * len(rows)  # rows of other processes stand first
        with gathered(self.model):
            rollouts = self.explorer.explore(rows, step=self.state.global_step, first=before)
        self._current = rollouts
        self._note(rollouts)
        ids = [rollout.tokens.ids for rollout in rollouts]
        masks = [[int(own) for own in rollout.tokens.trained[1:]] for rollout in rollouts]
        first, rest = [list(each[:1]) for each in ids], [list(each[1:]) for each in ids]
        rewards = [rollout.rewards for rollout in rollouts]  # in place of TRL's completions
        return first, rest, masks, rewards, None, {}, None, None

    def _note(self, rollouts: Sequence[Rollout]) -> None:
        """Log the measures of the rollouts of all processes."""
        self._check_failures(gather_object([rollout.error for rollout in rollouts]))
        found = means(gather_object([rollout.measures for rollout in rollouts]))
        found.pop("reward")  # TRL's own
        for name, value in found.items():
            self._metrics["train"][name].append(value)

    def _check_failures(self, errors: Sequence[str | None]) -> None:
        """Say once for all processes how many rollouts failed; `errors` are those of all, so that
        where every one failed, each process ends."""
        line = failures(errors)
        if line and self.accelerator.is_main_process:
            print(f"step {self.state.global_step}: {line}", file=sys.stderr, flush=True)

    def _compute_loss(self, model: Any, inputs: Any) -> Tensor:
        self._current = inputs[ROLLOUTS]
        old = inputs.get("old_per_token_logps")
        if self.clip.gradients and old is not None:
            self._clipped = old, inputs["advantages"].unsqueeze(1)
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self._clipped = None

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **images: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Log-probabilities and entropies (B, T - 1) of the current rollouts; 0 where none trains.

        `input_ids` are theirs, but their images and positions are made here. How long a step's
        answers are is unknown beforehand, so they are split here into batches of the course's
        budget.
        """
        batches = self._batches()
        once = len(batches) == 1
        found = [self._passed(model, batch, compute_aux_loss, once=once) for batch in batches]
        order = torch.tensor([at for batch in batches for at in batch]).argsort()
        logps = torch.cat([_widened(out.log_probs, logits_to_keep) for out in found])[order]
        entropies = None  # the reference's head has none
        if compute_entropy:
            entropies = torch.cat([_widened(out.entropy, logits_to_keep) for out in found])[order]
        if self._clipped:
            old, advantages = self._clipped
            logps = keep_gradients(logps, old, advantages, low=self.clip.low, high=self.clip.high)
        aux = torch.stack([out.aux_loss for out in found]).mean() if compute_aux_loss else None
        return logps, entropies, aux

    def _batches(self) -> list[list[int]]:
        """Indices of the current rollouts, those of about one length in a batch."""
        lengths = [len(rollout.tokens.ids) for rollout in self._current]
        if self.args.world_size > 1:  # gradients are shared in one backward of one forward
            return [list(range(len(lengths)))]
        return list(TokenBatches(lengths, self.course.budget, shuffle=False))

    def _passed(self, model: Any, places: Sequence[int], routed: bool, *, once: bool) -> Any:
        """The output of `model` for some rollouts; its activations are kept for the backward where
        all rollouts pass at `once`, else recomputed there."""
        batch = self._collator.join([self._current[at].tokens for at in places])
        moved: Any = self._prepare_input(as_mapping(batch))
        made = {**self.model_inputs(model, moved), "fused_lm_head": True}
        if routed:
            made["output_router_logits"] = True
        with self.accelerator.autocast():
            return model(**made) if once else checkpoint(model, use_reentrant=False, **made)


class Groups:
    """Indices of rows for a `DataLoader`: `questions` of them a batch, each `group` times.

    A batch comes `repeats` times in a row, once for each part of it that is trained on; of several
    processes each has its own questions.

    Args:
        seed: the order of an epoch follows from it and the epoch.
    """

    def __init__(
        self, count: int, *, group: int, questions: int, repeats: int, seed: int, processes: int
    ) -> None:
        self.count = count
        self.group = group
        self.questions = questions
        self.repeats = repeats
        self.seed = seed
        self.processes = processes
        self.epoch = 0

    def __len__(self) -> int:
        return self._rounds * self.repeats * self.processes

    def set_epoch(self, epoch: int) -> None:
        """Use the order of `epoch` from now on."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        order = list(range(self.count))
        random.Random(f"{self.seed} {self.epoch}").shuffle(order)
        at = 0
        for _ in range(self._rounds):
            batches = []
            for _ in range(self.processes):
                asked = [order[(at + k) % self.count] for k in range(self.questions)]
                at += self.questions
                batches.append([index for index in asked for _ in range(self.group)])
            for _ in range(self.repeats):
                yield from batches

    @property
    def _rounds(self) -> int:
        """Rounds in an epoch: rows left over are dropped; fewer rows than a round asks are one."""
        return max(self.count // (self.questions * self.processes), 1)


def _widened(values: Tensor, width: int) -> Tensor:
    return pad(values, (0, width - values.shape[1]))
