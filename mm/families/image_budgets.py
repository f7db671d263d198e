"""How much of an image a model is shown: what was asked for, in each processor's own settings.

An image that enters a conversation from outside is shown within one budget, a look (a crop) within
another. Per family, a function gives what its processor can do with an image; of these the nearest
to the budget is taken, for each image by its own size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mm.errors import UserError
from mm.geometry import Size
from mm.types import ImageKind

from .image_layouts import Layout

NEAR = 0.15
"""A number of visual tokens within this share of what was asked for is what was asked for."""

SIZES: tuple[Size, ...] = ((640, 480), (1280, 720), (1024, 1024), (3000, 4000))
"""Common sizes of images, (width, height), by which a budget is judged when a model is loaded."""


@dataclass(frozen=True)
class ImageBudget:
    """About how much of one image to show; None leaves it to the checkpoint.

    Attributes:
        max_pixels, min_pixels: bounds on the area of the image as the model sees it.
        visual_tokens: how many, about; small images are enlarged to it. The bounds then do nothing.
    """

    max_pixels: int | None = None
    min_pixels: int | None = None
    visual_tokens: int | None = None


@dataclass(frozen=True)
class ImageBudgets:
    """The budgets of a model, under the names of `mm.load` and the flags.

    Attributes:
        max_pixels, min_pixels: of every image for which no number of tokens is given.
        visual_tokens: of each image that is not a look.
        look_visual_tokens: of each look.

    Raises:
        UserError: a number is not positive, or `min_pixels` is over `max_pixels`.
    """

    max_pixels: int | None = None
    min_pixels: int | None = None
    visual_tokens: int | None = None
    look_visual_tokens: int | None = None

    def __post_init__(self) -> None:
        for name, value in self.given.items():
            if value < 1:
                raise UserError(f"{name} must be 1 or more, got {value}")
        if (self.min_pixels or 0) > (self.max_pixels or math.inf):
            raise UserError(f"min_pixels {self.min_pixels} is over max_pixels {self.max_pixels}")

    @property
    def given(self) -> dict[str, int]:
        """What was asked for, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def of(self, kind: ImageKind) -> ImageBudget:
        """The budget of an image of this kind."""
        tokens = self.look_visual_tokens if kind == "look" else self.visual_tokens
        if tokens is not None:
            return ImageBudget(visual_tokens=tokens)
        return ImageBudget(self.max_pixels, self.min_pixels)


@dataclass(frozen=True)
class Fit:
    """How one image is given to its processor.

    Attributes:
        size: what it is resized to before; None leaves it as it is.
        settings: of the processor, for this image, in place of the checkpoint's.
    """

    size: Size | None = None
    settings: tuple[tuple[str, Any], ...] = ()


LayoutOf = Callable[[Any, Any, Size], Layout]
"""From (config, image processor, image's size) to its layout."""

Fits = Callable[[Any, Any, Size, ImageBudget], Iterable[Fit]]
"""From (config, image processor, image's size, budget) to what the processor can do, best first."""


def fit(
    layout: LayoutOf,
    fits: Fits,
    config: Any,
    processor: Any,
    budgets: ImageBudgets,
    size: Size,
    kind: ImageKind,
) -> tuple[Fit, Layout]:
    """How an image of `size` is given to `processor`, and what becomes of it.

    `layout` and `fits` are the family's.

    Raises:
        ValueError: the image is too narrow for the processor.
    """
    budget = budgets.of(kind)
    plain = layout(config, processor, size)
    if budget == ImageBudget():
        return Fit(), plain
    found = [(Fit(), plain)]
    for one in fits(config, processor, size, budget):
        changed = _Changed(processor, dict(one.settings))
        found.append((one, layout(config, changed, one.size or size)))
    return min(found, key=lambda each: _miss(budget, plain, each[1]))


def shortfall(layout: Callable[[Size, ImageKind], Layout], budgets: ImageBudgets) -> list[str]:
    """A line for each number of visual tokens that images of usual sizes do not come near to."""
    asked: Mapping[ImageKind, int | None] = {
        "overview": budgets.visual_tokens,
        "look": budgets.look_visual_tokens,
    }
    lines = []
    for kind, tokens in asked.items():
        got = sorted({layout(size, kind).tokens for size in SIZES}) if tokens else []
        if tokens and any(abs(count - tokens) > NEAR * tokens for count in got):
            counts = f"{got[0]}" if len(got) == 1 else f"{got[0]} to {got[-1]}"
            lines.append(
                f"{tokens} visual tokens for each {_NAMES[kind]}: the nearest is {counts}, by size"
            )
    return lines


_NAMES: Mapping[ImageKind, str] = {"overview": "image", "look": "look"}


def _miss(budget: ImageBudget, plain: Layout, layout: Layout) -> tuple[float, float]:
    """How far `layout` is from `budget`; smaller is nearer."""
    if budget.visual_tokens:
        return abs(layout.tokens - budget.visual_tokens), 0
    area, usual = math.prod(layout.seen), math.prod(plain.seen)
    over = area - (budget.max_pixels or math.inf)
    under = (budget.min_pixels or 0) - area
    return max(over, under, 0), abs(area - usual)


class _Changed:
    """An image processor with other settings; the one it stands for is left as it is."""

    def __init__(self, processor: Any, settings: Mapping[str, Any]) -> None:
        self._processor = processor
        self._settings = settings

    def __getattr__(self, name: str) -> Any:
        settings = self.__dict__["_settings"]
        return settings[name] if name in settings else getattr(self.__dict__["_processor"], name)


_STEPS = sorted((percent / 100 for percent in range(80, 141, 2)), key=lambda share: abs(share - 1))


def qwen(config: Any, processor: Any, size: Size, budget: ImageBudget) -> Iterable[Fit]:
    """An area of about so many patches, or the bounds themselves: `size` of the processor."""
    if budget.visual_tokens:
        area = budget.visual_tokens * (processor.patch_size * processor.merge_size) ** 2
        for share in _STEPS:  # a side is a whole number of patches: the area must give a little
            yield _edges(round(area * share), round(area * share))
        return
    low, high = processor.size["shortest_edge"], processor.size["longest_edge"]
    if budget.max_pixels:
        yield _edges(min(budget.min_pixels or low, budget.max_pixels), budget.max_pixels)
    elif budget.min_pixels:
        # whole patches need room between the bounds
        yield _edges(budget.min_pixels, max(2 * budget.min_pixels, high))


def _edges(low: int, high: int) -> Fit:
    return Fit(settings=(("size", {"shortest_edge": low, "longest_edge": high}),))


def anyres(config: Any, processor: Any, size: Size, budget: ImageBudget) -> Iterable[Fit]:
    """The image resized to fill each canvas that the model was made with, which decides its tiles.

    The processor's own canvases stay as they are: the model counts tiles by its config's.
    """
    for canvas_h, canvas_w in sorted(processor.image_grid_pinpoints, key=math.prod, reverse=True):
        scale = min(canvas_w / size[0], canvas_h / size[1])
        for share in (1, 0.5):
            yield Fit(_scaled(size, scale * share))


def _scaled(size: Size, scale: float) -> Size:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


_ROWS = 6  # tiles a side that Idefics3's and SmolVLM's tokenizers have tokens for


def idefics3(config: Any, processor: Any, size: Size, budget: ImageBudget) -> Iterable[Fit]:
    """A longest side of one tile to six."""
    tile = processor.max_image_size["longest_edge"]
    for tiles in range(1, _ROWS + 1):
        longest = {"longest_edge": tiles * tile}
        yield Fit(settings=(("do_image_splitting", True), ("size", longest)))


_MOST_TILES = 40  # as many as InternVL's authors evaluate with


def internvl(config: Any, processor: Any, size: Size, budget: ImageBudget) -> Iterable[Fit]:
    """At most so many tiles, on the grid whose shape is nearest the image's."""
    for tiles in range(1, max(processor.max_patches, _MOST_TILES) + 1):
        least = min(processor.min_patches, tiles)
        yield Fit(settings=(("min_patches", least), ("max_patches", tiles)))


def fixed(config: Any, processor: Any, size: Size, budget: ImageBudget) -> Iterable[Fit]:
    """Nothing: every image takes as many visual tokens."""
    return ()
