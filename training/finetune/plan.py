"""Makes the choices that a recipe leaves open, from the model and the memory.

A plan is made once and holds the recipe; whatever comes after reads the plan.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from accelerate import PartialState

from mm.engine.resources import cpu_quotas, total_bytes
from mm.local.adapters import is_adapter
from mm.local.checkpoints import find
from mm.local.fast_vision_tower import speed_up
from mm.local.precision import fast_dtype
from training.data import BadData
from training.trainers.compile import WORTH_IT_S, compile_blocks, why_not_compiled
from training.trainers.course import Rows
from training.trainers.lora import adapted
from training.trainers.model_parts import bare, is_sharded, set_tower_trainable

from .recipe import Recipe

FULL_BYTES = 16
"""Of memory per parameter: float32 weights, gradients and two moments of AdamW."""

SMALL = 50_000_000
"""Parameters below which a model needs a high rate to learn anything new, and can take it."""

_RATES = (2e-4, 7e-4, 1e-5)
_SAMPLED_RATES = (2e-5, 1e-4, 1e-6)
"""Learning rates of adapters, of all weights of small models, and of others: supervised, and from
answers that are sampled."""

_MUON_RATE, _MUON_BATCH = 1e-3, 2048
"""Rate of small models whose matrices Muon updates, and tokens in a batch of theirs: what Muon
computes does not grow with the batch."""


@dataclass(frozen=True)
class Plan:
    """A recipe, and every choice that it leaves open.

    Attributes:
        lora: an adapter trains; else all weights.
        vision: the vision tower trains.
        autocast: forward passes in bfloat16.
        checkpointing: activations are computed twice, to save memory.
        compiled: the decoder's blocks are compiled.
        muon: Muon for the matrices that it fits, else AdamW alone.
        sharded: FSDP shards the weights among processes.
        needed, memory: bytes for all weights and their optimizer, and what the device has.
        row_bytes: of built rows that may be cached by each process; 0 in grpo, which asks anew.
    """

    recipe: Recipe
    lora: bool
    vision: bool
    learning_rate: float
    batch_tokens: int
    epochs: float
    device: str
    autocast: bool
    checkpointing: bool
    compiled: bool
    muon: bool
    sharded: bool
    needed: int
    memory: int
    row_bytes: int

    def lines(self, train: Rows, held_out: Rows | None) -> list[str]:
        """What a person may want to know, or to overrule, before the training begins."""
        share = f"{self.needed / 2**30:.1f} of {self.memory / 2**30:.1f} GiB"
        held = f"{len(held_out)} held out" if held_out else "none held out"
        mean = sum(train.lengths) // len(train)
        return [
            f"rows: {len(train):,} to train on, {held}; {mean} tokens each, {self._steps(train)}",
            f"trains {self._what()}, vision tower "
            f"{'too' if self.vision else 'frozen'}: all of it would take {share} (--lora/--full, "
            "--vision/--no-vision)",
            f"{'Muon' if self.muon else 'AdamW'} (--optimizer), learning rate "
            f"{self.learning_rate:g} (--learning-rate), on {self.device} in "
            f"{'bfloat16' if self.autocast else 'float32'}"
            f"{', compiled (--no-compile)' if self.compiled else ''}",
        ]

    def _what(self) -> str:
        if not self.lora:
            return "all weights"
        over = f" over {self.recipe.model}, written as a whole model"
        return f"a LoRA adapter{over if merges(self.recipe) else ''}"

    def _steps(self, train: Rows) -> str:
        if self.recipe.method != "grpo":
            steps = -(-sum(train.lengths) // self.batch_tokens)
            return f"{steps:,} steps an epoch of {self.batch_tokens:,} tokens (--batch-tokens)"
        questions, group = self.recipe.prompts, self.recipe.group
        steps = max(len(train) // questions, 1)
        return (
            f"{steps:,} steps an epoch of {questions} questions with {group} answers each "
            f"(--prompts, --group), {self.batch_tokens:,} tokens at a time (--batch-tokens)"
        )


def merges(recipe: Recipe) -> bool:
    """Whether the recipe's model is an adapter, merged into its base before anything trains: what
    comes of it is written whole, since an adapter would find that base nowhere."""
    return is_adapter(find(recipe.model))


def make_plan(recipe: Recipe, model: Any) -> Plan:
    """The plan for `model` on the device that it is on.

    All weights train where they and the optimizer, or a process's shard of them, fit in a quarter
    of the memory; else an adapter of the language model. The vision tower is frozen unless the
    recipe says otherwise: what it has learnt is worth more than what a small data set can teach it,
    and an image is then encoded once.

    Raises:
        BadData: the recipe asks for what its method cannot do.
    """
    if recipe.method == "dpo" and recipe.vision:
        raise BadData("dpo: policy and reference share image features: leave --vision out")
    if recipe.box_loss and (recipe.method != "sft" or recipe.looks != "replay"):
        raise BadData("box_loss is for sft on rows that are replayed: --looks replay")
    if recipe.report_to and find_spec(recipe.report_to) is None:
        raise BadData(f"--report-to {recipe.report_to}: pip install {recipe.report_to}")
    if recipe.quantize and recipe.lora is False:
        raise BadData("--quantize is for an adapter on frozen weights: leave --full out")
    _check_device(model.device)
    plan = _chosen(recipe, model)
    if plan.sharded:
        _check_sharded(plan)
    if plan.lora and recipe.box_loss:
        raise BadData("an adapter holds no box head: --full, or --box-loss 0")
    if plan.lora and plan.vision:
        raise BadData("an adapter holds the language model alone: --full with --vision, or neither")
    return plan


def _check_device(device: Any) -> None:
    """Refuse a GPU that is not this process's own: transformers would move the model there."""
    processes = PartialState()
    own: Any = processes.device
    if (device.index or 0) == (own.index or 0):
        return
    if processes.num_processes > 1:
        raise BadData(f"--device {device}: leave it out, the launcher gives each process its own")
    raise BadData(
        f"--device {device}: a training takes the first GPU that it sees: give --device cuda, and "
        "set CUDA_VISIBLE_DEVICES to that one alone"
    )


def _check_sharded(plan: Plan) -> None:
    """Refuse what cannot be trained with sharded weights."""
    refused = {
        "--vision: the tower is frozen": plan.vision,
        "--quantize: quantized weights are not sharded": plan.recipe.quantize,
        "--optimizer muon: it needs whole matrices": plan.muon,
        "--box-loss: some batches would give its head no gradient": plan.recipe.box_loss,
        "an adapter on an adapter: shards are not merged": plan.lora and merges(plan.recipe),
    }
    for what, asked in refused.items():
        if asked:
            raise BadData(f"FSDP cannot have {what}: leave it out, or launch without FSDP")


def _chosen(recipe: Recipe, model: Any) -> Plan:
    import torch

    sharded, processes = is_sharded(), PartialState().num_processes
    count = sum(p.numel() for p in model.parameters())
    memory = total_bytes(model.device)
    needed = count * FULL_BYTES // (processes if sharded else 1)
    fits = needed <= memory // 4
    lora = (not fits) if recipe.lora is None else recipe.lora
    lora = lora or recipe.quantize is not None
    small = count < SMALL
    sampled = recipe.method == "grpo"
    muon = _uses_muon(recipe, small and not lora and not sharded)
    rates = _SAMPLED_RATES if sampled else _RATES
    rate, batch = rates[0 if lora else 1 if small else 2], 1024 if small and not sampled else 4096
    if muon and small and not lora and not sampled:
        rate, batch = _MUON_RATE, _MUON_BATCH
    return Plan(
        recipe=recipe,
        lora=lora,
        vision=bool(recipe.vision),
        learning_rate=recipe.learning_rate or rate,
        batch_tokens=recipe.batch_tokens or batch,
        epochs=recipe.epochs or (1000.0 if recipe.max_minutes or recipe.max_steps else 3.0),
        device=model.device.type,
        autocast=fast_dtype(model.device) == torch.bfloat16,
        checkpointing=not small,
        compiled=_pays(recipe, small and model.device.type == "cpu"),
        muon=muon,
        sharded=sharded,
        needed=needed,
        memory=memory,
        row_bytes=0 if sampled else total_bytes(torch.device("cpu")) // 16 // processes,
    )


def _uses_muon(recipe: Recipe, small: bool) -> bool:
    """As the recipe says, else where all weights of a small model train in sft: there Muon gains
    more per batch than its extra time costs."""
    if recipe.optimizer is None:
        return small and recipe.method == "sft"
    return recipe.optimizer == "muon"


def _pays(recipe: Recipe, overhead: bool) -> bool:
    """Whether to compile: as the recipe says, else where `overhead` takes much of a long training.

    Raises:
        BadData: the recipe asks for it where it cannot be done.
    """
    if recipe.compile is None:
        return overhead and 60 * (recipe.max_minutes or 0) >= WORTH_IT_S and not why_not_compiled()
    if recipe.compile and (why := why_not_compiled()):
        raise BadData(f"PyTorch cannot compile here ({why}): leave --compile out")
    return recipe.compile


def prepare_model(model: Any, plan: Plan) -> Any:
    """`model` as the plan trains it: trainable weights in float32, all others frozen."""
    import torch

    torch.set_num_threads(cpu_threads())
    if plan.device == "cpu":
        model.set_attn_implementation("eager")  # sdpa's backward in bfloat16 is slow there
        speed_up(model)
    model.requires_grad_(not plan.lora)
    if plan.lora:
        model = _adapted(model, plan.recipe)
    else:
        model.float()
    set_tower_trainable(model, plan.vision)
    if plan.compiled:
        compile_blocks(bare(model))
    return model


def cpu_threads() -> int:
    """CPU threads for this process: as OMP_NUM_THREADS says, else its share of the cores that it
    and the processes launched beside it may use."""
    beside = os.environ.get("LOCAL_WORLD_SIZE", "")
    processes = int(beside) if beside.isdecimal() else 1
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if said.isdecimal() and int(said) > (1 if _launched() else 0):  # launchers write 1 by default
        return int(said)
    allowed = min([_allowed(), *(math.ceil(quota) for quota in cpu_quotas())])
    return max(allowed // max(processes, 1), 1)


def _launched() -> bool:
    return "LOCAL_WORLD_SIZE" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ


def _allowed() -> int:
    """Cores that this process may be scheduled on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _adapted(model: Any, recipe: Recipe) -> Any:
    if recipe.quantize:
        from peft import prepare_model_for_kbit_training

        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return adapted(model, recipe.lora_rank)
