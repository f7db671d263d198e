"""What each family's processor makes of a picture, told from the picture's size alone.

A layout is (config, image processor, size) to `Layout`. Everything else that counts a picture (its
cost, its placeholders, the size its boxes are measured in) is read from there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from mm.geometry import Size


class Grid(NamedTuple):
    """The placeholders that cover a whole picture: from number `first` on, row by row."""

    first: int
    columns: int
    rows: int


@dataclass(frozen=True)
class Layout:
    """A picture in the context.

    Attributes:
        seen: the size the picture has for the model, in pixels; padding left out.
        patches: vision patches the encoder computes for it.
        marks: the placeholders that stand for it, with the markers between them.
        grid: which of the placeholders show the whole picture; tiles show its parts.
    """

    seen: Size
    patches: int
    marks: str
    grid: Grid


def qwen(config: Any, processor: Any, size: Size) -> Layout:
    """One grid of patches, its sides multiples of patch times merge."""
    merge, patch = processor.merge_size, processor.patch_size
    edge = processor.size
    seen = _smart_resize(size, patch * merge, edge["shortest_edge"], edge["longest_edge"])
    patches = (seen[0] // patch) * (seen[1] // patch)
    grid = Grid(0, seen[0] // patch // merge, seen[1] // patch // merge)
    return Layout(seen, patches, "<|image_pad|>" * (patches // merge**2), grid)


def _smart_resize(size: Size, factor: int, low: int, high: int) -> Size:
    """`size` on a grid of `factor` pixels, its area between `low` and `high`, its shape kept."""
    if max(size) > 200 * min(size):
        raise ValueError(f"a picture's sides may differ 200-fold at most, got {size[0]}x{size[1]}")
    w, h = (round(v / factor) * factor for v in size)
    if w * h > high:
        shrink = math.sqrt(size[0] * size[1] / high)
        w, h = (max(factor, math.floor(v / shrink / factor) * factor) for v in size)
    elif w * h < low:
        grow = math.sqrt(low / (size[0] * size[1]))
        w, h = (math.ceil(v * grow / factor) * factor for v in size)
    return w, h


def llava_next(config: Any, processor: Any, size: Size) -> Layout:
    """An overview, then tiles of the picture without their padding, a newline after each row."""
    vision = config.vision_config
    side = vision.image_size // vision.patch_size
    canvas, seen = _anyres(processor, size)
    tiles = (canvas[0] // _tile(processor), canvas[1] // _tile(processor))
    width, height = _unpadded(size, (tiles[0] * side, tiles[1] * side))
    class_token = vision.model_type == "clip_vision_model"
    kept = class_token and config.vision_feature_select_strategy == "full"
    tokens = side**2 + kept + width * height + height
    patches = side**2 * (1 + tiles[0] * tiles[1])
    return Layout(seen, patches, "<image>" * tokens, Grid(int(kept), side, side))


def llava_onevision(config: Any, processor: Any, size: Size) -> Layout:
    """As LLaVA-NeXT, the tiles shrunk where they hold more than the budget.

    Each picture is told alone: the family's own processor drops the tiles of one that has company,
    and a context to which a picture is added later would differ from a fresh one.
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
    return Layout(seen, patches, "<image>" * tokens, Grid(0, side, side))


def _tile(processor: Any) -> int:
    crop, size = processor.crop_size, processor.size
    return (crop and crop["height"]) or size.get("height") or size["shortest_edge"]


def _anyres(processor: Any, size: Size) -> tuple[Size, Size]:
    """The canvas that fits the picture best, and the picture's size on it."""
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
    """What of `grid`, in features, a picture of `size` covers when it is centred there."""
    width, height = size
    grid_w, grid_h = grid
    if width / height > grid_w / grid_h:
        covered = int(round(height * (grid_w / width), 7))
        return grid_w, grid_h - (grid_h - covered) // 2 * 2
    covered = int(round(width * (grid_h / height), 7))
    return grid_w - (grid_w - covered) // 2 * 2, grid_h


_LARGEST = 4096  # pixels a side; Idefics3's processor goes no further


def idefics3(config: Any, processor: Any, size: Size) -> Layout:
    """Tiles row by row, each named, then an overview."""
    tile = processor.max_image_size["longest_edge"]
    columns, rows = _idefics_tiles(processor, size, tile)
    vision = config.vision_config
    side = vision.image_size // vision.patch_size
    across = side // config.scale_factor
    slots = "<image>" * across**2
    overview = f"<fake_token_around_image><global-img>{slots}<fake_token_around_image>"
    if rows == columns == 0:
        return Layout((tile, tile), side**2, overview, Grid(0, across, across))
    named = [
        "".join(f"<fake_token_around_image><row_{r}_col_{c}>{slots}" for c in range(1, columns + 1))
        for r in range(1, rows + 1)
    ]
    marks = "".join(f"{row}\n" for row in named) + f"\n{overview}"
    grid = Grid(rows * columns * across**2, across, across)
    return Layout((columns * tile, rows * tile), side**2 * (rows * columns + 1), marks, grid)


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
    """Tiles on the grid whose shape is nearest the picture's, then an overview."""
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    width, height = processor.size["width"], processor.size["height"]
    columns, rows = get_optimal_tiled_canvas(
        (size[1], size[0]), (height, width), processor.min_patches, processor.max_patches
    )
    tiles = columns * rows + (columns * rows > 1)
    vision = config.vision_config
    patches = (height // vision.patch_size[0]) * (width // vision.patch_size[1])
    slots = "<IMG_CONTEXT>" * (config.image_seq_length * tiles)
    across = math.isqrt(config.image_seq_length)
    grid = Grid(config.image_seq_length * (tiles - 1), across, across)
    return Layout((columns * width, rows * height), patches * tiles, f"<img>{slots}</img>", grid)


def gemma3(config: Any, processor: Any, size: Size) -> Layout:
    """A square of always as many tokens."""
    seen = (processor.size["width"], processor.size["height"])
    patch = config.vision_config.patch_size
    slots = "<image_soft_token>" * config.mm_tokens_per_image
    marks = f"\n\n<start_of_image>{slots}<end_of_image>\n\n"
    across = math.isqrt(config.mm_tokens_per_image)
    grid = Grid(0, across, across)
    return Layout(seen, (seen[0] // patch) * (seen[1] // patch), marks, grid)
