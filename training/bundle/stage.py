"""What the stages share: optimizers, a learning-rate schedule, checkpoints, and batches made ahead
of time."""

from __future__ import annotations

import json
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.muon import is_inner, muon_and_adamw

OUTER = ("embed", "lm_head", "merger", "head")


class Optimizers:
    """Muon for the matrices inside the blocks, AdamW for everything else; one schedule for both.

    Parameters whose name holds one of `slow` learn at `slow_share` of the rate, those whose name
    holds one of `outer` by AdamW.
    """

    def __init__(
        self,
        module: nn.Module,
        rate: float,
        steps: int,
        warmup: int = 100,
        slow: Sequence[str] = (),
        slow_share: float = 1.0,
        outer: Sequence[str] = OUTER,
    ) -> None:
        self.steps, self.warmup, self.rate = steps, warmup, rate
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            key = (is_inner(name, parameter, outer), any(part in name for part in slow))
            groups.setdefault(key, []).append(parameter)
        in_blocks, others = (
            [
                {"params": params, "scale": slow_share if is_slow else 1.0}
                for (is_in_block, is_slow), params in groups.items()
                if is_in_block == wanted
            ]
            for wanted in (True, False)
        )
        self._all = muon_and_adamw(
            in_blocks, others, rate=rate, weight_decay=0.01, betas=(0.9, 0.98)
        ).parts
        self.parameters = [p for p in module.parameters() if p.requires_grad]

    def step(self, number: int) -> None:
        """One update at schedule position `number`."""
        rate = self.rate * schedule(number, self.steps, self.warmup)
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer in self._all:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["scale"]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> list[dict[str, Any]]:
        """The optimizers' states, to be saved in a checkpoint."""
        return [o.state_dict() for o in self._all]

    def load(self, states: list[dict[str, Any]]) -> None:
        """Take the states that `state` gave."""
        for optimizer, state in zip(self._all, states, strict=True):
            optimizer.load_state_dict(state)


def schedule(step: int, steps: int, warmup: int) -> float:
    """Share of the full learning rate at `step`: warm-up, flat, then a straight line down over the
    last 40 %."""
    down = (steps - step) / (0.4 * steps)
    return max(min((step + 1) / warmup, 1.0, down), 0.02)


def save_checkpoint(path: Path, **state: Any) -> None:
    """Write `state` so that a kill at any moment leaves the old checkpoint or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """What a stage saved at `path`; None where it saved nothing yet."""
    return torch.load(path, weights_only=True) if path.exists() else None


def resumed(path: Path, model: nn.Module, optimizers: Optimizers) -> tuple[int, float]:
    """Go on from what `saved` wrote to `path`: the next step, and the seconds so far."""
    state = load_checkpoint(path)
    if state is None:
        return 0, 0.0
    model.load_state_dict(state["model"])
    optimizers.load(state["optimizers"])
    return state["step"], state["seconds"]


def saved(
    path: Path, model: nn.Module, optimizers: Optimizers, *, step: int, seconds: float
) -> None:
    """Write where a stage stands."""
    states = {"model": model.state_dict(), "optimizers": optimizers.state()}
    save_checkpoint(path, **states, step=step, seconds=seconds)


def ahead(batches: Iterator[Any], depth: int = 4) -> Iterator[Any]:
    """The same batches, made by another thread while the model works."""
    ready: queue.Queue[Any] = queue.Queue(depth)

    def work() -> None:
        try:
            for batch in batches:
                ready.put(batch)
            ready.put(StopIteration())
        except BaseException as error:
            ready.put(error)

    threading.Thread(target=work, daemon=True).start()
    while True:
        batch = ready.get()
        if isinstance(batch, StopIteration):
            return
        if isinstance(batch, BaseException):
            raise batch
        yield batch


def learn(
    model: nn.Module,
    optimizers: Optimizers,
    path: Path,
    batches: Callable[[int], Iterator[Any]],
    loss_of: Callable[[Any], Tensor],
    *,
    steps: int,
    every: int,
) -> None:
    """Train `model` in place by `loss_of` its batches, up to `steps`; resumes from `path`.

    Args:
        path: the checkpoint, written at each `every`th step; the log lies beside it.
        batches: those from a step on.
    """
    first, before_s = resumed(path, model, optimizers)
    log = Log(path.with_suffix(".log"), before_s)
    model.train()
    for number, batch in enumerate(ahead(batches(first)), first):
        loss = loss_of(batch)
        loss.backward()
        optimizers.step(number)
        if number % 10 == 0:
            log.write(step=number, loss=round(loss.item(), 4))
        if (number + 1) % every == 0 or number + 1 == steps:
            saved(path, model, optimizers, step=number + 1, seconds=log.seconds)


def fast(function: Callable[..., Any], steps: int) -> Callable[..., Any]:
    """`function` compiled, where there is a compiler and the run earns its minutes back."""
    worth = steps >= 100 and shutil.which("g++")
    return torch.compile(function, dynamic=False) if worth else function


class Log:
    """One JSON line per report, on the screen and in a file; knows how long the stage has run in
    all."""

    def __init__(self, path: Path, before_s: float = 0.0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        self._start = time.monotonic() - before_s

    @property
    def seconds(self) -> float:
        """Seconds since the stage began."""
        return time.monotonic() - self._start

    def write(self, **row: Any) -> None:
        """Print `row` and add it to the log's file."""
        line = json.dumps({"seconds": round(self.seconds), **row})
        print(line, flush=True)
        self._file.write(line + "\n")
        self._file.flush()
