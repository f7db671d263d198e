"""How each method trains: TRL's trainer over our rows, and the arguments that are its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from accelerate import PartialState
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.sft_config import SFTConfig

from mm.local.hf_vlm import HFVLM
from mm.session import Strategy, name_of
from mm.types import Sampling
from training.batching.collator import Collator, PairCollator
from training.data import BadData, Row
from training.rewards.presets import read_mixes
from training.trainers.course import Rows
from training.trainers.dpo import DPO
from training.trainers.grpo import GRPO, LOSSES, Clip
from training.trainers.lengths import length_of_pair, length_of_reply
from training.trainers.rollouts import Explorer
from training.trainers.sft import SFT

from .plan import Plan
from .recipe import Looks, Recipe

LOSS_WORDS: Mapping[str, str] = {"loss": "loss", "eval_loss": "held-out loss"}
"""What a line of progress says, by the log's keys."""

REWARD_WORDS: Mapping[str, str] = {
    "reward": "reward",
    "accuracy": "right",
    "looks": "looks",
    "eval_reward": "held-out reward",
    "eval_accuracy": "held-out right",
    "eval_box_recall": "held-out box recall",
}


_LAYOUTS: Mapping[Looks | None, Mapping[str, str]] = {
    None: {},
    "tool": {"layout": "tool", "protocol": "tool"},
    "inline": {"layout": "inline"},
    "replay": {"protocol": "sot"},
}
"""What a way to look again is called by `zoom`, and by `replay`."""


@dataclass(frozen=True)
class Method:
    """How a method trains.

    Attributes:
        trainer: TRL's trainer over a course, and `config` the class of its arguments.
        collate: makes a batch of rows; `length` is how many tokens a row takes of one.
        options: arguments that only this method has.
        words: what a line of progress says.
        best: the log's key by which the best checkpoint is chosen.
    """

    trainer: Any
    config: Any
    collate: Any
    length: Callable[[Row], int]
    options: Callable[[Recipe, Plan, Rows], Mapping[str, Any]]
    words: Mapping[str, str]
    best: str = "eval_loss"


def method_of(recipe: Recipe, vlm: HFVLM, strategy: Strategy) -> Method:
    """The way of the recipe's method; GRPO samples its answers by `strategy`.

    Raises:
        BadData: the recipe asks for what its method cannot do.
    """
    collator = Collator(vlm.builder)
    if recipe.method == "sft":
        length = length_of_reply(vlm.builder)
        return Method(SFT, SFTConfig, collator, length, _sft_options, LOSS_WORDS)
    if recipe.method == "dpo":
        pairs = PairCollator(collator)
        length = length_of_pair(vlm.builder)
        return Method(DPO, DPOConfig, pairs, length, _dpo_options, LOSS_WORDS)
    explorer = explorer_of(recipe, vlm, strategy)
    clip = Clip(recipe.clip_low, recipe.clip_high, gradients=recipe.loss == "gppo")
    trainer = partial(GRPO, explorer=explorer, clip=clip)
    best = "eval_reward"
    return Method(trainer, GRPOConfig, collator, explorer.length, _grpo_options, REWARD_WORDS, best)


def explorer_of(recipe: Recipe, vlm: HFVLM, strategy: Strategy) -> Explorer:
    """Samples answers as the recipe says.

    Raises:
        BadData: its rewards are none, or its loss cannot have what it asks for.
    """
    if recipe.loss == "gppo" and recipe.beta:
        raise BadData("gppo: clipped tokens keep their gradients, which KL would weigh: no --beta")
    if recipe.accumulate != 1:
        raise BadData("grpo: a step has --prompts questions: leave --accumulate out")
    if recipe.group < 2:
        raise BadData(f"grpo: --group must be at least 2, to compare with, got {recipe.group}")
    sampling = Sampling(recipe.max_tokens, temperature=recipe.temperature, seed=recipe.seed)
    mixes = read_mixes(recipe.rewards, recipe.rewards_by_source)
    return Explorer(vlm, bound(strategy, recipe), mixes, sampling)


def bound(strategy: Strategy, recipe: Recipe) -> Strategy:
    """`strategy` with those of the recipe's options that it has.

    Raises:
        BadData: the recipe says how to look again, which is none of the strategy's ways.
    """
    has = inspect.signature(strategy).parameters
    layout = {key: value for key, value in _LAYOUTS[recipe.looks].items() if key in has}
    if recipe.looks and not layout:
        raise BadData(f"--looks {recipe.looks}: {name_of(strategy)} has no such way to look again")
    given = {"max_looks": recipe.max_looks, **layout} if "max_looks" in has else layout
    return partial(strategy, **given) if given else strategy


def _sft_options(recipe: Recipe, plan: Plan, rows: Rows) -> Mapping[str, Any]:
    return {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}


def _dpo_options(recipe: Recipe, plan: Plan, rows: Rows) -> Mapping[str, Any]:
    return {"max_length": None, "beta": 0.1 if recipe.beta is None else recipe.beta}


def _grpo_options(recipe: Recipe, plan: Plan, rows: Rows) -> Mapping[str, Any]:
    answers = _questions(recipe) * recipe.group
    parts = parts_of(answers, max(rows.lengths) + recipe.max_tokens, plan.batch_tokens)
    return {
        **LOSSES[recipe.loss],
        "beta": recipe.beta or 0.0,
        "use_bias_correction_kl": False,  # KL as GRPO's paper has it
        "epsilon": recipe.clip_low,
        "epsilon_high": recipe.clip_high,
        "temperature": recipe.temperature,
        "num_generations": recipe.group,
        "num_iterations": recipe.iterations,
        "per_device_train_batch_size": answers // parts,
        "per_device_eval_batch_size": recipe.group,
        "gradient_accumulation_steps": parts,
        "max_completion_length": recipe.max_tokens,
    }


def _questions(recipe: Recipe) -> int:
    """Questions that each process asks in a step."""
    processes = PartialState().num_processes
    if recipe.prompts % processes:
        raise BadData(
            f"--prompts {recipe.prompts}: not to be shared out among {processes} processes"
        )
    return recipe.prompts // processes


def parts_of(answers: int, length: int, budget: int) -> int:
    """The fewest equal parts of a step's `answers` that have at most `budget` tokens each."""
    parts = (n for n in range(1, answers + 1) if answers % n == 0)
    return next((n for n in parts if answers // n * length <= budget), answers)
