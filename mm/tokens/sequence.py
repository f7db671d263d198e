"""A conversation as a model reads it: ids, and the images inside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mm.families.visual_memory import Block
from mm.geometry import Size
from mm.types import Image, Visual

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ImageSpan:
    """One image inside the ids, or a block of one's memory. It can be pickled.

    Attributes:
        start, stop: ids[start:stop] runs from its first placeholder to its last.
        tokens: how many placeholders that are; markers may stand between them.
        key: equal for spans whose encoded image, or memory, is the same.
        content: equal for spans that mean the same in a context.
        process: runs the image processor on this image alone, or on the memory's tiles; only then
            are pixels touched. The result is cached for a while.
        patches: vision patches the encoder computes for it.
        shape: (columns, rows) of its visual tokens, as positions with axes count them.
        block: which part of the memory; None for an image.
        encoded: whether the vision encoder makes them; latents are vectors already.
    """

    visual: Visual
    start: int
    stop: int
    tokens: int
    key: str
    content: str
    process: Callable[[], Mapping[str, Tensor]] = field(repr=False, compare=False)
    patches: int
    shape: Size = (0, 0)
    block: Block | None = None
    encoded: bool = True

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """What the vision encoder takes: the result of `process`."""
        return self.process()

    @property
    def image(self) -> Image:
        """The image whose tokens these are."""
        return self.visual.source


@dataclass(frozen=True)
class Tokens:
    """A conversation as a model reads it.

    Attributes:
        trained: a flag per id: True on what assistant messages wrote and on their turn's end.
    """

    ids: tuple[int, ...]
    images: tuple[ImageSpan, ...]
    trained: tuple[bool, ...]

    def types(self, placeholder: int) -> list[int]:
        """1 for each placeholder of an image, 0 for text, and for latents, which stand as text
        does."""
        types = [int(id == placeholder) for id in self.ids]
        for span in self.images:
            if not span.encoded:
                types[span.start : span.stop] = [0] * (span.stop - span.start)
        return types
