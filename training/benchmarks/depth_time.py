"""What `depth` adds to the time of an answer: the depth network, the model's question where things
are, and the words that are told.

python -m training.benchmarks.depth_time --out FILE
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

import mm
from mm.errors import ModelError
from mm.local.hf_vlm import HFVLM
from mm.session import Strategy
from mm.strategies.single import direct
from mm.trace import Sample
from mm.types import Image
from training.evaluation.intervals import median_interval
from training.evaluation.results import command_line, envelope
from training.evaluation.run import place_of
from training.evaluation.views import added
from training.tabletop import Level
from training.tabletop.questions import stream
from vision.depth import DepthMap
from vision.depth_source import TINY, DepthSource, Estimate
from vision.depth_strategies import depth_text

from .measure import processor, seconds

WARM_UP = 2
"""Images that do not count: what is loaded or compiled once is no cost of an image."""


@dataclass(frozen=True)
class Answered:
    """Seconds of the answer to one question by `direct`, by `depth`, and of the latter by the depth
    network."""

    direct: float
    depth: float
    network: float

    @property
    def added(self) -> float:
        """Seconds more by `depth`."""
        return self.depth - self.direct

    @property
    def ratio(self) -> float:
        """How many times as long `depth` takes."""
        return self.depth / self.direct


class Timed:
    """The maps of another source; `seconds` is how long the last one took."""

    def __init__(self, source: Estimate) -> None:
        self._source = source
        self.seconds = 0.0

    def __call__(self, sample: Sample, image: Image) -> DepthMap | None:
        found: list[DepthMap | None] = []
        self.seconds = seconds(lambda: found.append(self._source(sample, image)))
        return found[0]


def times(vlm: HFVLM, samples: Iterable[Sample], source: Estimate) -> Iterator[Answered]:
    """Each sample answered both ways in turn, with empty caches, on a copy of its images each; of
    two samples each way is first once.

    Raises:
        ModelError: the model failed: what a failure takes says nothing.
    """
    timed = Timed(source)
    ways: dict[str, Strategy] = {"direct": direct, "depth": partial(depth_text, depth=timed)}
    for number, sample in enumerate(samples):
        order = list(ways) if number % 2 else list(reversed(ways))
        asked = {name: copied(sample, at) for at, name in enumerate(ways)}
        found = {name: _answer(vlm, name, ways[name], asked[name]) for name in order}
        if number >= WARM_UP:
            yield Answered(**found, network=timed.seconds)


def copied(sample: Sample, number: int) -> Sample:
    """`sample` with images that differ from those of another `number` in one pixel of a corner.

    Processed images, and a depth model's maps, are remembered by what is in them: of one image
    whoever came second would be the quicker.
    """
    prompt = tuple(
        replace(m, parts=tuple(_copied(p, number) if isinstance(p, Image) else p for p in m.parts))
        for m in sample.prompt
    )
    return replace(sample, prompt=prompt)


def _copied(image: Image, number: int) -> Image:
    pixels = image.pixels.copy()
    pixels.putpixel((0, 0), (number, 0, 0))
    return Image(pixels, image.origin)


def _answer(vlm: HFVLM, name: str, strategy: Strategy, sample: Sample) -> float:
    vlm.engine.clear_caches()
    traces: list[mm.Trace] = []
    spent = seconds(lambda: traces.append(mm.run(strategy, sample, vlm)))
    if error := traces[0].error:
        raise ModelError(f"{name} failed on {sample.id}: {error}")
    return spent


def row_of(found: Sequence[Answered]) -> dict[str, Any]:
    """A row of the file: medians over the images, with their 95 % intervals."""
    columns = ("direct", "depth", "added", "network", "ratio")
    medians = {key: median_interval([getattr(each, key) for each in found]) for key in columns}
    return {"images": len(found), **{key: asdict(value) for key, value in medians.items()}}


def main(
    model: str = "tiny",
    depth_model: str = TINY,
    images: Annotated[int, typer.Option(min=6, help="Test scenes, one question each.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Which of them.")] = 0,
    device: str | None = None,
    dtype: str | None = None,
    out: Annotated[Path | None, typer.Option(help="Write the times as JSON.")] = None,
) -> None:
    """Seconds that `depth` adds to an answer, its depth network included."""
    import torch

    vlm = mm.load(model, device=device, dtype=dtype)
    if not isinstance(vlm, HFVLM):
        raise typer.BadParameter(f"{model} is of no listed family and runs without the engine")
    source = DepthSource(model=depth_model, device=device)
    n = images + WARM_UP
    asked = track(_samples(seed, n), "asking", n, console=Console(stderr=True), transient=True)
    row = row_of(list(times(vlm, asked, source)))
    about = {"model": model, "depth_model": depth_model, "seed": seed, **place_of(vlm)}
    about |= {"cpu": processor(), "threads": torch.get_num_threads()}
    table = envelope([row], [], command=command_line(), **about)
    print(*added([table]), sep="\n")
    if out:
        out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def _samples(seed: int, count: int) -> Iterator[Sample]:
    for item in stream("nearer", seed, count, int(Level.GRAIN)):
        yield item.sample


if __name__ == "__main__":
    typer.run(main)
