"""`mm train depth`: latents of depth, in two stages, in a folder that can go on after a kill."""

from __future__ import annotations

import json
import math
import random
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from rich.progress import track
from torch import Tensor

from mm.errors import door
from mm.local.hf_vlm import HFVLM
from mm.local.precision import fast_autocast
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
from training.trainers.lora import save_adapter
from vision.midi import Midi, save_midi

from .example import Example
from .examples import CACHE, Examples
from .folder import FINISHED, SETTINGS, cut_log, is_finished, write_log
from .losses import answering_loss, distilling_loss
from .parts import LossesOf, backward
from .reading import ReadRows, read_features, read_through
from .recipe import LatentsRecipe
from .rows import DepthRows, read_depth_rows
from .setup import check_whole, coupled, loaded, module_for
from .stopping import stopping

STATE, CHECKPOINTS = "state.pt", "checkpoints"
WARMUP = 0.02
SAVE_EVERY_S = 60.0


@dataclass
class _Run:
    """A training in progress."""

    recipe: LatentsRecipe
    vlm: HFVLM
    midi: Midi
    model: Any
    rows: DepthRows

    @cached_property
    def examples(self) -> Examples:
        """The rows made ready."""
        return Examples(self.rows, self.vlm, self.midi)

    @cached_property
    def steps(self) -> int:
        """Batches in all."""
        return max(math.ceil(len(self.rows) * self.recipe.epochs / self.recipe.batch), 1)

    @cached_property
    def trained(self) -> list[Any]:
        """The parameters that learn."""
        parameters = [*self.midi.parameters(), *self.model.parameters()]
        return [each for each in parameters if each.requires_grad]

    @cached_property
    def rate(self) -> float:
        """The learning rate at its highest."""
        small = self.vlm.engine.model.num_parameters() < 1e8
        return self.recipe.learning_rate or (1e-3 if small else 2e-5)

    def lines(self) -> list[str]:
        """What a person may want to know before the training begins."""
        recipe = self.recipe
        return [
            f"rows: {len(self.rows):,}; {self.steps:,} steps of {recipe.batch} (--batch), each row "
            f"{recipe.epochs:g} times (--epochs)",
            f"stage {recipe.stage} trains {' and '.join(self._what())}",
            f"learning rate {self.rate:g} (--learning-rate), on {self.midi.device}",
        ]

    def _what(self) -> list[str]:
        midi, adapter = self.midi, sum(p.numel() for p in _trained(self.model).values())
        size = sum(p.numel() for p in midi.parameters())
        module = {
            "midi": [f"the module ({size:,} parameters)"],
            "constant": [f"constant vectors ({midi.constant.numel():,} parameters)"],
        }
        lora = f"an adapter of {self.recipe.model} ({adapter:,}, --lora-rank)"
        return [*module.get(midi.config.kind, []), *([lora] if adapter else [])]

    def batch(self, number: int) -> list[Example]:
        """Batch `number`, a function of the number and the seed alone."""
        at, size, count = number * self.recipe.batch, self.recipe.batch, len(self.rows)
        return [
            self.examples(_shuffled(count, n // count, self.recipe.seed)[n % count])
            for n in range(at, at + size)
        ]


def train_latents(
    recipe: LatentsRecipe,
    *,
    dry_run: bool = False,
    resume: bool = False,
    stop: Callable[[int], bool] | None = None,
) -> None:
    """Train as `recipe` says, into its output folder; `stop` ends it before a step, for tests.

    Ctrl-C ends it behind a step, with a checkpoint. A dry run checks all, says what would be
    trained, and writes nothing.

    Raises:
        BadData: a row cannot be learnt from, or the folder holds something else.
        ModelUnavailable: the model cannot be loaded, or is of no listed family.
        UserError: the recipe cannot be.
    """
    folder = recipe.output
    if is_finished(folder, recipe, resume=resume):
        print(f"{folder} is trained to its end", file=sys.stderr)
        return
    check_whole(recipe)
    rows = read_depth_rows(
        recipe.data,
        scale=recipe.depth_scale,
        kind=recipe.depth_kind,
        rationales=recipe.stage == 1,
        access=recipe.access,
        dialect=recipe.format,
        ignore=recipe.ignore,
    )
    vlm = loaded(recipe)
    midi = module_for(recipe, vlm).to(vlm.engine.model.device)
    run = _Run(recipe, vlm, midi, coupled(recipe, midi, vlm), rows)
    print(*run.lines(), sep="\n", file=sys.stderr)
    if dry_run:
        return
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


def _train(run: _Run, folder: Path, stop: Callable[[int], bool] | None) -> int:
    """Train to the end, or to the end of the time; the steps that were taken.

    Raises:
        KeyboardInterrupt: it was stopped; a checkpoint is written.
    """
    recipe = run.recipe
    optimizer = torch.optim.AdamW(run.trained, run.rate, weight_decay=0.01)
    first, before_s = _resumed(run, optimizer, folder)
    cut_log(folder, first)
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
            group["lr"] = run.rate * _share(max(number / steps, done))
        losses = backward(losses_of, run.batch(number), run.midi.config, run.midi.device)
        torch.nn.utils.clip_grad_norm_(run.trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        write_log(folder, number, losses, time.monotonic() - start)
        if time.monotonic() - saved > SAVE_EVERY_S:
            _checkpoint(run, optimizer, folder, number + 1, time.monotonic() - start)
            saved = time.monotonic()
    return steps


def _losses(run: _Run) -> LossesOf:
    """What the stage learns by, of examples."""
    midi, collator, encode = run.midi, Collator(run.vlm.builder), FrozenFeatureCache(CACHE)
    read: ReadRows = read_features
    if midi.config.reads == "model":
        read = partial(read_through, run.model, collator, encode)
    made = partial(distilling_loss, run.model, midi, read)
    if run.recipe.stage == 2:
        made = partial(answering_loss, run.model, midi, read, collator, encode=encode)

    def losses(examples: Sequence[Example]) -> Mapping[str, Tensor]:
        with fast_autocast(midi.device):
            return made(examples)

    return losses


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
