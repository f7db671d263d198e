"""Stage 4: an adapter with which `tiny` answers from a whole memory in its context.

The control that replay is measured against. It does not ship. It is added to the model that does,
whose weights stay as they are; every fourth batch is one of the stage before, so that with the
adapter the model still does the rest.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import Qwen3VLForConditionalGeneration

from mm.local.checkpoints import find
from mm.local.fingerprint import write_base
from mm.tokens.builder import TokenBuilder

from .language_stage import train_language
from .memories import Memories
from .packing import Batch
from .replay_stage import full_batch, mixed_batch, with_memory
from .rows import RowMaker
from .shards import Shards

RANK = 32
RATE = 3e-3
_TARGET = r".*language_model.*_proj"


def batches(
    shards: Shards, memories: Memories, builder: TokenBuilder, first: int, steps: int
) -> Iterator[Batch]:
    """Batch number n is a function of n alone; all but every fourth are of whole memories."""
    maker = RowMaker(builder)
    for number in range(first, steps):
        rng = random.Random(f"full {number}")
        pick = partial(with_memory, shards, memories, rng)
        yield mixed_batch(maker, pick, rng) if number % 4 == 3 else full_batch(maker, pick, rng)


def train_full(
    model: Qwen3VLForConditionalGeneration,
    builder: TokenBuilder,
    shards: Shards,
    memories: Memories,
    folder: Path,
    *,
    steps: int,
) -> PeftModel:
    """`model` with a LoRA adapter of its decoder, trained; resumes from `folder`/full.pt."""
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=_TARGET, task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    made = partial(batches, shards, memories, builder)
    train_language(model, made, folder, steps=steps, rate=RATE, name="full")
    return adapted


def export_adapter(adapted: PeftModel, folder: Path, base: str) -> None:
    """Write the adapter in bf16; it names `base` as the model that it goes on."""
    adapted.peft_config["default"].base_model_name_or_path = base
    adapted.bfloat16().save_pretrained(str(folder))
    write_base(folder, find(base))
    (folder / "adapter_model.safetensors").chmod(0o644)
    (folder / "README.md").unlink(missing_ok=True)
