"""What every training begins with: the model, the rows, and the arguments of its trainer."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from accelerate import PartialState
from accelerate.utils import DistributedType

import mm
from mm.errors import ModelUnavailable
from mm.local.hf_vlm import HFVLM
from mm.tokens.builder import TokenBuilder
from mm.types import Drawn, Image
from training.batching.replay_rows import memory_of, replayed
from training.data import Access, BadData, Row, read_data, refuse, split_names
from training.evaluation.controls import greyed
from training.trainers.course import Rows
from training.trainers.fsdp import is_sharded

from .plan import Plan, cores
from .recipe import Recipe

T = TypeVar("T")

HELD_OUT = 20
"""One image in so many is held out where a recipe names no held-out rows."""

WITHOUT_FSDP = (DistributedType.NO, DistributedType.MULTI_CPU)
"""Where accelerate does not turn FSDP on, though it is launched with it."""

ENOUGH = 200
"""Rows from which on some are held out."""


def load_trainable(recipe: Recipe, processes: PartialState) -> HFVLM:
    """The recipe's model on its device, or on that of this one of several processes.

    Raises:
        BadData: the launcher would take weights apart that could not be put together.
        ModelUnavailable: it cannot be loaded, or is of a family that the token builder lacks.
    """
    _check_launcher(processes)
    several = processes.num_processes > 1
    device = recipe.device or (str(processes.device) if several else None)
    vlm = mm.load(recipe.model, device=device, threads=cores(), quantize=recipe.quantize)
    if not isinstance(vlm, HFVLM):
        raise ModelUnavailable(f"{recipe.model}: only families that `mm info` lists can be trained")
    return vlm


def _check_launcher(processes: PartialState) -> None:
    if os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3":
        raise BadData(
            "ZeRO-3: questions are answered by whole weights, which FSDP can put together: "
            "training/recipes/accelerate/fsdp.yaml"
        )
    if is_sharded() and os.environ.get("FSDP_VERSION") != "2":
        raise BadData("FSDP: expected version 2, as in training/recipes/accelerate/fsdp.yaml")
    if is_sharded() and processes.distributed_type in WITHOUT_FSDP:
        raise BadData(
            f"FSDP: expected accelerators, found {processes.device}: launch without --config_file"
        )


def read_rows(recipe: Recipe, path: str, vlm: HFVLM, measure: Callable[[Row], int]) -> Rows:
    """The rows of `path`, each read, built and measured once before anything is trained.

    Raises:
        BadData: with a line for each row that cannot be learnt from.
    """
    data = read_data(
        Path(path),
        dialect=recipe.format,
        access=Access(recipe.allow_absolute_paths, recipe.allow_urls),
        ignore=split_names(recipe.ignore),
    ).shown_to(vlm.builder)
    data = replace(data, change=_change(recipe, vlm))
    found = list(shown(data.each(partial(_measured, measure)), len(data), f"reading {path}"))
    refuse(found)
    sound = [each for each in found if not isinstance(each, BadData)]
    lengths, seen = zip(*sound, strict=True)
    return Rows(data, range(len(data)), lengths, linked(seen))


def asked(recipe: Recipe, rows: Rows) -> Rows:
    """`rows` as questions: what a strategy brings is left out of them."""
    return replace(rows, data=replace(rows.data, change=_blind if recipe.blind else None))


def split(rows: Rows) -> tuple[Rows, Rows | None]:
    """Rows to train on and to hold out, no image among both; none are held out of a few."""
    out = [zlib.crc32(key.encode()) % HELD_OUT == 0 for key in rows.keys]
    if len(rows) < ENOUGH or not any(out) or all(out):
        return rows, None
    return rows.some([not held for held in out]), rows.some(out)


def shown(results: Iterable[T], total: int, doing: str) -> Iterator[T]:
    """`results`, with a bar on a terminal."""
    if not sys.stderr.isatty():
        yield from results
        return
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(results, doing, total=total, console=console, transient=True)


def arguments(
    config: Any, recipe: Recipe, plan: Plan, folder: Path, *, best: str | None, **more: Any
) -> Any:
    """Arguments of TRL's trainer in its class `config`; checks are asked for by our callback.

    `best` is the log's key that chooses the best checkpoint; None where nothing is held out.
    """
    return config(
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
        save_total_limit=2,
        eval_strategy="steps" if best else "no",
        eval_steps=10**9,
        load_best_model_at_end=best is not None,
        metric_for_best_model=best,
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


def _change(recipe: Recipe, vlm: HFVLM) -> Callable[[Row], Row] | None:
    """What is made of each row before it trains."""
    if recipe.looks == "replay":
        memory_of(vlm.builder)
        return partial(_replayed, recipe.blind, vlm.builder)
    return _blind if recipe.blind else None


def _replayed(blind: bool, builder: TokenBuilder, row: Row) -> Row:
    return replayed(builder, _blind(row) if blind else row)


def _blind(row: Row) -> Row:
    return replace(
        row,
        messages=greyed(row.messages),
        chosen=greyed(row.chosen),
        rejected=greyed(row.rejected),
    )


def linked(seen: Sequence[Sequence[str]]) -> list[str]:
    """A name for each row's group: rows that share an image, at first or second hand, are one."""
    above: dict[str, str] = {}
    for images in seen:
        tops = {_top(above, each) for each in images}
        first = min(tops)
        above.update(dict.fromkeys(tops, first))
    return [_top(above, images[0]) for images in seen]


def _top(above: dict[str, str], name: str) -> str:
    """The one that stands for the group of `name`; what lies between is shortened."""
    path = []
    while (higher := above.setdefault(name, name)) != name:
        path.append(name)
        name = higher
    above.update(dict.fromkeys(path, name))
    return name


def _measured(measure: Callable[[Row], int], row: Row) -> tuple[int, tuple[str, ...]]:
    """A row's length, and what names its images, those of a pair's sides too."""
    said = (*row.messages, *row.chosen, *row.rejected)
    seen = dict.fromkeys(_name_of(each.source) for message in said for each in message.visuals)
    return measure(row), tuple(seen) or (row.id,)


def _name_of(image: Image) -> str:
    """What names an image, also where a grey one is shown instead."""
    return image.origin.parent if isinstance(image.origin, Drawn) else image.id
