"""An image's memory: its visual tokens at full resolution, of which any region can be replayed.

VGR (arXiv 2506.11991, section 3): the image is cut into tiles, each is encoded alone, and their
visual tokens are joined to one grid, which stays outside the context. What enters is pooled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mm.geometry import Region, Size
from mm.vlm import Memory

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels
    from torch import Tensor

MIN_SIDE = 2
"""No region has fewer visual tokens a side, before pooling."""


@dataclass(frozen=True)
class TileGrid:
    """The tiles of one memory.

    Attributes:
        tile: a tile's size in pixels.
        tiles: (columns, rows) of tiles.
        cells: (columns, rows) of a tile's visual tokens.
    """

    tile: Size
    tiles: Size
    cells: Size

    @property
    def shape(self) -> Size:
        """(columns, rows) of the whole memory's visual tokens."""
        return self.tiles[0] * self.cells[0], self.tiles[1] * self.cells[1]

    def cut(self, pixels: Pixels) -> list[Pixels]:
        """The tiles of `pixels`, row by row."""
        from PIL import Image as pil

        (width, height), (columns, rows) = self.tile, self.tiles
        whole = (columns * width, rows * height)
        if pixels.size != whole:
            pixels = pixels.resize(whole, pil.Resampling.BICUBIC)
        corners = [(x * width, y * height) for y in range(rows) for x in range(columns)]
        return [pixels.crop((x, y, x + width, y + height)) for x, y in corners]

    def join(self, tokens: Tensor) -> Tensor:
        """The tiles' visual tokens (tiles * cells, D), tile by tile, as those of the grid, row by
        row."""
        (across, down), (columns, rows) = self.tiles, self.cells
        return tokens.view(down, across, rows, columns, -1).transpose(1, 2).flatten(0, 3)


@dataclass(frozen=True)
class Block:
    """A region of the memory on `grid`, pooled. `box` is xyxy in its visual tokens."""

    grid: TileGrid
    box: tuple[int, int, int, int]
    pool: int

    @property
    def shape(self) -> Size:
        """(columns, rows) that enter the context."""
        x0, y0, x1, y1 = self.box
        return math.ceil((x1 - x0) / self.pool), math.ceil((y1 - y0) / self.pool)

    def of(self, memory: Tensor) -> Tensor:
        """The block's visual tokens (V, D), row by row, of the grid's (columns * rows, D)."""
        from torch.nn.functional import avg_pool2d

        x0, y0, x1, y1 = self.box
        columns, rows = self.grid.shape
        part = memory.view(rows, columns, -1)[y0:y1, x0:x1]
        if self.pool > 1:
            planes = part.permute(2, 0, 1)[None]
            pooled = avg_pool2d(planes, self.pool, ceil_mode=True, count_include_pad=False)
            part = pooled[0].permute(1, 2, 0)
        return part.reshape(-1, part.shape[-1])


class Encode(Protocol):
    """Visual tokens of tiles: for the input, then for each early layer that adds more."""

    def __call__(self, model: Any, tensors: Mapping[str, Tensor]) -> list[Tensor]: ...


@dataclass(frozen=True)
class Recall:
    """How a family's images are remembered.

    Attributes:
        usual: the `Memory` of a checkpoint whose config names none, from its config.
        tensors: joins what the image processor made of each tile.
        cell: (config) to the patches behind one visual token.
        encode: from these, (tiles * cells, D) for each layer that takes visual tokens; None where
            a tile is encoded as an image is.
    """

    usual: Callable[[Any], Memory]
    tensors: Callable[[Sequence[Mapping[str, Tensor]]], dict[str, Tensor]]
    cell: Callable[[Any], int]
    encode: Encode | None = None


def tile_grid(
    memory: Memory, size: Size, cells_of: Callable[[Size], Size], *, snapshot: bool
) -> TileGrid:
    """The tiles of the memory, or of the snapshot, of an image of `size`.

    `cells_of` gives the (columns, rows) of visual tokens of an image of some size.
    """
    if memory.tile is None:
        return TileGrid(size, (1, 1), cells_of(size))
    tile = (memory.tile, memory.tile)
    tiles = (1, 1) if snapshot else fitting(size, memory.tile, memory.max_tiles)
    return TileGrid(tile, tiles, cells_of(tile))


def fitting(size: Size, tile: int, most: int) -> Size:
    """(columns, rows) of at most `most` tiles that keep the shape of an image of `size` best."""
    scale = min(1.0, math.sqrt(most * tile**2 / (size[0] * size[1])))
    columns, rows = (max(1, round(v * scale / tile)) for v in size)
    while columns * rows > most:
        columns, rows = (columns - 1, rows) if columns >= rows else (columns, rows - 1)
    return columns, rows


def block(region: Region, grid: TileGrid, pool: int) -> Block:
    """The visual tokens that `region` touches, at least 2 x 2 of them where the memory has them."""
    (x0, x1), (y0, y1) = (
        _span(low, high, length)
        for low, high, length in (
            (region.x0, region.x1, grid.shape[0]),
            (region.y0, region.y1, grid.shape[1]),
        )
    )
    return Block(grid, (x0, y0, x1, y1), pool)


def _span(low: float, high: float, length: int) -> tuple[int, int]:
    start, stop = math.floor(low * length + 1e-6), math.ceil(high * length - 1e-6)
    least = min(MIN_SIDE, length)
    start = min(start, length - least)
    return start, max(stop, start + least)


def qwen(config: Any) -> Memory:
    """The whole image at the size the model reads it; its merger pools 2 x 2 patches already."""
    return Memory(local=2, replay=1)


def llava_next(config: Any) -> Memory:
    """The paper's own: tiles as large as the tower's input, pooled 2 x 2, 4 x 4 and 2 x 2."""
    return Memory(tile=config.vision_config.image_size, snapshot=2, local=4, replay=2)


def _qwen_tensors(made: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    import torch

    return {key: torch.cat([tile[key] for tile in made]) for key in made[0]}


def _llava_tensors(made: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Of each tile only the overview of itself, which is the tile whole."""
    import torch

    return {"pixel_values": torch.cat([tile["pixel_values"][:, 0] for tile in made])}


def _llava_tokens(model: Any, tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """The tower's and the projector's, without the newlines that LLaVA-NeXT puts between rows."""
    config, body = model.config, model.model
    out = body.vision_tower(
        tensors["pixel_values"].to(model.device, model.dtype),
        output_hidden_states=True,
        return_dict=True,
    )
    hidden = out.hidden_states[config.vision_feature_layer]
    if config.vision_config.model_type == "clip_vision_model":
        hidden = hidden[:, 1:]  # the class token belongs to no place
    return [body.multi_modal_projector(hidden).flatten(0, 1)]


def _qwen_cell(config: Any) -> int:
    return config.vision_config.spatial_merge_size**2


def _llava_cell(config: Any) -> int:
    return 1


QWEN = Recall(qwen, _qwen_tensors, _qwen_cell)
LLAVA_NEXT = Recall(llava_next, _llava_tensors, _llava_cell, _llava_tokens)
