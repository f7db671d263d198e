"""The folder of a training: its settings, its checkpoints meanwhile, at the end a model that loads.

Whatever is written there is written aside and moved into place, so that a training that died at any
moment can go on, by `--resume`.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mm.errors import UserError, first_line
from mm.local.adapters import checkpoint_of
from mm.local.checkpoints import BESIDE, safetensors_header
from training.data import BadData
from training.trainers.checkpoints import (
    ASIDE,
    Checkpoint,
    move_all,
    prune,
    whole_checkpoints,
    write_whole,
)
from training.trainers.lora import save_adapter
from training.trainers.model_parts import bare

from .plan import Plan, merges
from .recipe import Recipe

CHECKPOINTS = "checkpoints"
LOG = "log.jsonl"
RECIPE, RUN, FINISHED = "recipe.json", "run.json", "finished.json"

CHECKSUMS = {"rows": "other rows of --data", "targets": "other replies or answers in --data"}
"""What a change of a checksum in `RUN` tells, whose numbers say nothing to a person."""

MAY_CHANGE = ("output", "device", "report_to", "allow_absolute_paths", "allow_urls")
"""Keys that may change when a training is resumed; any other would change the result."""

CHOICES = ("lora", "vision", "learning_rate", "batch_tokens", "epochs", "autocast", "muon")
"""Choices of a plan that a resumed training keeps, on any machine."""


def is_finished(folder: Path, recipe: Recipe, *, resume: bool) -> bool:
    """Whether a training of `recipe` in `folder` has come to its end; nothing is written.

    Raises:
        BadData: the folder holds something else, or a training with other settings.
    """
    if folder.exists() and not folder.is_dir():
        raise BadData(f"{folder} is a file: give another --output")
    known = _read(folder / RECIPE)
    if known is None:
        if folder.exists() and any(not _is_ours(path) for path in folder.iterdir()):
            raise BadData(f"{folder} is not empty: give another --output")
        return False
    if not resume:
        raise BadData(f"{folder} is not empty: go on with --resume, or give another --output")
    wanted = json.loads(json.dumps(asdict(recipe)))
    changed = [k for k in wanted if k not in MAY_CHANGE and wanted[k] != known.get(k)]
    if changed:
        told = ", ".join(f"{k} {known.get(k)!r}, not {wanted[k]!r}" for k in changed)
        raise BadData(f"{folder} was begun with {told}: give the same, or another --output")
    return (folder / FINISHED).is_file()


def begun_run(folder: Path) -> Mapping[str, Any] | None:
    """What a resumed training must keep; None for a new one."""
    return _read(folder / RUN) if (folder / RECIPE).is_file() else None


def begin_run(folder: Path, recipe: Recipe, run: Mapping[str, Any]) -> None:
    """Write what a training must keep when it goes on, or check it.

    What an earlier version, which began it, did not write down is not checked.

    Raises:
        BadData: it is not what the training was begun with.
    """
    known = begun_run(folder)
    if known is None:
        (folder / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        write_whole(folder / RUN, json.dumps(run, indent=1) + "\n")
        write_whole(folder / RECIPE, json.dumps(asdict(recipe), indent=1) + "\n")
    elif changed := [key for key in run if run[key] != known.get(key, run[key])]:
        told = ", ".join(CHECKSUMS.get(key) or _change(key, known, run) for key in changed)
        raise BadData(f"{folder} was begun with {told}: give the same, or another --output")


def _change(key: str, known: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    return f"{key} {known.get(key)!r}, not {run[key]!r}"


def last_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint of the training in `folder`."""
    return next(iter(whole_checkpoints(folder / CHECKPOINTS)), None)


def clear_for(folder: Path, checkpoint: Checkpoint | None) -> None:
    """Remove what is spoilt, or came after `checkpoint`, and say where the training goes on."""
    newest = max(map(_step, (folder / CHECKPOINTS).glob("checkpoint-*")), default=0)
    start = f"step {checkpoint.step}" if checkpoint else "the beginning"
    spoilt = f"checkpoint-{newest} is not whole: " if newest > _at(checkpoint) else ""
    print(f"{spoilt}going on from {start}", file=sys.stderr)
    prune(folder / CHECKPOINTS)
    _cut_log(folder / LOG, _at(checkpoint))


def finish(folder: Path, result: Mapping[str, Any]) -> None:
    """Mark the training in `folder` as finished."""
    write_whole(folder / FINISHED, json.dumps(result) + "\n")


def read_log(log: Path) -> list[dict[str, Any]]:
    """The rows of a log; a line that a death cut off is left out."""
    rows = []
    for line in log.read_text(encoding="utf-8").splitlines() if log.is_file() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


@contextmanager
def refusing_full_disk(folder: Path) -> Iterator[None]:
    """Reports in one line that something cannot be written.

    Raises:
        UserError: the disk, or the share of it that one may use, is full.
    """
    try:
        yield
    except Exception as error:
        reason = _unwritable(error)
        if reason is None:
            raise
        shutil.rmtree(folder / CHECKPOINTS / ASIDE, ignore_errors=True)
        remedy = "free some space, then go on with --resume"
        raise UserError(f"{folder} cannot be written ({reason}): {remedy}") from error


def save_model(trainer: Any, plan: Plan, folder: Path) -> None:
    """Write the trained model, or its adapter, with all that a checkpoint needs beside it.

    An adapter that was trained on top of another one is written as a whole model.

    All processes must call it; the first one writes. The file that makes it a model comes last.
    """
    aside = folder / "model.part"
    if trainer.accelerator.is_main_process:
        shutil.rmtree(aside, ignore_errors=True)
    _save(trainer, plan, aside)
    if not trainer.accelerator.is_main_process:
        return
    last = ("config.json", "adapter_config.json")
    move_all(sorted(aside.iterdir(), key=lambda file: file.name in last), folder)
    aside.rmdir()


def _save(trainer: Any, plan: Plan, folder: Path) -> None:
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    bare(model)._modules.pop("box_head", None)  # of training alone: boxes are read from the text
    weights = trainer.accelerator.get_state_dict(trainer.model) if plan.sharded else None
    if not trainer.accelerator.is_main_process:
        return
    if plan.lora and not merges(plan.recipe):
        save_adapter(model, plan.recipe.model, folder, weights)
        return
    model = model.merge_and_unload() if plan.lora else model
    _save_whole(model, checkpoint_of(plan.recipe.model), folder, weights)


def _save_whole(model: Any, source: Path, folder: Path, weights: Any) -> None:
    """Write all weights, in the type of those in `source`, and what else a checkpoint needs."""
    kind = _dtype_of(source) or next(model.parameters()).dtype
    if weights is None:
        model.to(kind)
    else:
        weights = {name: each.to(kind) for name, each in weights.items()}
    model.save_pretrained(folder, state_dict=weights)
    for file in (file for pattern in BESIDE for file in source.glob(pattern)):
        target = folder / file.relative_to(source)
        if _belongs(file) and not target.exists():
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)


def _dtype_of(source: Path) -> torch.dtype | None:
    """The type that a checkpoint's config names, by its older keys too, else that of its largest
    weights."""
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    parts = config, config.get("text_config") or {}
    names = [str(part.get(key)) for part in parts for key in ("dtype", "torch_dtype")]
    kinds = [getattr(torch, name.removeprefix("torch."), None) for name in names]
    named = (kind for kind in kinds if isinstance(kind, torch.dtype) and kind.is_floating_point)
    return next(named, None) or _stored_dtype(source)


def _stored_dtype(source: Path) -> torch.dtype | None:
    """The type of the largest tensor of numbers; norms may be stored in a wider one."""
    headers = [safetensors_header(file) for file in source.glob("*.safetensors")]
    tensors = [each for header in headers for each in header.values() if each["dtype"] in STORED]
    largest = max(tensors, key=lambda each: math.prod(each["shape"]), default=None)
    return STORED[largest["dtype"]] if largest else None


def _belongs(file: Path) -> bool:
    """Whether a file beside weights belongs to any model that comes of them: not the list of
    their shards, nor the settings of the training that made them."""
    return not file.name.endswith(".index.json") and file.name not in (RECIPE, RUN, FINISHED)


def _cut_log(log: Path, step: int) -> None:
    """Cut a log to its whole lines up to `step`."""
    if not log.is_file():
        return
    rows = [row for row in read_log(log) if row["step"] <= step and "train_runtime" not in row]
    write_whole(log, "".join(json.dumps(row) + "\n" for row in rows))


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError:
        raise BadData(f"{path} cannot be read as JSON: give another --output") from None


def _is_ours(path: Path) -> bool:
    """Whether it is left of a training that died before its recipe was written."""
    empty = path.name == CHECKPOINTS and not any(path.iterdir())
    return empty or path.name == RUN or path.name.endswith(".part")


def _at(checkpoint: Checkpoint | None) -> int:
    return checkpoint.step if checkpoint else 0


def _step(path: Path) -> int:
    number = path.name.partition("-")[2]
    return int(number) if number.isdecimal() else 0


def _unwritable(error: BaseException | None) -> str | None:
    """Why something could not be written, if that is what `error` comes from."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return os.strerror(error.errno or 0)
        if any(words in str(error) for words in NOT_WRITTEN):
            return first_line(Exception(str(error)))
        error = error.__cause__ or error.__context__
    return None


STORED = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""Types of numbers by their names in safetensors files."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_WRITTEN = ("No space left", "File too large", "PytorchStreamWriter", "file write failed")
"""What torch and safetensors say, whose errors have no number."""
