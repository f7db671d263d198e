"""What every training starts from: the model, the rows, and the arguments of its trainer."""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from accelerate import PartialState
from accelerate.utils import DistributedType

import mm
from mm.engine.engine import Engine
from mm.errors import ModelUnavailable
from mm.local.adapters import base_of, with_adapter
from mm.local.checkpoints import find
from mm.local.fingerprint import check_base
from mm.local.hf_vlm import HFVLM
from mm.tokens.builder import TokenBuilder
from training.batching.built_rows import Build, BuiltRows, Sides
from training.data import Access, BadData, Row, read_data, refuse, split_names
from training.trainers.course import Rows
from training.trainers.model_parts import is_sharded

from .plan import Plan, cpu_threads, merges
from .recipe import Recipe

T = TypeVar("T")

HELD_OUT = 20
"""One image in so many is held out where a recipe names no held-out rows."""

WITHOUT_FSDP = (DistributedType.NO, DistributedType.MULTI_CPU)
"""Where accelerate does not turn FSDP on, though it is launched with it."""

ENOUGH = 200
"""Rows are held out only where there are at least so many."""


def load_trainable(recipe: Recipe, processes: PartialState) -> HFVLM:
    """The recipe's model on its device, or on that of this one of several processes.

    An adapter is merged into its base first: what trains begins where the adapter ended.

    Raises:
        BadData: the launcher would shard weights in a way that cannot be gathered; or the recipe
            wants of an adapter what only a whole model can be.
        ModelUnavailable: it cannot be loaded, or is of a family that the token builder lacks.
    """
    _check_launcher(processes)
    if not merges(recipe):
        return _loaded(recipe, recipe.model, processes)
    folder = find(recipe.model)
    base = base_of(folder)
    _check_mergeable(recipe, base)
    check_base(folder, find(base))
    vlm = _loaded(recipe, base, processes)
    model = with_adapter(vlm.engine.model, str(folder)).merge_and_unload()
    return HFVLM(Engine(model.eval(), vlm.builder), name=recipe.model)


def _check_mergeable(recipe: Recipe, base: str) -> None:
    """Refuse an adapter that is wanted again, or in few bits, of a model that has one merged in:
    that is nowhere on disk, and what comes of it is written whole."""
    for flag, asked in (("--lora", recipe.lora), ("--quantize", recipe.quantize)):
        if asked:
            raise BadData(
                f"--model {recipe.model} is an adapter: leave {flag} out, and a whole model is "
                f"written; or give its base, --model {base}"
                + (", for a verifier of pairs of --kind verdict" if recipe.method == "dpo" else "")
            )


def _loaded(recipe: Recipe, name: str, processes: PartialState) -> HFVLM:
    several = processes.num_processes > 1
    device = recipe.device or (str(processes.device) if several else None)
    vlm = mm.load(
        name,
        device=device,
        threads=cpu_threads(),
        quantize=recipe.quantize,
        max_pixels=recipe.max_pixels,
        min_pixels=recipe.min_pixels,
        visual_tokens=recipe.visual_tokens,
        look_visual_tokens=recipe.look_visual_tokens,
    )
    if not isinstance(vlm, HFVLM):
        raise ModelUnavailable(f"{name}: only families that `mm info` lists can be trained")
    return vlm


def _check_launcher(processes: PartialState) -> None:
    if os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3":
        raise BadData(
            "ZeRO-3 is not supported: answering needs all weights gathered; use FSDP, "
            "training/recipes/accelerate/fsdp.yaml"
        )
    if is_sharded() and os.environ.get("FSDP_VERSION") != "2":
        raise BadData("FSDP: expected version 2, as in training/recipes/accelerate/fsdp.yaml")
    if is_sharded() and processes.distributed_type in WITHOUT_FSDP:
        raise BadData(
            f"FSDP: expected accelerators, found {processes.device}: launch without --config_file"
        )


def read_rows(plan: Plan, path: str, vlm: HFVLM, build: Build) -> Rows:
    """The rows of `path`, each read and built once before anything is trained.

    Clips become frames, but in grpo, whose strategy opens them.

    Raises:
        BadData: with a line for each row that cannot be learnt from.
    """
    recipe = plan.recipe
    data = read_data(
        Path(path),
        dialect=recipe.format,
        access=Access(recipe.allow_absolute_paths, recipe.allow_urls),
        ignore=split_names(recipe.ignore),
    )
    sampled = recipe.method == "grpo"
    data = data.asked_of(lambda: vlm.builder) if sampled else data.shown_to(vlm.builder)
    data = replace(data, change=change_of(recipe, vlm.builder))
    rows = BuiltRows(data, build, plan.row_bytes)
    bad, lengths, images, targets = [], [], [], []
    results = with_progress_bar(data.each(partial(_built, build)), len(data), f"reading {path}")
    for index, found in enumerate(results):
        if isinstance(found, BadData):
            bad.append(found)
            continue
        name, sides, target = found
        length, of_row = rows.add(index, sides)
        lengths.append(length)
        images.append(of_row or (name,))
        targets.append(target)
    refuse(bad)
    return Rows(rows, range(len(data)), lengths, images, targets)


def split(rows: Rows) -> tuple[Rows, Rows | None]:
    """Rows to train on and to hold out, no image among both; none are held out of a few."""
    keys = linked(rows.images)
    out = [zlib.crc32(key.encode()) % HELD_OUT == 0 for key in keys]
    if len(rows) < ENOUGH or not any(out) or all(out):
        return rows, None
    return rows.some([not held for held in out]), rows.some(out)


def with_progress_bar(results: Iterable[T], total: int, doing: str) -> Iterator[T]:
    """`results`, with a bar on a terminal."""
    if not sys.stderr.isatty():
        yield from results
        return
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(results, doing, total=total, console=console, transient=True)


def training_arguments(
    config: Any, plan: Plan, folder: Path, *, best_metric: str | None, **more: Any
) -> Any:
    """Arguments of TRL's trainer in its class `config`; our callback decides when to evaluate.

    `best_metric` is the log's key that chooses the best checkpoint; None where no row is held out.
    """
    recipe = plan.recipe
    arguments = config(
        output_dir=str(folder),
        num_train_epochs=plan.epochs,
        max_steps=recipe.max_steps or -1,
        learning_rate=plan.learning_rate,
        weight_decay=0.01,
        bf16=plan.autocast,
        use_cpu=plan.device == "cpu",
        gradient_checkpointing=plan.checkpointing,
        seed=recipe.seed,
        logging_strategy="steps",
        logging_steps=10**9,
        save_strategy="steps",
        save_steps=10**9,
        eval_strategy="steps" if best_metric else "no",
        eval_steps=10**9,
        load_best_model_at_end=best_metric is not None,
        metric_for_best_model=best_metric,
        prediction_loss_only=True,
        disable_tqdm=True,
        report_to=[recipe.report_to] if recipe.report_to else [],
        run_name=recipe.output,
        remove_unused_columns=False,
        dataloader_pin_memory=plan.device != "cpu",
        ddp_find_unused_parameters=True,
        accelerator_config={"even_batches": False},
        **{"gradient_accumulation_steps": recipe.accumulate, **more},
    )
    return _on_one_gpu(arguments)


def _on_one_gpu(arguments: Any) -> Any:
    """`arguments` of a process that trains on its own GPU alone, however many it sees.

    transformers would split each batch among them, whose rows share what they show.
    """
    _ = arguments.device  # counts them, once
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def change_of(recipe: Recipe, builder: TokenBuilder | None) -> Callable[[Row], Row] | None:
    """The change to each row before it trains, for the model of `builder`; without a builder: the
    change to a row that is only asked, where the strategy does the looking.

    Raises:
        BadData: rows are to be replayed, and the model has no visual memory.
    """
    if builder is not None and recipe.looks == "replay":
        from training.batching.replay_rows import memory_of

        memory_of(builder)
        return partial(_replayed, recipe.blind, builder)
    return _blinded if recipe.blind else None


def _replayed(blind: bool, builder: TokenBuilder, row: Row) -> Row:
    from training.batching.replay_rows import replayed

    return replayed(builder, _blinded(row) if blind else row)


def _blinded(row: Row) -> Row:
    from training.evaluation.controls import greyed

    return replace(
        row,
        messages=greyed(row.messages),
        chosen=greyed(row.chosen),
        rejected=greyed(row.rejected),
        depth="",
    )


def linked(rows: Sequence[Sequence[str]]) -> list[str]:
    """A name for each row's group: rows linked by images that they share, directly or not."""
    above: dict[str, str] = {}
    for images in rows:
        tops = {_top(above, each) for each in images}
        first = min(tops)
        above.update(dict.fromkeys(tops, first))
    return [_top(above, images[0]) for images in rows]


def _top(above: dict[str, str], name: str) -> str:
    """The root of the group of `name`; shortens the path to it."""
    path = []
    while (higher := above.setdefault(name, name)) != name:
        path.append(name)
        name = higher
    above.update(dict.fromkeys(path, name))
    return name


def _built(build: Build, row: Row) -> tuple[str, Sides, int]:
    """The row's name, its sequences, and a checksum of what it teaches."""
    sides = build(row)
    return row.id, sides, _target(row, sides)


def _target(row: Row, sides: Sides) -> int:
    """A checksum of what `row` teaches, besides its images."""
    ids = [(tokens.ids, tokens.trained) for tokens in sides]
    regions = [astuple(region) for region in row.regions]
    replies = [said.text for said in row.messages if said.role == "assistant"]
    right = (row.answer, row.choices, regions, row.source, replies)
    return zlib.crc32(json.dumps([ids, right]).encode())
