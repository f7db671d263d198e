"""How each method trains: TRL's trainer over our rows, and the arguments that are its own.

A method's modules are imported where it is chosen.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from accelerate import PartialState

from mm.local.hf_vlm import HFVLM
from mm.session import Strategy, name_of
from mm.strategies.single import direct
from mm.types import Sampling
from training.batching.built_rows import Build
from training.data import BadData
from training.trainers.course import Rows
from training.trainers.row_builders import build_pair, build_reply
from vision.depth_source import bind_depth, untold

from .plan import Plan
from .recipe import Looks, Recipe

if TYPE_CHECKING:
    from training.rewards.terms import Mix
    from training.trainers.rollouts import Explorer

LOSS_LABELS: Mapping[str, str] = {"loss": "loss", "eval_loss": "held-out loss"}
"""What a line of progress shows: labels by the log's keys."""

PAIR_LABELS: Mapping[str, str] = {
    **LOSS_LABELS,
    "logps/chosen": "chosen logp",
    "eval_logps/chosen": "held-out chosen logp",
}
"""Besides, the log-probability of the chosen side, which may fall while the loss does."""

REWARD_LABELS: Mapping[str, str] = {
    "reward": "reward",
    "accuracy": "right",
    "looks": "looks",
    "failed": "failed",
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
"""The options of `zoom` and of `replay` for each way to look again."""


@dataclass(frozen=True)
class Method:
    """How a method trains.

    Attributes:
        trainer: TRL's trainer over a course, and `config` the class of its arguments.
        build: makes the token sequences of a row.
        strategy: how held-out questions are answered.
        options: arguments that only this method has.
        labels: what a line of progress shows.
        best_metric: the log's key by which the best checkpoint is chosen.
    """

    trainer: Callable[..., Any]
    config: Any
    build: Build
    strategy: Strategy
    options: Callable[[Plan, Rows], Mapping[str, Any]]
    labels: Mapping[str, str]
    best_metric: str = "eval_loss"


def method_of(plan: Plan, vlm: HFVLM, strategy: Strategy) -> Method:
    """The method of the plan's recipe; GRPO samples its answers by `strategy`.

    Raises:
        BadData: the recipe asks for what its method cannot do.
    """
    if plan.recipe.method == "grpo":
        return _grpo(plan.recipe, vlm, strategy)
    return _dpo(plan.recipe, vlm) if plan.recipe.method == "dpo" else _sft(plan.recipe, vlm)


def _sft(recipe: Recipe, vlm: HFVLM) -> Method:
    from trl.trainer.sft_config import SFTConfig

    from training.trainers.sft import SFT

    build = build_reply(vlm.builder)
    return Method(SFT, SFTConfig, build, taught_strategy(recipe.looks), _sft_options, LOSS_LABELS)


def _dpo(recipe: Recipe, vlm: HFVLM) -> Method:
    from trl.trainer.dpo_config import DPOConfig

    from training.trainers.dpo import DPO

    build = build_pair(vlm.builder)
    return Method(DPO, DPOConfig, build, taught_strategy(recipe.looks), _dpo_options, PAIR_LABELS)


def _grpo(recipe: Recipe, vlm: HFVLM, strategy: Strategy) -> Method:
    from trl.trainer.grpo_config import GRPOConfig

    from training.trainers.grpo import GRPO, Clip

    explorer = explorer_of(recipe, vlm, strategy)
    clip = Clip(recipe.clip_low, recipe.clip_high, gradients=recipe.loss == "gppo")
    return Method(
        partial(GRPO, explorer=explorer, clip=clip),
        GRPOConfig,
        explorer.build,
        explorer.strategy,
        _grpo_options,
        REWARD_LABELS,
        "eval_reward",
    )


def taught_strategy(looks: Looks | None) -> Strategy:
    """The strategy of a model whose completions were taught to look again in some way."""
    if looks is None:
        return direct
    from vision import replay, zoom

    if looks == "replay":
        return partial(replay, **_LAYOUTS[looks])
    return partial(zoom, layout=looks, offer=False)


def explorer_of(recipe: Recipe, vlm: HFVLM, strategy: Strategy) -> Explorer:
    """Samples answers as the recipe says; where it shows grey images, no depth is told.

    Raises:
        BadData: its rewards cannot be read, or its loss excludes another of its options.
    """
    from training.rewards.presets import read_mixes
    from training.trainers.rollouts import Explorer

    if recipe.loss == "gppo" and recipe.beta:
        raise BadData("gppo cannot be combined with a KL penalty: leave --beta out")
    if recipe.accumulate != 1:
        raise BadData("grpo: a step has --prompts questions: leave --accumulate out")
    asked = {"siglip": recipe.siglip, "verifier": recipe.verifier}
    mixes = read_mixes(recipe.rewards, recipe.rewards_by_source, **asked)
    _refuse_unasked(asked, mixes)
    looking = bound(bind_depth(strategy, untold) if recipe.blind else strategy, recipe)
    return Explorer(vlm, looking, mixes, _sampling_of(recipe), recipe.system)


def _sampling_of(recipe: Recipe) -> Sampling:
    return Sampling(
        recipe.max_tokens,
        temperature=recipe.temperature,
        top_p=recipe.top_p,
        seed=recipe.seed,
        top_k=recipe.top_k,
        min_p=recipe.min_p,
        repetition_penalty=recipe.repetition_penalty,
        presence_penalty=recipe.presence_penalty,
        frequency_penalty=recipe.frequency_penalty,
        max_thought_tokens=recipe.max_thought_tokens,
    )


def _refuse_unasked(asked: Mapping[str, str | None], mixes: Mapping[str, Mix]) -> None:
    """Refuse a checkpoint that no term of `mixes` is bound to."""
    terms = [each.term for mix in mixes.values() for each in mix]
    read = {name for term in terms if isinstance(term, partial) for name in term.keywords}
    for name, checkpoint in asked.items():
        if checkpoint and name not in read:
            raise BadData(f"--{name} {checkpoint}: no reward asks it: leave it out")


def bound(strategy: Strategy, recipe: Recipe) -> Strategy:
    """`strategy` with those of the recipe's options that it has; its own, which the person wrote
    in its brackets, stay.

    Raises:
        BadData: the strategy cannot look again in the way that the recipe says.
    """
    has = inspect.signature(strategy).parameters
    layout = {key: value for key, value in _LAYOUTS[recipe.looks].items() if key in has}
    if recipe.looks and not layout:
        raise BadData(f"--looks {recipe.looks}: {name_of(strategy)} has no such way to look again")
    options = {"max_looks": recipe.max_looks, **layout} if "max_looks" in has else layout
    own = getattr(strategy, "keywords", {})
    given = {key: value for key, value in options.items() if key not in own}
    return partial(strategy, **given) if given else strategy


def _sft_options(plan: Plan, rows: Rows) -> Mapping[str, Any]:
    return {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}


def _dpo_options(plan: Plan, rows: Rows) -> Mapping[str, Any]:
    recipe = plan.recipe
    beta = 0.1 if recipe.beta is None else recipe.beta
    losses = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, recipe.sft_weight]}
    return {"max_length": None, "beta": beta, **(losses if recipe.sft_weight else {})}


def _grpo_options(plan: Plan, rows: Rows) -> Mapping[str, Any]:
    from training.trainers.grpo import LOSSES

    recipe = plan.recipe
    answers = _prompts_per_process(recipe) * recipe.group
    parts = parts_of(answers, max(rows.lengths) + recipe.max_tokens, plan.batch_tokens)
    return {
        **LOSSES[recipe.loss],
        "beta": recipe.beta or 0.0,
        "use_bias_correction_kl": False,  # KL as in GRPO's paper
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


def _prompts_per_process(recipe: Recipe) -> int:
    processes = PartialState().num_processes
    if recipe.prompts % processes:
        raise BadData(
            f"--prompts {recipe.prompts}: cannot be divided evenly among {processes} processes"
        )
    return recipe.prompts // processes


def parts_of(answers: int, length: int, budget: int) -> int:
    """The fewest equal parts of a step's `answers` that have at most `budget` tokens each."""
    parts = (n for n in range(1, answers + 1) if answers % n == 0)
    return next((n for n in parts if answers // n * length <= budget), answers)
