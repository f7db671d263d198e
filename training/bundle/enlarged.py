"""What the trained encoder sees in scenes at more visual tokens than one view has.

As with memories, the encoder learns no more by then, so they are made once. Other than a memory,
an image is encoded whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pil
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

from mm.local.precision import fast_autocast
from training.tabletop.render import render

from .encoder import encode_views
from .shards import VIEW, training_scene

SIDES = (8, 12, 24)
"""Visual tokens along each side: budgets of 64, 144 and 576."""

VIEW_SIDE = 4
SCENES = 600
_AT_ONCE = 8


def write_enlarged(visual: Qwen3VLVisionModel, folder: Path, scenes: int = SCENES) -> Iterator[int]:
    """Encode the first training scenes at each of `SIDES`; yields each as it is written."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(1) as pool:  # draws while the encoder works
        for side in SIDES:
            path = folder / f"{side:02d}.npy"
            if path.exists():
                continue
            drawn = pool.map(partial(_drawn, side), range(scenes), chunksize=_AT_ONCE)
            made = [_encoded(visual, image, side) for image in drawn]
            np.save(path.with_suffix(".part.npy"), np.stack(made))
            path.with_suffix(".part.npy").rename(path)
            yield side


class Enlarged:
    """Read access to what `folder` holds, by side and training scene index."""

    def __init__(self, folder: Path) -> None:
        self._files = {side: np.load(folder / f"{side:02d}.npy", mmap_mode="r") for side in SIDES}

    def __len__(self) -> int:
        return min(map(len, self._files.values()))

    def seen(self, side: int, index: int) -> np.ndarray:
        """(side, side, layers, D) in float16: for the input, then for each deepstack layer."""
        return self._files[side][index]


def _drawn(side: int, index: int) -> np.ndarray:
    pixels = side * VIEW // VIEW_SIDE
    image = render(training_scene(index))
    return np.asarray(image.resize((pixels, pixels), Pil.Resampling.BICUBIC))


@torch.no_grad()
def _encoded(visual: Qwen3VLVisionModel, image: np.ndarray, side: int) -> np.ndarray:
    with fast_autocast(torch.device("cpu")):
        seen = encode_views(visual, torch.tensor(image)[None])
    layers = torch.stack([seen.tokens, *seen.deepstack], -2)[0]
    return layers.view(side, side, *layers.shape[1:]).half().numpy()
