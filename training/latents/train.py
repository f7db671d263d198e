"""`mm train depth`: latents of depth, in two stages, in a folder that can go on after a kill."""

from __future__ import annotations

import json
import math
import random
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from rich.progress import track
from torch import Tensor

import mm
from mm.errors import door
from mm.local.hf_vlm import HFVLM
from mm.local.precision import fast_autocast
from mm.lru_cache import LRUCache
from training.batching.collator import Collator
from training.batching.image_features import FrozenFeatureCache
from training.data import BadData
from training.trainers.checkpoints import (
    Checkpoint,
    path_of,
    prune,
    seal,
    whole_checkpoints,
    write_whole,
)
from training.trainers.lora import let_learn, save_adapter
from vision.latent_reader import features_of
from vision.midi import Midi, save_midi

from .example import Example, example_of, without_pixels
from .losses import answering_loss, distilling_loss, total
from .reading import ReadRows, read_features, read_through
from .recipe import LatentsRecipe
from .rows import DepthRows, read_depth_rows
from .setup import check_whole, coupled, loaded, module_for
from .stopping import stopping

SETTINGS, LOG, STATE, CHECKPOINTS = "latents.json", "log.jsonl", "state.pt", "checkpoints"
FINISHED = "finished.json"
WARMUP = 0.02
SAVE_EVERY_S = 60.0
CACHE = 2**30
"""Bytes of features that are kept, of images and of rows."""


@dataclass
class _Run:
    """A training in progress."""

    recipe: LatentsRecipe
    vlm: HFVLM
    midi: Midi
    model: Any
    rows: DepthRows
    examples: LRUCache[int, Example] = field(default_factory=lambda: LRUCache(CACHE))
    seen: LRUCache[str, Tensor] = field(default_factory=lambda: LRUCache(CACHE))

    @cached_property
    def steps(self) -> int:
        """Batches in all."""
        return max(math.ceil(len(self.rows) * self.recipe.epochs / self.recipe.batch), 1)

    def example(self, index: int) -> Example:
        """Row number `index`, made ready once."""
        made = self.examples.get(index)
        if made is None:
            made = self._made(index)
            kept = without_pixels(made, partial(self._made, index))
            self.examples.put(index, kept, kept.image.nbytes + kept.depth.nbytes)
        return made

    def _made(self, index: int) -> Example:
        return example_of(self.rows[index], self.vlm.builder, self._see, self.midi)

    def _see(self, images: Sequence[mm.Image]) -> list[Tensor]:
        """The features of `images`, of which many rows may share one."""
        known = [self.seen.get(image.id) for image in images]
        return [
            self._encoded(image) if features is None else features
            for image, features in zip(images, known, strict=True)
        ]

    def _encoded(self, image: mm.Image) -> Tensor:
        (found,) = features_of(self.vlm.engine, [image])
        self.seen.put(image.id, found, found.nbytes)
        return found

    def batch(self, number: int) -> list[Example]:
        """Batch `number`, a function of the number and the seed alone."""
        at, size, count = number * self.recipe.batch, self.recipe.batch, len(self.rows)
        return [
            self.example(_shuffled(count, n // count, self.recipe.seed)[n % count])
            for n in range(at, at + size)
        ]


def train_latents(
    recipe: LatentsRecipe, *, resume: bool = False, stop: Callable[[int], bool] | None = None
) -> None:
    """Train as `recipe` says, into its output folder; `stop` ends it before a step, for tests.

    Ctrl-C ends it behind a step, with a checkpoint.

    Raises:
        BadData: a row cannot be learnt from, or the folder holds something else.
        ModelUnavailable: the model cannot be loaded, or is of no listed family.
        UserError: the recipe cannot be.
    """
    folder = recipe.output
    if _begun(folder, recipe, resume=resume):
        print(f"{folder} is trained to its end", file=sys.stderr)
        return
    check_whole(recipe)
    rows = read_depth_rows(
        recipe.data,
        scale=recipe.depth_scale,
        kind=recipe.depth_kind,
        rationales=recipe.stage == 1,
        access=recipe.access,
    )
    vlm = loaded(recipe)
    midi = module_for(recipe, vlm).to(vlm.engine.model.device)
    run = _Run(recipe, vlm, midi, coupled(recipe, midi, vlm), rows)
    with door(f"--output {folder} cannot be written", BadData):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / SETTINGS, json.dumps(recipe.settings, indent=1) + "\n")
    with stopping() as stopped:
        done = _train(run, folder, lambda step: stopped() or bool(stop and stop(step)))
    if done < run.steps:
        print(
            f"ended by --max-minutes after {done} of {run.steps} steps; --resume with a larger one "
            "goes on from here",
            file=sys.stderr,
        )
    _save(run, folder, done)


def _begun(folder: Path, recipe: LatentsRecipe, *, resume: bool) -> bool:
    """Whether the training has come to its end.

    Raises:
        BadData: the folder holds something else, or a training with other settings.
    """
    known = folder / SETTINGS
    if not known.is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BadData(f"{folder} is not empty: give another --output")
        return False
    if not resume:
        raise BadData(f"{folder} is not empty: go on with --resume, or give another --output")
    with door(f"{known} is spoilt", BadData, "remove the folder, or give another --output"):
        before = json.loads(known.read_text(encoding="utf-8"))
    if changed := [k for k, v in recipe.settings.items() if before.get(k) != v]:
        told = ", ".join(f"{k} {before.get(k)!r}, not {recipe.settings[k]!r}" for k in changed)
        raise BadData(f"{folder} was begun with {told}: give the same, or another --output")
    return (folder / FINISHED).is_file()


def _train(run: _Run, folder: Path, stop: Callable[[int], bool] | None) -> int:
    """Train to the end, or to the end of the time; the steps that were taken.

    Raises:
        KeyboardInterrupt: it was stopped; a checkpoint is written.
    """
    recipe = run.recipe
    trained = [p for p in [*run.midi.parameters(), *run.model.parameters()] if p.requires_grad]
    rate = recipe.learning_rate or (1e-3 if run.vlm.engine.model.num_parameters() < 1e8 else 2e-5)
    optimizer = torch.optim.AdamW(trained, rate, weight_decay=0.01)
    first, before_s = _resumed(run, optimizer, folder)
    _cut_log(folder, first)
    losses_of = _losses(run)
    start, saved, steps = time.monotonic() - before_s, time.monotonic(), run.steps
    run.midi.train()
    for number in track(range(first, steps), f"stage {recipe.stage}"):
        if stop and stop(number):
            _checkpoint(run, optimizer, folder, number, time.monotonic() - start)
            print("stopped; the same command with --resume goes on from here", file=sys.stderr)
            raise KeyboardInterrupt
        spent = time.monotonic() - start
        done = (spent / 60 / recipe.max_minutes) if recipe.max_minutes else 0.0
        if done >= 1 and number:
            _checkpoint(run, optimizer, folder, number, spent)
            return number
        for group in optimizer.param_groups:
            group["lr"] = rate * _share(max(number / steps, done))
        batch = run.batch(number)
        with fast_autocast(run.midi.device):
            losses = losses_of(batch)
        let_learn(run.model)
        total(losses).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _log(folder, number, losses, time.monotonic() - start)
        if time.monotonic() - saved > SAVE_EVERY_S:
            _checkpoint(run, optimizer, folder, number + 1, time.monotonic() - start)
            saved = time.monotonic()
    return steps


def _losses(run: _Run) -> Callable[[Sequence[Example]], dict[str, Tensor]]:
    """What the stage learns by, of a batch."""
    collator, encode = Collator(run.vlm.builder), FrozenFeatureCache(CACHE)
    read: ReadRows = read_features
    if run.midi.config.reads == "model":
        read = partial(read_through, run.model, collator, encode)
    if run.recipe.stage == 1:
        return partial(distilling_loss, run.model, run.midi, read)
    return partial(answering_loss, run.model, run.midi, read, collator, encode=encode)


def _share(done: float) -> float:
    """Of the learning rate, where so much of the training is done: a rise, then a cosine."""
    if done < WARMUP:
        return max(done / WARMUP, 0.05)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


@lru_cache(maxsize=2)  # a batch may end one epoch and begin the next
def _shuffled(count: int, epoch: int, seed: int) -> Sequence[int]:
    order = list(range(count))
    random.Random(f"{seed} {epoch}").shuffle(order)
    return tuple(order)


def _cut_log(folder: Path, first: int) -> None:
    """Remove what the log says of steps that are taken again."""
    file = folder / LOG
    if not file.exists():
        return
    lines = file.read_text(encoding="utf-8").splitlines()[:first]
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _log(folder: Path, step: int, losses: Mapping[str, Tensor], seconds: float) -> None:
    told = {name: round(loss.item(), 4) for name, loss in losses.items()}
    with (
        door(f"{folder / LOG} cannot be written", BadData),
        (folder / LOG).open("a", encoding="utf-8") as file,
    ):
        file.write(json.dumps({"step": step, **told, "seconds": round(seconds, 1)}) + "\n")


def _trained(model: Any) -> dict[str, Tensor]:
    return {k: p.detach() for k, p in model.named_parameters() if p.requires_grad}


def _checkpoint(run: _Run, optimizer: Any, folder: Path, step: int, seconds: float) -> None:
    aside = folder / CHECKPOINTS / "checkpoint.part"
    state = {
        "midi": run.midi.state_dict(),
        "adapter": _trained(run.model),
        "optimizer": optimizer.state_dict(),
    }
    with door(f"{aside} cannot be written", BadData, "--resume goes on once there is room"):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        torch.save(state, aside / STATE)
        seal(aside, Checkpoint(path_of(folder / CHECKPOINTS, step), step, seconds))
        prune(folder / CHECKPOINTS)


def _resumed(run: _Run, optimizer: Any, folder: Path) -> tuple[int, float]:
    """The step to go on from, and the seconds until it."""
    found = next(iter(whole_checkpoints(folder / CHECKPOINTS)), None)
    if found is None:
        return 0, 0.0
    # each part goes where it belongs now: the device may be another
    state = torch.load(found.folder / STATE, map_location="cpu", weights_only=True)
    run.midi.load_state_dict(state["midi"])
    run.model.load_state_dict(state["adapter"], strict=False)
    optimizer.load_state_dict(state["optimizer"])
    print(f"going on from step {found.step}", file=sys.stderr)
    return found.step, found.seconds


def _save(run: _Run, folder: Path, steps: int) -> None:
    """Write what was trained; the checkpoints stay where more `steps` may follow."""
    save_midi(run.midi, folder)
    if isinstance(run.model, PeftModel):
        save_adapter(run.model, run.recipe.model, folder)
    if steps < run.steps:
        return
    (folder / FINISHED).write_text(json.dumps({"steps": steps}) + "\n", encoding="utf-8")
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
