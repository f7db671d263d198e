"""What each family's processor makes of an image, computed from the image's size alone.

A layout is (config, image processor, size) to `Layout`. Everything else that counts an image (its
cost, its placeholders, the size its boxes are measured in) is read from there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from mm.geometry import Size, smart_resize


class Grid(NamedTuple):
    """The placeholders that cover a whole image: from number `first` on, row by row."""

    first: int
    columns: int
    rows: int


@dataclass(frozen=True)
class Layout:
    """An image in the context.

    Attributes:
        seen: the size the image has for the model, in pixels; padding left out.
        patches: vision patches the encoder computes for it.
        runs: what stands for it: how many placeholders follow each other, and the text with its
            markers between such runs.
        grid: which of the placeholders show the whole image; tiles show its parts.
    """

    seen: Size
    patches: int
    runs: tuple[int | str, ...]
    grid: Grid

    @cached_property
    def tokens(self) -> int:
        """How many placeholders stand for the image."""
        return sum(run for run in self.runs if isinstance(run, int))


_QWEN_ASPECT = 200  # the processor refuses longer strips


def qwen(config: Any, processor: Any, size: Size) -> Layout:
    """One grid of patches, its sides multiples of patch times merge."""
    merge, patch = processor.merge_size, processor.patch_size
    edge = processor.size
    if max(size) > _QWEN_ASPECT * min(size):
        raise ValueError(
            f"an image's sides may differ {_QWEN_ASPECT}-fold at most, got {size[0]}x{size[1]}"
        )
    seen = smart_resize(size, patch * merge, edge["shortest_edge"], edge["longest_edge"])
    patches = (seen[0] // patch) * (seen[1] // patch)
    grid = Grid(0, seen[0] // patch // merge, seen[1] // patch // merge)
    return Layout(seen, patches, (patches // merge**2,), grid)


def llava_next(config: Any, processor: Any, size: Size) -> Layout:
    """An overview, then tiles of the image without their padding, a newline after each row."""
    vision = config.vision_config
    side = vision.image_size // vision.patch_size
    canvas, seen = _anyres(processor, size)
    tiles = (canvas[0] // _tile(processor), canvas[1] // _tile(processor))
    width, height = _unpadded(size, (tiles[0] * side, tiles[1] * side))
    class_token = vision.model_type == "clip_vision_model"
    kept = class_token and config.vision_feature_select_strategy == "full"
    tokens = side**2 + kept + width * height + height
    patches = side**2 * (1 + tiles[0] * tiles[1])
    return Layout(seen, patches, (tokens,), Grid(int(kept), side, side))


def llava_onevision(config: Any, processor: Any, size: Size) -> Layout:
    """As LLaVA-NeXT, the tiles shrunk where they hold more than the budget.

    Each image is laid out alone: the family's own processor drops the tiles of one that has
    company, and a context to which an image is added later would differ from a fresh one.
    """
    vision = config.vision_config
    side = vision.image_size // vision.patch_size
    canvas, seen = _anyres(processor, size)
    tiles = (canvas[0] // _tile(processor), canvas[1] // _tile(processor))
    width, height = _unpadded(size, (tiles[0] * side, tiles[1] * side))
    budget = int(config.vision_aspect_ratio.removeprefix("anyres_max_"))
    ratio = math.sqrt(width * height / (budget * side**2))
    if ratio > 1.1:
        width, height = int(width // ratio), int(height // ratio)
    tokens = side**2 + width * height + height
    patches = side**2 * (1 + tiles[0] * tiles[1])
    return Layout(seen, patches, (tokens,), Grid(0, side, side))


def _tile(processor: Any) -> int:
    crop, size = processor.crop_size, processor.size
    return (crop and crop["height"]) or size.get("height") or size["shortest_edge"]


def _anyres(processor: Any, size: Size) -> tuple[Size, Size]:
    """The canvas that fits the image best, and the image's size on it."""
    from transformers.image_processing_utils import select_best_resolution

    width, height = size
    points = [tuple(point) for point in processor.image_grid_pinpoints]
    canvas_h, canvas_w = select_best_resolution((height, width), points)
    scale_w, scale_h = canvas_w / width, canvas_h / height
    if scale_w < scale_h:
        seen = canvas_w, min(math.ceil(height * scale_w), canvas_h)
    else:
        seen = min(math.ceil(width * scale_h), canvas_w), canvas_h
    return (canvas_w, canvas_h), seen


def _unpadded(size: Size, grid: Size) -> Size:
    """What of `grid`, in features, an image of `size` covers when it is centred there."""
    width, height = size
    grid_w, grid_h = grid
    if width / height > grid_w / grid_h:
        covered = int(round(height * (grid_w / width), 7))
        return grid_w, grid_h - (grid_h - covered) // 2 * 2
    covered = int(round(width * (grid_h / height), 7))
    return grid_w - (grid_w - covered) // 2 * 2, grid_h


_LARGEST = 4096  # pixels a side; Idefics3's processor goes no further
_IDEFICS_EDGE = "<fake_token_around_image>"


def idefics3(config: Any, processor: Any, size: Size) -> Layout:
    """Tiles row by row, each named, then an overview."""
    tile = processor.max_image_size["longest_edge"]
    columns, rows = _idefics_tiles(processor, size, tile)
    vision = config.vision_config
    side = vision.image_size // vision.patch_size
    across = side // config.scale_factor
    slots = across**2
    overview = (_IDEFICS_EDGE + "<global-img>", slots, _IDEFICS_EDGE)
    if rows == columns == 0:
        return Layout((tile, tile), side**2, overview, Grid(0, across, across))
    runs: list[int | str] = []
    for row in range(1, rows + 1):
        for column in range(1, columns + 1):
            runs += [f"{_IDEFICS_EDGE}<row_{row}_col_{column}>", slots]
        runs.append("\n")
    runs += ["\n", *overview]
    grid = Grid(rows * columns * slots, across, across)
    seen = (columns * tile, rows * tile)
    return Layout(seen, side**2 * (rows * columns + 1), tuple(runs), grid)


def _idefics_tiles(processor: Any, size: Size, tile: int) -> Size:
    """Columns and rows of tiles; (0, 0) where the overview is all there is."""
    if not processor.do_image_splitting:
        return 0, 0
    width, height = size
    if processor.do_resize:
        width, height = _idefics_resize(size, processor.size["longest_edge"])
    aspect = width / height
    if width >= height:
        width = math.ceil(width / tile) * tile
        height = math.ceil(int(width / aspect) / tile) * tile
    else:
        height = math.ceil(height / tile) * tile
        width = math.ceil(int(height * aspect) / tile) * tile
    if width <= tile and height <= tile:
        return 0, 0
    return width // tile, height // tile


def _idefics_resize(size: Size, longest: int) -> Size:
    width, height = size
    aspect = width / height
    if width >= height:
        width, height = longest, int(longest / aspect)
        height += height % 2
    else:
        width, height = int(longest * aspect), longest
        width += width % 2
    width, height = max(width, 1), max(height, 1)
    if max(width, height) > _LARGEST:
        aspect = width / height
        wide = width >= height
        width, height = (
            (_LARGEST, int(_LARGEST / aspect)) if wide else (int(_LARGEST * aspect), _LARGEST)
        )
    return max(width, 1), max(height, 1)


def internvl(config: Any, processor: Any, size: Size) -> Layout:
    """Tiles on the grid whose shape is nearest the image's, then an overview."""
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    width, height = processor.size["width"], processor.size["height"]
    columns, rows = get_optimal_tiled_canvas(
        (size[1], size[0]), (height, width), processor.min_patches, processor.max_patches
    )
    tiles = columns * rows + (columns * rows > 1)
    vision = config.vision_config
    patches = (height // vision.patch_size[0]) * (width // vision.patch_size[1])
    runs = ("<img>", config.image_seq_length * tiles, "</img>")
    across = math.isqrt(config.image_seq_length)
    grid = Grid(config.image_seq_length * (tiles - 1), across, across)
    return Layout((columns * width, rows * height), patches * tiles, runs, grid)


def gemma3(config: Any, processor: Any, size: Size) -> Layout:
    """A square of always as many tokens."""
    seen = (processor.size["width"], processor.size["height"])
    patch = config.vision_config.patch_size
    runs = ("\n\n<start_of_image>", config.mm_tokens_per_image, "<end_of_image>\n\n")
    across = math.isqrt(config.mm_tokens_per_image)
    grid = Grid(0, across, across)
    return Layout(seen, (seen[0] // patch) * (seen[1] // patch), runs, grid)
