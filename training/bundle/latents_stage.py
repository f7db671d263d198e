"""Makes `tiny-latents`, the module that reads depth into a few vectors of `tiny`'s context, with
the adapters that read for it and answer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from training.latents.recipe import LatentsRecipe
from training.latents.tabletop import PER_METRE, write_rows
from training.latents.train import train_latents
from vision.midi import READER

BATCH, EPOCHS = 32, 3.0

_COPIED = ("midi.json", "base.json")
_HALVED = ("midi.safetensors", *(f"{of}adapter_model.safetensors" for of in ("", f"{READER}/")))
_NAMED = tuple(f"{of}adapter_config.json" for of in ("", f"{READER}/"))


def train_tiny_latents(model: Path, folder: Path, *, rows: int) -> Path:
    """Draw `rows` questions about depth and train on them, in `folder`; where the result is.

    Both go on where they were stopped.
    """
    drawn, trained = folder / "depth-rows", folder / "latents"
    data = drawn / "rows.jsonl"
    if not data.is_file():
        shutil.rmtree(drawn, ignore_errors=True)
        write_rows(drawn, rows)
    recipe = LatentsRecipe(
        data,
        trained,
        stage=2,
        model=str(model),
        batch=BATCH,
        epochs=EPOCHS,
        depth_scale=PER_METRE,
    )
    train_latents(recipe, resume=trained.exists())
    return trained


def export_latents(trained: Path, base: str, to: Path) -> None:
    """Write the folder that ships, in 16 bits; the base of its adapters is named `base`."""
    (to / READER).mkdir(parents=True, exist_ok=True)
    for name in _COPIED:
        shutil.copyfile(trained / name, to / name)
    for name in _HALVED:
        tensors = load_file(trained / name)
        save_file({k: v.to(torch.bfloat16) for k, v in tensors.items()}, to / name)
        (to / name).chmod(0o644)
    for name in _NAMED:
        config = json.loads((trained / name).read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = base
        (to / name).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
