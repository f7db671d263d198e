"""Trainings that die, and go on to the same end: `python tests/training_deaths.py FOLDER`.

    --deaths 200   at as many places, evenly spread over all writes, renames, flushes and removals
    --full 20      with a disk that is full at as many places
    --kills 20     by kill -9, at random moments of a longer training

Each run is a fork of one process that has imported everything, on one core, of a model of 0.2
million parameters. What C++ and Rust write is cut off afterwards, at a random byte.
"""

from __future__ import annotations

import argparse
import builtins
import errno
import io
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import new_domain
import safetensors.torch
import torch
import transformers.modeling_utils
from tiny_models import FAMILIES

from app.cli.main import run

STEPS = 3
DIED = 137


@dataclass
class Faults:
    """Counts what is done to files under `folder`; at number `at` dies, or finds the disk full."""

    folder: Path
    at: int | None = None
    full: bool = False
    count: int = 0
    rng: random.Random = field(default_factory=lambda: random.Random(0))

    def next(self, spoil: Callable[[], object] = lambda: None) -> None:
        """Before an operation; `spoil` leaves a part of it behind."""
        self.count += 1
        if self.at is None or self.count < self.at:
            return
        if self.full:
            if self.count < self.at + 3:  # a few writes fail, then somebody frees space
                spoil()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return
        spoil()
        os._exit(DIED)

    def install(self) -> None:
        """Into this process, for good."""
        for name in ("rename", "replace", "fsync", "unlink", "remove", "mkdir", "rmdir"):
            setattr(os, name, self._before(getattr(os, name)))
        builtins.open = io.open = self._opening(io.open)
        torch.save = self._cutting(torch.save, 1)
        cut = self._cutting(safetensors.torch.save_file, 1)
        safetensors.torch.save_file = cut
        setattr(transformers.modeling_utils, "safe_save_file", cut)  # noqa: B010

    def _before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kw: Any) -> Any:
            self.next()
            return function(*args, **kw)

        return counted

    def _cutting(self, function: Callable[..., Any], place: int) -> Callable[..., Any]:
        def cut(*args: Any, **kw: Any) -> Any:
            path = Path(args[place])

            def spoil() -> None:
                function(*args, **kw)
                os.truncate(path, self.rng.randrange(path.stat().st_size))

            self.next(spoil)
            return function(*args, **kw)

        return cut

    def _opening(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def opened(file: Any, mode: str = "r", *args: Any, **kw: Any) -> Any:
            found = function(file, mode, *args, **kw)
            inside = isinstance(file, str | Path) and str(self.folder) in str(Path(file).absolute())
            if inside and set(mode) & set("wax+"):
                found.write = self._writing(found) if hasattr(found, "__dict__") else found.write
            return found

        return opened

    def _writing(self, file: Any) -> Callable[..., Any]:
        write = type(file).write

        def half(text: Any) -> Any:
            def spoil() -> None:
                write(file, text[: len(text) // 2])
                file.flush()

            self.next(spoil)
            return write(file, text)

        return half


def in_fork(arguments: list[str], log: Path, faults: Faults | None = None) -> int:
    """`mm` with `arguments` in a fork of this process; its exit code, or -9."""
    pid = begin(arguments, log, faults)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def begin(arguments: list[str], log: Path, faults: Faults | None = None) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(number, 1)
        os.dup2(number, 2)
        if faults:
            faults.install()
        code = run(arguments)
        if faults and faults.at is None:
            log.with_suffix(".count").write_text(str(faults.count))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


@dataclass(frozen=True)
class Case:
    """A small training in `folder`, and the end that it comes to undisturbed."""

    folder: Path
    steps: int

    def arguments(self, output: str, *more: str) -> list[str]:
        rows = str(self.folder / "train.csv")
        return [
            *("train", "sft", "--data", rows, "--eval-data", str(self.folder / "test.csv")),
            *("--model", str(self.folder / "small"), "--output", str(self.folder / output)),
            *("--max-steps", str(self.steps), "--batch-tokens", "400", "--device", "cpu"),
            *("--learning-rate", "1e-3", *more),
        ]

    def end(self, output: str) -> tuple[dict[str, torch.Tensor], list[tuple[int, float]]]:
        """The weights, and the held-out losses by step."""
        folder = self.folder / output
        assert (folder / "finished.json").is_file()
        weights = safetensors.torch.load_file(folder / "model.safetensors")
        rows = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
        return weights, [(row["step"], row["eval_loss"]) for row in rows if "eval_loss" in row]

    def goes_on(self, output: str, begun: int, whole: Any) -> str:
        """What is wrong with going on from a run that ended with code `begun`; "" for nothing."""
        log = self.folder / f"{output}.log"
        if begun == 2 and len(told(log)) != 1:
            return f"not refused in a line: {told(log)}"
        code = in_fork(self.arguments(output, "--resume"), log)
        if code != 0:
            return f"resume ended with {code}: {log.read_text()[-2000:]}"
        weights, losses = self.end(output)
        if losses != whole[1]:
            return f"held-out losses {losses}, not {whole[1]}"
        same = all(torch.equal(weights[name], each) for name, each in whole[0].items())
        return "" if same else "other weights"


def told(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if line.startswith("mm: ")]


def prepare(folder: Path, steps: int = STEPS) -> tuple[Case, Any, int]:
    """The case in `folder`, its undisturbed end, and how many operations lead there."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny = FAMILIES["qwen3_vl"]()
    for part in (tiny.model, tiny.builder.tokenizer, tiny.builder.image_processor):
        part.save_pretrained(folder / "small")
    new_domain.write(folder, "train", pictures=8, questions=1, seed=0)
    new_domain.write(folder, "test", pictures=1, questions=1, seed=1)
    case, log = Case(folder, steps), folder / "whole.log"
    code = in_fork(case.arguments("whole"), log, Faults(folder / "whole"))
    assert code == 0, log.read_text()
    return case, case.end("whole"), int(log.with_suffix(".count").read_text())


def die(case: Case, whole: Any, total: int, count: int, *, full: bool = False) -> list[str]:
    """Faults of as many trainings that died, or found the disk full, and went on."""
    found = []
    for number in range(count):
        output, at = f"{'full' if full else 'death'}{number}", 1 + number * total // count
        faults = Faults(case.folder / output, at, full, rng=random.Random(number))
        code = in_fork(case.arguments(output), case.folder / f"{output}.log", faults)
        if code == 0 and not full:
            found.append(f"{output}: did not die at {at} of {total}")
        elif code not in (0, 2, DIED):
            log = (case.folder / f"{output}.log").read_text()[-2000:]
            found.append(f"{output} at {at}: ended with {code}: {log}")
        if fault := case.goes_on(output, code, whole):
            found.append(f"{output} at {at}: {fault}")
    return found


def kill(case: Case, whole: Any, count: int, seconds: float) -> list[str]:
    """Faults of as many trainings that were killed within `seconds`, and went on."""
    found, rng = [], random.Random(0)
    for number in range(count):
        output = f"kill{number}"
        pid = begin(case.arguments(output), case.folder / f"{output}.log")
        time.sleep(rng.uniform(0, seconds))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if fault := case.goes_on(output, -9, whole):
            found.append(f"{output}: {fault}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--deaths", type=int, default=0)
    parser.add_argument("--full", type=int, default=0)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    began = time.monotonic()
    case, whole, total = prepare(args.folder, args.steps)
    seconds = time.monotonic() - began
    print(f"{total} operations, {seconds:.1f} s undisturbed", flush=True)
    found = die(case, whole, total, args.deaths) if args.deaths else []
    print(f"{args.deaths} deaths: {len(found)} faults", flush=True)
    found += die(case, whole, total, args.full, full=True) if args.full else []
    found += kill(case, whole, args.kills, seconds) if args.kills else []
    print(*found, f"{len(found)} faults in {time.monotonic() - began:.0f} s", sep="\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
