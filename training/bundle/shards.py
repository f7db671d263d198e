"""Views of training scenes, drawn once and read through a memory map.

A shard holds SCENES_PER_SHARD scenes: of each its overview, a crop of every object as a slightly
wrong box would cut it, and tiles of the image at its own scale. Scenes are pure functions of
their seed, so labels are not stored.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image as Pil

from mm.geometry import XYXY, Region
from training.tabletop.render import render
from training.tabletop.scene import SIDE, Level, Scene, make_scene
from vision.crop import Window, square_view, square_window

VIEW = 128
SCENES_PER_SHARD = 1000
TILES = 2
BOX_GRID = 20
"""Boxes are written in thousandths of the image, in multiples of this."""

_LEVEL_SHARES = (
    (Level.PLAIN, 0.3),
    (Level.SHADED, 0.2),
    (Level.TABLE, 0.3),
    (Level.PERSPECTIVE, 0.12),
    (Level.CLUTTER, 0.08),
)


@dataclass(frozen=True)
class Views:
    """One scene as the model meets it: uint8 arrays of shape (n, VIEW, VIEW, 3) and where they were
    cut, in pixels; and its memory, (columns, rows, layers, D), where there is one."""

    scene: Scene
    overview: np.ndarray
    crops: np.ndarray
    tiles: np.ndarray
    memory: np.ndarray | None = None

    @property
    def crop_windows(self) -> tuple[Window, ...]:
        """The windows of the scene that crops show."""
        return crop_windows(self.scene)

    @property
    def tile_windows(self) -> tuple[Window, ...]:
        """The windows of the scene that tiles show."""
        return tile_windows(self.scene)


def training_scene(index: int) -> Scene:
    """The `index`-th training scene, of a level drawn by its share."""
    levels = [level for level, _ in _LEVEL_SHARES]
    shares = [share for _, share in _LEVEL_SHARES]
    (level,) = random.Random(f"level {index}").choices(levels, shares)
    return make_scene(index, level)


def grid_box(region: Region) -> tuple[int, int, int, int]:
    """The xyxy box on the grid of multiples of BOX_GRID in 0..1000, never empty."""
    x0, y0, x1, y1 = (
        BOX_GRID * round(v * 1000 / BOX_GRID) for v in (region.x0, region.y0, region.x1, region.y1)
    )
    return x0, y0, max(x1, x0 + BOX_GRID), max(y1, y0 + BOX_GRID)


def crop_windows(scene: Scene) -> tuple[Window, ...]:
    """A window for each thing, from its box with an error of the size a trained policy makes."""
    rng = random.Random(f"crops {scene.seed}")
    return tuple(_window(rng, thing.region) for thing in scene.things)


def _window(rng: random.Random, region: Region) -> Window:
    return square_window(asked_box(rng, region), (SIDE, SIDE))


def asked_box(rng: random.Random, region: Region) -> XYXY:
    """The box in pixels that a trained policy asks for when it means `region`: slightly wrong."""
    x0, y0, x1, y1 = (v + rng.gauss(0, 8) for v in grid_box(region))
    scale = SIDE / 1000
    return x0 * scale, y0 * scale, x1 * scale, y1 * scale


def tile_windows(scene: Scene) -> tuple[Window, ...]:
    """Windows of VIEW pixels: half of them anywhere, half with an object somewhere in them."""
    rng = random.Random(f"tiles {scene.seed}")
    windows = []
    for k in range(TILES):
        x, y = rng.randrange(SIDE - VIEW), rng.randrange(SIDE - VIEW)
        if k % 2 == 0:
            thing = rng.choice(scene.things)
            x = round(thing.x * SIDE) - rng.randrange(12, VIEW - 12)
            y = round(thing.y * SIDE) - rng.randrange(12, VIEW - 12)
            x, y = (min(max(v, 0), SIDE - VIEW) for v in (x, y))
        windows.append((x, y, x + VIEW, y + VIEW))
    return tuple(windows)


def overview(image: Pil.Image) -> Pil.Image:
    """The whole image, at the size of one view."""
    return image.resize((VIEW, VIEW), Pil.Resampling.BICUBIC)


def _draw_shard(folder: Path, shard: int) -> None:
    scenes = [training_scene(shard * SCENES_PER_SHARD + i) for i in range(SCENES_PER_SHARD)]
    arrays: dict[str, list[Pil.Image]] = {"overview": [], "crops": [], "tiles": []}
    for scene in scenes:
        image = render(scene)
        arrays["overview"].append(overview(image))
        arrays["crops"] += [square_view(image, w, VIEW) for w in crop_windows(scene)]
        arrays["tiles"] += [image.crop(w) for w in tile_windows(scene)]
    for name, views in arrays.items():
        path = folder / f"{shard:04d}.{name}.npy"
        partial_path = path.with_suffix(".part.npy")
        np.save(partial_path, np.stack([np.asarray(v) for v in views]))
        partial_path.rename(path)


def draw_shards(folder: Path, shards: Sequence[int], processes: int = 2) -> Iterator[int]:
    """Draw the shards that are not in `folder` yet; yields each number as it is done."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [s for s in shards if not (folder / f"{s:04d}.tiles.npy").exists()]
    with ProcessPoolExecutor(processes) as pool:
        for shard, _ in zip(missing, pool.map(partial(_draw_shard, folder), missing), strict=True):
            yield shard


class Shards:
    """Read access to the shards in `folder`, by training scene index."""

    def __init__(self, folder: Path) -> None:
        found = sorted(int(p.name[:4]) for p in folder.glob("*.tiles.npy") if ".part" not in p.name)
        if not found:
            raise FileNotFoundError(f"no shards in {folder}; draw them first")
        self._arrays = {s: self._open(folder, s) for s in found}
        self.scenes = [
            training_scene(s * SCENES_PER_SHARD + i) for s in found for i in range(SCENES_PER_SHARD)
        ]
        counts = [len(s.things) for s in self.scenes]
        self._first_crop = [0] * len(counts)
        for i in range(1, len(counts)):
            if i % SCENES_PER_SHARD:
                self._first_crop[i] = self._first_crop[i - 1] + counts[i - 1]
        self._shards = found

    @staticmethod
    def _open(folder: Path, shard: int) -> dict[str, np.ndarray]:
        names = ("overview", "crops", "tiles")
        return {n: np.load(folder / f"{shard:04d}.{n}.npy", mmap_mode="r") for n in names}

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Views:
        arrays = self._arrays[self._shards[index // SCENES_PER_SHARD]]
        inside, scene = index % SCENES_PER_SHARD, self.scenes[index]
        first = self._first_crop[index]
        return Views(
            scene,
            arrays["overview"][inside],
            arrays["crops"][first : first + len(scene.things)],
            arrays["tiles"][inside * TILES : (inside + 1) * TILES],
        )
