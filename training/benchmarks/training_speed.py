"""What training by tokens is worth: samples per second against TRL's collator and fixed batches.

Both sides run TRL's SFT trainer on the same rows, weights, dtype, threads, optimiser and attention,
and train the same tokens. Theirs takes the largest batch whose peak of memory is no higher than
ours. A round is a training of three epochs, as `mm train sft` does where nobody says how many; ours
begins each with empty caches.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import SaveStrategy
from trl.trainer.sft_config import SFTConfig

import mm
from mm.local.hf_vlm import HFVLM
from training.batching.built_rows import BuiltRows
from training.batching.collator import Collator
from training.batching.image_features import FrozenFeatureCache, encode_images
from training.data import read_data
from training.finetune.plan import Plan, cpu_threads, make_plan, prepare_model
from training.finetune.recipe import Recipe
from training.finetune.setup import training_arguments
from training.tabletop.render import render
from training.tabletop.scene import Scene, make_scene
from training.tabletop.traces import caption
from training.trainers.course import Course, Rows
from training.trainers.schedule import Pace
from training.trainers.sft import SFT

from .engine_speed import FIRST_SCENE
from .measure import Measured, alternate
from .trl_baseline import stock_trainer

SIDE_PX = 256
"""The side of an image in the mix, in pixels."""

MOST = 64
"""The largest fixed batch that is tried."""

Name = Literal["ours", "theirs"]
Peaks = tuple[tuple[float], tuple[float]]


@dataclass(frozen=True)
class Load:
    """What is trained on, and what trains.

    Attributes:
        rows: a JSONL file of the mix.
        vision: the vision tower trains, so that nothing can be encoded once.
        epochs: in a round.
    """

    rows: Path
    vision: bool
    epochs: int = 3

    @property
    def recipe(self) -> Recipe:
        """The recipe that trains on the load."""
        return Recipe(
            data=str(self.rows),
            output="",
            vision=self.vision,
            lora=False,
            epochs=self.epochs,
            learning_rate=1e-5,
        )


def throughput(
    name: str, device: str | None, *, count: int, vision: bool, rounds: int
) -> Iterator[Measured]:
    """Samples per second on `count` rows, the vision tower frozen or trained."""
    with tempfile.TemporaryDirectory() as folder:
        rows = write_mix(Path(folder), count)
        load = Load(rows, vision)
        largest, peaks = fixed_batch(load, name, device)
        vlm = mm.load(name, device=device, threads=cpu_threads())
        assert isinstance(vlm, HFVLM)
        tower = "vision tower trained" if vision else "vision tower frozen"
        yield alternate(
            f"training, {tower}, batches of {largest}",
            "samples/s",
            partial(_rate, vlm, load, "ours", 0, count),
            partial(_rate, vlm, load, "theirs", largest, count),
            rounds=rounds,
            smaller=False,
        )
        yield Measured(f"training, {tower}, peak memory", "bytes", *peaks)


def write_mix(folder: Path, count: int) -> Path:
    """A JSONL file of `count` rows, half short with one image, half long with four."""
    rng = random.Random("mix")
    rows = [_row(folder, n, short=n % 2 == 0) for n in range(count)]
    rng.shuffle(rows)
    path = folder / "mix.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _row(folder: Path, number: int, *, short: bool) -> dict[str, Any]:
    """How many things are on a table; or all things on four, with their boxes."""
    scenes = [make_scene(FIRST_SCENE + 4 * number + k) for k in range(1 if short else 4)]
    names = [_drawn(folder, scene) for scene in scenes]
    asked = "How many objects are there?" if short else "List every object with its box."
    said = str(len(scenes[0].things)) if short else "\n".join(caption(s, 20) for s in scenes)
    parts = [*({"type": "image"} for _ in names), {"type": "text", "text": asked}]
    return {
        "messages": [
            {"role": "user", "content": parts},
            {"role": "assistant", "content": [{"type": "text", "text": said}]},
        ],
        "images": names,
    }


def _drawn(folder: Path, scene: Scene) -> str:
    name = f"{scene.seed}.png"
    render(scene, SIDE_PX).save(folder / name)
    return name


def fixed_batch(load: Load, name: str, device: str | None) -> tuple[int, Peaks]:
    """The largest fixed batch that takes no more memory than ours, and the peaks of both."""
    ours = peak(load, name, device, "ours", 0)
    fits, too_large, theirs, found = 0, MOST + 1, 0.0, 0.0
    while too_large - fits > 1:
        tried = (fits + too_large) // 2 if too_large <= MOST else min(max(2 * fits, 4), MOST)
        found = peak(load, name, device, "theirs", tried)
        if found <= ours:
            fits, theirs = tried, found
        else:
            too_large = tried
    if not fits:
        raise ValueError(f"one row at a time takes {found:,.0f} bytes, ours {ours:,.0f}")
    return fits, ((ours,), (theirs,))


def peak(load: Load, name: str, device: str | None, side: Name, batch: int) -> float:
    """Bytes by which a training's memory grows at most, in a process of its own."""
    asked = json.dumps([str(load.rows), load.vision, name, device, side, batch])
    done = subprocess.run(
        [sys.executable, "-m", __name__, asked],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def trained(vlm: HFVLM, load: Load, side: Name, batch: int) -> float:
    """Seconds that the steps of a training take, on `side`, in fixed batches of `batch` rows."""
    with tempfile.TemporaryDirectory() as folder:
        watch = Watch()
        trainer = (_ours if side == "ours" else _theirs)(vlm, load, Path(folder), batch)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(watch)
        trainer.train()
    return watch.seconds


class Watch(TrainerCallback):
    """Times a training from its first batch to its last step."""

    seconds = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kw: Any) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kw: Any) -> None:
        """Note the time up to here."""
        self.seconds = time.perf_counter() - self._began


def _ours(vlm: HFVLM, load: Load, folder: Path, batch: int) -> Any:
    plan = make_plan(load.recipe, vlm.engine.model)
    collator = Collator(vlm.builder)
    data = read_data(load.rows)
    lengths = [collator.length(row) for row in data]
    course = Course(
        train=Rows(
            BuiltRows(data, collator.build),
            range(len(data)),
            lengths,
            [()] * len(data),
            [0] * len(data),
        ),
        held_out=None,
        collator=collator,
        encode=encode_images if load.vision else FrozenFeatureCache(plan.memory // 8),
        pace=Pace(),
        budget=plan.batch_tokens,
    )
    model = prepare_model(vlm.engine.model, plan)
    args = _arguments(plan, folder, dataset_kwargs={"skip_prepare_dataset": True})
    return SFT(model, args, course, vlm.builder.tokenizer)


def _theirs(vlm: HFVLM, load: Load, folder: Path, batch: int) -> Any:
    plan = make_plan(load.recipe, vlm.engine.model)
    model = prepare_model(vlm.engine.model, plan)
    more = {"per_device_train_batch_size": batch, "assistant_only_loss": True}
    args = _arguments(plan, folder, **more)
    return stock_trainer(model, args, load.rows, vlm.builder)


def _arguments(plan: Plan, folder: Path, **more: Any) -> Any:
    more = {"max_length": None, **more}
    args = training_arguments(SFTConfig, plan, folder, best_metric=None, **more)
    args.save_strategy = SaveStrategy.NO
    return args


def _rate(vlm: HFVLM, load: Load, side: Name, batch: int, samples: int, number: int) -> float:
    return samples * load.epochs / trained(vlm, load, side, batch)


def _grown(asked: str) -> float:
    """What `peak` asks for, in this process."""
    rows, vision, name, device, side, batch = json.loads(asked)
    load = Load(Path(rows), vision, epochs=1)
    vlm = mm.load(name, device=device, threads=cpu_threads())
    assert isinstance(vlm, HFVLM)
    if vlm.engine.model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        trained(vlm, load, side, batch)
        return torch.cuda.max_memory_allocated() - before
    before = psutil.Process().memory_info().rss
    trained(vlm, load, side, batch)
    return _most_held() - before


def _most_held() -> float:
    """The peak of this process's memory, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would begin there with what the parent held
        kilobytes = re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))
        assert kilobytes
        return float(kilobytes[1]) * 1024
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset)
    import resource  # which Windows lacks

    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


if __name__ == "__main__":
    print(_grown(sys.argv[1]))
