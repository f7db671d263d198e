"""The folder of a training: its checkpoints meanwhile, and at the end a model that loads."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mm.local.checkpoints import find
from training.data import BadData
from training.trainers.model_parts import bare

from .plan import Plan
from .recipe import Recipe

CHECKPOINTS = "checkpoints"
LOG = "log.jsonl"


def begin_output(folder: Path, recipe: Recipe, *, resume: bool) -> None:
    """Make the folder of a training, its recipe in it.

    Raises:
        BadData: it holds something else; or there is nothing in it to go on with.
    """
    begun = folder / "recipe.json"
    if resume and not any((folder / CHECKPOINTS).glob("checkpoint-*")):
        raise BadData(f"{folder} has no checkpoint to go on from: leave --resume out")
    if not resume and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        remedy = "go on with --resume, or " if begun.is_file() else ""
        raise BadData(f"{folder} is not empty: {remedy}give another --output")
    folder.mkdir(parents=True, exist_ok=True)
    begun.write_text(json.dumps(asdict(recipe), indent=1) + "\n", encoding="utf-8")


def spent_before(folder: Path) -> float:
    """Seconds that a training had taken when it wrote its last checkpoint."""
    steps = [int(p.name.partition("-")[2]) for p in (folder / CHECKPOINTS).glob("checkpoint-*")]
    lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["step"] <= max(steps)]
    return max((row["seconds"] for row in rows), default=0.0)


def save_model(trainer: Any, plan: Plan, folder: Path) -> None:
    """Write the trained model, or its adapter, with all that a checkpoint needs beside it.

    All processes must call it; the first one writes.
    """
    name = plan.recipe.model
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    bare(model)._modules.pop("box_head", None)  # of training alone: boxes are read from the text
    source = find(name)
    weights = trainer.accelerator.get_state_dict(trainer.model) if plan.sharded else None
    if not trainer.accelerator.is_main_process:
        return
    if hasattr(model, "peft_config"):
        base = name if not Path(name).exists() else str(source.resolve())
        model.active_peft_config.base_model_name_or_path = base
        model.save_pretrained(folder, state_dict=weights)
        return
    named = json.loads((source / "config.json").read_text(encoding="utf-8")).get("dtype")
    kind = getattr(torch, str(named), None) or next(model.parameters()).dtype
    if weights is None:
        model.to(kind)
    else:
        weights = {name: each.to(kind) for name, each in weights.items()}
    model.save_pretrained(folder, state_dict=weights)
    for file in (*source.glob("*.json"), *source.glob("*.jinja"), *source.glob("*.model")):
        if not (folder / file.name).exists() and not file.name.endswith(".index.json"):
            shutil.copyfile(file, folder / file.name)
