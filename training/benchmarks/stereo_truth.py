"""Whether depth of the real world, as a user gives it, is read the right way round.

A photograph whose disparities were measured: the motorcycle of Middlebury's 2014 stereo data, as
old wheels of scikit-image carry it.

pip download scikit-image==0.16.2 --no-deps --only-binary=:all: --python-version 37
python -m training.benchmarks.stereo_truth scikit_image-0.16.2-*.whl
"""

from __future__ import annotations

import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image as Pil

from mm.geometry import Region
from vision.depth import DepthMap, Nearness, compare
from vision.depth_files import open_depth

DISPARITY = "skimage/data/motorcycle_disp.npz"
FOCAL_PX, BASELINE_M, OFFSET_PX = 994.978, 0.193001, 31.086
"""Of the camera: metres are FOCAL_PX * BASELINE_M / (disparity + OFFSET_PX)."""

PAIRS, APART, HALF_PX = 200, 1.1, 4
"""Pairs of places, whose disparities differ by this ratio and more, and half a place's width."""


def maps(disparity: np.ndarray, folder: Path) -> Iterator[tuple[str, DepthMap]]:
    """The disparities, and the metres they mean, read from the files that a user would give."""
    metres = FOCAL_PX * BASELINE_M / (disparity + OFFSET_PX)
    np.save(folder / "disparity.npy", disparity)
    np.save(folder / "metres.npy", metres)
    known = np.where(np.isfinite(disparity), metres, 0)
    Pil.fromarray((known * 1000).round().astype(np.uint16)).save(folder / "depth.png")
    yield "disparity, NPY", open_depth(folder / "disparity.npy", kind="inverse")
    yield "metres, NPY", open_depth(folder / "metres.npy")
    yield "millimetres, PNG", open_depth(folder / "depth.png", scale=1000)


def places(disparity: np.ndarray, seed: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Pairs of (row, column) whose disparities are known and differ by `APART` and more."""
    rng = np.random.default_rng(seed)
    high, wide = disparity.shape
    while True:
        rows = rng.integers(HALF_PX, high - HALF_PX, 2)
        columns = rng.integers(HALF_PX, wide - HALF_PX, 2)
        a, b = disparity[rows[0], columns[0]], disparity[rows[1], columns[1]]
        if np.isfinite([a, b]).all() and max(a, b) > APART * min(a, b):
            yield (int(rows[0]), int(columns[0])), (int(rows[1]), int(columns[1]))


def told(depth: DepthMap, disparity: np.ndarray, seed: int = 0) -> Counter[str]:
    """How often the order of two places is right, wrong, or not told."""
    counts: Counter[str] = Counter()
    for (one, other), _ in zip(places(disparity, seed), range(PAIRS), strict=False):
        said = compare(depth, _around(one, depth), _around(other, depth))
        true: Nearness = "nearer" if disparity[one] > disparity[other] else "farther"
        counts["not told" if said == "cannot tell" else "right" if said == true else "wrong"] += 1
    return counts


def _around(place: tuple[int, int], depth: DepthMap) -> Region:
    (row, column), (wide, high) = place, depth.size
    left, top = (column - HALF_PX) / wide, (row - HALF_PX) / high
    return Region(left, top, (column + HALF_PX) / wide, (row + HALF_PX) / high)


def main(
    wheel: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="Of scikit-image 0.16.2.")
    ],
    seed: Annotated[int, typer.Option(min=0, help="Which pairs of places.")] = 0,
) -> None:
    """Of 200 pairs of places, how many are told in the right order, for each kind of file."""
    try:
        with zipfile.ZipFile(wheel) as packed, packed.open(DISPARITY) as file:
            disparity = np.load(file)["arr_0"]
    except (zipfile.BadZipFile, KeyError) as error:
        raise typer.BadParameter(f"{wheel}: {error}; give a wheel of scikit-image 0.16.2") from None
    with tempfile.TemporaryDirectory() as folder:
        for name, depth in maps(disparity, Path(folder)):
            counts = told(depth, disparity, seed)
            shown = ", ".join(f"{k} {counts[k]}" for k in ("right", "wrong", "not told"))
            print(f"{name:18}{shown}")


if __name__ == "__main__":
    typer.run(main)
