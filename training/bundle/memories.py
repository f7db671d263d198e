"""What the trained encoder sees in scenes at full resolution: the material of the replay stage.

A memory is a scene's image cut into tiles of a view's size, each encoded alone, put together
again: `GRID` x `GRID` visual tokens. The encoder learns no more by then, so they are made once.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

from mm.local.precision import fast_autocast
from training.tabletop.render import render
from training.tabletop.scene import SIDE

from .encoder import encode_views
from .shards import VIEW, training_scene

TILES = SIDE // VIEW
CELLS = 4
GRID = TILES * CELLS
SCENES_PER_FILE = 250


def write_memories(visual: Qwen3VLVisionModel, folder: Path, scenes: int) -> Iterator[int]:
    """Make the memories of the first training scenes that `folder` lacks.

    Yields the number of each file as it is done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [n for n in range(-(-scenes // SCENES_PER_FILE)) if not _path(folder, n).exists()]
    with ProcessPoolExecutor(2) as pool:
        for number in numbers:
            indices = range(number * SCENES_PER_FILE, (number + 1) * SCENES_PER_FILE)
            made = [_encoded(visual, tiles) for tiles in pool.map(_tiles, indices, chunksize=10)]
            unfinished = folder / f"{number:04d}.part.npy"
            np.save(unfinished, torch.stack(made).half().numpy())
            unfinished.rename(_path(folder, number))
            yield number


class Memories:
    """Read access to the memories in `folder`, by training scene index."""

    def __init__(self, folder: Path) -> None:
        found = sorted(p for p in folder.glob("*.npy") if ".part" not in p.name)
        if not found:
            raise FileNotFoundError(f"no memories in {folder}; run --stage memories first")
        self._files = [np.load(p, mmap_mode="r") for p in found]

    def __len__(self) -> int:
        return len(self._files) * SCENES_PER_FILE

    def __getitem__(self, index: int) -> np.ndarray:
        """(GRID, GRID, layers, D) in float16: for the input, then for each deepstack layer."""
        return self._files[index // SCENES_PER_FILE][index % SCENES_PER_FILE]


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:04d}.npy"


def _tiles(index: int) -> np.ndarray:
    """(TILES * TILES, VIEW, VIEW, 3), row by row."""
    pixels = np.asarray(render(training_scene(index)))
    cut = pixels.reshape(TILES, VIEW, TILES, VIEW, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(cut).reshape(-1, VIEW, VIEW, 3)


@torch.no_grad()
def _encoded(visual: Qwen3VLVisionModel, tiles: np.ndarray) -> Tensor:
    with fast_autocast(torch.device("cpu")):
        seen = encode_views(visual, torch.from_numpy(tiles))
    layers = torch.stack([seen.tokens, *seen.deepstack], -2).float()  # (tiles, 16, layers, D)
    cells = layers.view(TILES, TILES, CELLS, CELLS, *layers.shape[2:])
    return cells.transpose(1, 2).reshape(GRID, GRID, *layers.shape[2:])
