"""Counts the files and functions that one request enters, and its moves from file to file.

python tests/trips.py          # one direct question, one token, on `tiny`; the model is loaded
python tests/trips.py ask -v   # the moves themselves, most frequent first
python tests/trips.py train    # one step of `mm train sft`
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from unittest import mock

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

PACKAGES = ("mm", "vision", "video", "training", "app")


@dataclass
class Trip:
    """What a piece of work entered.

    Attributes:
        functions: calls of each function, by (file, name).
        moves: calls from a function of one file to a function of another, by (file, file).
    """

    functions: Counter[tuple[str, str]] = field(default_factory=Counter)
    moves: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def files(self) -> set[str]:
        return {file for file, _ in self.functions}


@contextmanager
def recorded(root: Path = ROOT, packages: tuple[str, ...] = PACKAGES) -> Iterator[Trip]:
    """Counts calls, on this thread and on those that begin meanwhile, of what `root` defines.

    Functions outside `packages`, module bodies and class bodies are left out; a call that passes
    through a library counts as made by the function that called the library.
    """
    trip, lock = Trip(), threading.Lock()
    inside = tuple(str(root / package) + "/" for package in packages)

    def file_of(frame: FrameType) -> str | None:
        name = frame.f_code.co_filename
        # CO_OPTIMIZED is set for functions alone, not for bodies of modules and classes
        mine = name.startswith(inside) and frame.f_code.co_flags & 1
        return name.removeprefix(f"{root}/") if mine else None

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event != "call" or (file := file_of(frame)) is None:
            return
        caller = next((f for f in map(file_of, _callers(frame)) if f), None)
        with lock:
            trip.functions[file, frame.f_code.co_qualname] += 1
            if caller not in (None, file):
                trip.moves[caller, file] += 1

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield trip
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def _callers(frame: FrameType) -> Iterator[FrameType]:
    while (outer := frame.f_back) is not None:
        yield outer
        frame = outer


def direct_question() -> Callable[[], object]:
    """One direct question of one token to `tiny`, the first it is asked."""
    import PIL.Image

    import mm

    vlm = mm.load("tiny")
    sample = mm.question("What is here?", PIL.Image.new("RGB", (96, 96), "red"))
    return lambda: mm.run(mm.direct, sample, vlm, sampling=mm.Sampling(max_tokens=1))


def training_step(folder: Path) -> Callable[[], object]:
    """One step of `mm train sft` on six rows in the form of LLaVA, in `folder`; the model is
    loaded."""
    import json

    import PIL.Image

    import mm
    from app.cli.main import run

    vlm = mm.load("tiny")
    lines = []
    for number, colour in enumerate(("red", "blue") * 3):
        PIL.Image.new("RGB", (64, 64), colour).save(folder / f"{number}.png")
        talk = [
            {"from": "human", "value": "<image>\nWhat colour?"},
            {"from": "gpt", "value": colour},
        ]
        lines.append(json.dumps({"image": f"{number}.png", "conversations": talk}))
    data = folder / "rows.jsonl"
    data.write_text("\n".join(lines))
    told = ["--data", str(data), "--output", str(folder / "out"), "--max-steps", "1"]

    def step() -> None:
        with mock.patch.object(mm, "load", return_value=vlm):
            assert run(["train", "sft", *told]) == 0

    return step


def main(what: str = "ask", verbose: str = "") -> None:
    with TemporaryDirectory() as folder:
        work = training_step(Path(folder)) if what == "train" else direct_question()
        with recorded() as trip:
            work()
    for (source, target), times in trip.moves.most_common() if verbose else ():
        print(f"{times:4} {source} > {target}")
    print(
        f"{len(trip.files)} files, {len(trip.functions)} functions, "
        f"{trip.moves.total()} moves between files"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
