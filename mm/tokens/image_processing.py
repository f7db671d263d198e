"""Images to tensors: each image alone, so that a cached context equals a fresh one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from mm.families.image_budgets import Fit, ImageBudgets, fit
from mm.families.image_layouts import Layout
from mm.families.registry import RECALLING, Family
from mm.families.visual_memory import Block, Recall, TileGrid, block, tile_grid
from mm.geometry import Size
from mm.lru_cache import LRUCache
from mm.types import Features, Image, ImageKind, Latents, Message, Visual
from mm.vlm import Memory

from .sequence import ImageSpan

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels
    from torch import Tensor

LATENTS = "latents"
"""What the tensors of latents are called: vectors that no encoder has to make."""

_BUDGET = 256 * 2**20  # bytes of tensors: some dozens of images at a usual resolution


@dataclass(frozen=True)
class Footprint:
    """What an image, or features of one, takes in a context.

    Attributes:
        runs: as in `Layout`: counts of placeholders, and the text between.
        tokens: how many placeholders that are.
        patches: vision patches the encoder computes for it, where its features are not cached.
        shape: (columns, rows) of its visual tokens, as positions with axes count them.
        block: which part of the image's memory; None for the image itself.
    """

    runs: tuple[int | str, ...]
    tokens: int
    patches: int
    shape: Size
    block: Block | None = None


class ImageProcessing:
    """One family's image processor, its latest results cached; safe to use from several threads.

    A pickled copy begins with an empty cache.

    Args:
        memory: how images are remembered; None where they cannot be. Memories have no budget.
        budgets: how much of an image is shown.
    """

    def __init__(
        self,
        family: Family,
        config: Any,
        processor: Any,
        memory: Memory | None = None,
        budgets: ImageBudgets = ImageBudgets(),
    ) -> None:
        self._family = family
        self._config = config
        self._memory = memory
        self._processor = processor
        self.budgets = budgets
        # the newest always stays: one that is prepared must be there when it is encoded
        self._cache: LRUCache[str, Mapping[str, Tensor]] = LRUCache(_BUDGET, at_least=1)
        self._lock = threading.Lock()
        self._limited = bool(budgets.given)
        self._apart = budgets.of("overview") != budgets.of("look")
        self._tile: Callable[[Size], Layout] = lru_cache(1024)(
            partial(family.layout, config, processor)
        )
        self._fit: Callable[[Size, ImageKind], tuple[Fit, Layout]] = lru_cache(1024)(
            partial(fit, family.layout, family.fits, config, processor, budgets)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        parts = (self._family, self._config, self._processor, self._memory, self.budgets)
        return type(self), parts

    def layout(self, size: Size, kind: ImageKind = "overview") -> Layout:
        """What becomes of an image of `size`, within the budget of its kind."""
        return self._fit(size, kind)[1] if self._limited else self._tile(size)

    def key(self, visual: Visual) -> str:
        """Equal for what the encoder reads alike: a look may be seen in another size than the same
        image as an overview."""
        look = self._apart and isinstance(visual, Image) and visual.kind == "look"
        return f"{visual.key} look" if look else visual.key

    def tensors(self, visual: Visual, key: str) -> Mapping[str, Tensor]:
        """What the encoder takes for one image alone, or for the memory it is remembered by.

        `key` is the visual's own; whoever built its tokens has it.
        """
        with self._lock:
            cached = self._cache.get(key)
        if cached is not None:
            return cached
        # two threads may process one image at the same time: that costs less than one lock for all
        made = self._made(visual)
        with self._lock:
            self._cache.put(key, made, sum(t.nbytes for t in made.values()))
        return made

    def _made(self, visual: Visual) -> Mapping[str, Tensor]:
        if isinstance(visual, Latents):
            import torch

            return {LATENTS: torch.as_tensor(visual.vectors)}
        return self._shown(visual) if isinstance(visual, Image) else self._tiles(visual)

    def footprint(self, visual: Visual) -> Footprint:
        """What `visual` takes in a context.

        Raises:
            ValueError: features, and the model remembers no images; or the image is too narrow.
        """
        if isinstance(visual, Image):
            kind = visual.kind if self._limited else "overview"
            layout = self.layout(visual.pixels.size, kind)
            shape = layout.grid.columns, layout.grid.rows
            return Footprint(layout.runs, layout.tokens, layout.patches, shape)
        if isinstance(visual, Latents):
            count = len(visual.vectors)
            return Footprint((count,), count, patches=0, shape=(count, 1))
        recall, grid = self._remembered(visual)
        part = block(visual.region, grid, visual.pool)
        tokens = part.shape[0] * part.shape[1]
        patches = grid.shape[0] * grid.shape[1] * recall.cell(self._config)
        return Footprint((tokens,), tokens, patches, part.shape, part)

    def spans(
        self, ids: Sequence[int], placeholder: int, conversation: Sequence[Message]
    ) -> tuple[ImageSpan, ...]:
        """Where in `ids` the images of `conversation` are, in order, as far as they reach.

        Raises:
            ValueError: `ids` hold other placeholders than those images take.
        """
        places = [at for at, id in enumerate(ids) if id == placeholder]
        spans: list[ImageSpan] = []
        at = 0
        for visual in (p for m in conversation for p in m.parts if isinstance(p, Visual)):
            takes = self.footprint(visual)
            mine = places[at : (at := at + takes.tokens)]
            if len(mine) < takes.tokens:
                break
            spans.append(self._span(visual, takes, mine))
        if at != len(places):
            raise ValueError(
                f"{len(places)} placeholders for images that take {at}: "
                "a message's own tokens hold some; leave them out"
            )
        return tuple(spans)

    def _span(self, visual: Visual, takes: Footprint, places: Sequence[int]) -> ImageSpan:
        key, block = self.key(visual), takes.block
        return ImageSpan(
            visual,
            start=places[0],
            stop=places[-1] + 1,
            tokens=takes.tokens,
            key=key,
            content=f"{key} {block.box} {block.pool}" if block else key,
            process=partial(self.tensors, visual, key),
            patches=takes.patches,
            shape=takes.shape,
            block=block,
            encoded=not isinstance(visual, Latents),
        )

    def cells(self, size: Size) -> Size:
        """(columns, rows) of the visual tokens of an image, or a tile, without a budget."""
        grid = self._tile(size).grid
        return grid.columns, grid.rows

    def _tiles(self, features: Features) -> Mapping[str, Tensor]:
        recall, grid = self._remembered(features)
        return recall.tensors([self._process(t) for t in grid.cut(features.image.pixels)])

    def _remembered(self, features: Features) -> tuple[Recall, TileGrid]:
        recall = self._family.recall
        if recall is None or self._memory is None:
            raise ValueError(
                f"{self._family.name} cannot replay what it saw: its features are no grid; "
                f"{' and '.join(RECALLING)} can"
            )
        size = features.image.size
        return recall, tile_grid(self._memory, size, self.cells, snapshot=features.snapshot)

    def _shown(self, image: Image) -> Mapping[str, Tensor]:
        made = self._sized(image, image.pixels)
        if image.second is None:
            return made
        return packed(made, self._sized(image, image.second), self._processor.temporal_patch_size)

    def _sized(self, image: Image, pixels: Pixels) -> Mapping[str, Tensor]:
        if not self._limited:
            return self._process(pixels)
        how, _ = self._fit(image.size, image.kind)
        return self._process(pixels.resize(how.size) if how.size else pixels, how.settings)

    def _process(
        self, pixels: Pixels, settings: Iterable[tuple[str, Any]] = ()
    ) -> Mapping[str, Tensor]:
        options = {**dict(self._family.options), **dict(settings)}
        made = self._processor(images=[pixels], return_tensors="pt", **options)
        return {k: made[k] for k in self._family.tensors if k in made}


def packed(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor], depth: int
) -> Mapping[str, Tensor]:
    """Two frames in the patches of one, as Qwen's video processors lay them: each patch is `depth`
    frames deep, and of an image all of those are the same.

    `pixel_values` are (patches, channels * depth * height * width).
    """
    patches = first["pixel_values"].unflatten(1, (3, depth, -1)).clone()
    behind = second["pixel_values"].unflatten(1, (3, depth, -1))
    patches[:, :, depth // 2 :] = behind[:, :, depth // 2 :]
    return {**first, "pixel_values": patches.flatten(1)}
