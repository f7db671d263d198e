"""How right a depth model is about Tabletop, and what a rationale states of it; the intervals are
by scene, since pixels of one are alike.

python -m training.benchmarks.depth_accuracy --scenes 100
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.progress import track

from mm.types import Image
from training.evaluation.intervals import Interval, design_effect_of_counts, wilson
from training.evaluation.results import command_line, envelope
from training.tabletop import Level, Scene, depth_map, make_scene, render
from training.tabletop.questions import FIRST_TEST_SEED
from vision.depth import DepthMap, compare
from vision.depth_source import TINY, estimated

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

RATIO = 1.25
"""Pixels within this ratio of the truth are right: delta 1."""

APART = 1.1
"""Pairs of pixels count whose true depths differ by more than this ratio."""

PAIRS = 500
"""Pairs of pixels drawn in an image."""

SceneImage = tuple["Pixels", np.ndarray, Scene]
"""An image, the metres of its pixels (H, W), its scene."""


@dataclass(frozen=True)
class Counted:
    """How many of so many are right, scene by scene: (right, all) of each."""

    what: str
    scenes: tuple[tuple[int, int], ...]

    @property
    def right(self) -> int:
        return sum(right for right, _ in self.scenes)

    @property
    def n(self) -> int:
        return sum(n for _, n in self.scenes)

    @property
    def effect(self) -> float:
        """How many times fewer they would be if each told as much as one of its own scene."""
        return design_effect_of_counts(self.scenes)

    @property
    def share(self) -> Interval:
        return wilson(self.right / self.effect, self.n / self.effect)

    @property
    def row(self) -> dict[str, object]:
        """A row of the file; `clusters` are the scenes in which there was something to count."""
        clusters = sum(n > 0 for _, n in self.scenes)
        counts = {"what": self.what, "right": self.right, "n": self.n}
        return {**counts, "clusters": clusters, "effect": self.effect}


def scene_images(scenes: int, seed: int = 0) -> Iterator[SceneImage]:
    """Test scenes of the level `grain`."""
    for number in range(scenes):
        scene = make_scene(FIRST_TEST_SEED + (seed << 20) + number, Level.GRAIN)
        yield render(scene), depth_map(scene), scene


def accuracy(model: str, shown: Iterable[SceneImage], seed: int = 0) -> list[Counted]:
    """Pixels near the truth, pairs of pixels in the right order, and things told in the right one.

    Args:
        model: a depth model of metres, as `--depth-model` names it.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, list[tuple[int, int]]] = {"delta1": [], "order": [], "relations": []}
    for image, metres, scene in shown:
        depth = estimated(model, Image(image))
        ratio = np.maximum(depth.values / metres, metres / np.maximum(depth.values, 1e-6))
        ordered = _ordered(depth.values.ravel(), metres.ravel(), rng)
        found["delta1"].append(_counted(ratio[depth.valid] < RATIO))
        found["order"].append(_counted(ordered))
        found["relations"].append(_counted(np.array(list(_stated(depth, scene)), bool)))
    return [Counted(what, tuple(scenes)) for what, scenes in found.items()]


def _counted(right: np.ndarray) -> tuple[int, int]:
    return int(right.sum()), right.size


def _ordered(found: np.ndarray, true: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    a, b = rng.integers(0, true.size, (2, PAIRS))
    apart = np.maximum(true[a], true[b]) > APART * np.minimum(true[a], true[b])
    return ((found[a] < found[b]) == (true[a] < true[b]))[apart]


def _stated(depth: DepthMap, scene: Scene) -> Iterator[bool]:
    """Of each pair of things whose order a rationale would state, whether it is so."""
    for a, b in combinations(scene.things, 2):
        said = compare(depth, a.region, b.region)
        if said != "cannot tell":
            yield (said == "nearer") == (a.depth < b.depth)


def main(
    depth_model: str = TINY,
    scenes: Annotated[int, typer.Option(min=1, help="Test scenes.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Which of them.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the counts as JSON.")] = None,
) -> None:
    """How often a depth model is right: near the truth, in the order, in what is told."""
    shown = track(scene_images(scenes, seed), "estimating", total=scenes, transient=True)
    counts = accuracy(depth_model, shown)
    for each in counts:
        share = each.share
        told = f"{100 * share.value:.1f} % ({100 * share.low:.1f}-{100 * share.high:.1f})"
        print(f"{each.what:10} {told} of {each.n:,} in {each.row['clusters']} scenes")
    if out:
        rows = [each.row for each in counts]
        about = {"depth_model": depth_model, "scenes": scenes, "seed": seed}
        out.write_text(
            json.dumps(envelope(rows, [], command=command_line(), **about), indent=1) + "\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    typer.run(main)
