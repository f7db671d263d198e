"""A conversation as a model reads it: ids, and the pictures inside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mm.families.visual_memory import Block
from mm.geometry import Size
from mm.types import Features, Image

from .image_processing import key_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ImageSpan:
    """One picture inside the ids, or a block of one's memory.

    Attributes:
        start, stop: ids[start:stop] runs from its first placeholder to its last.
        process: gives `tensors`, the image processor's output for this picture alone, or for the
            memory's tiles; only then are pixels touched.
        patches: vision patches the encoder computes for it.
        shape: (columns, rows) of its visual tokens, as positions with axes count them.
        block: which part of the memory; None for a picture.
    """

    seen: Image | Features
    start: int
    stop: int
    process: Callable[[], Mapping[str, Tensor]] = field(repr=False, compare=False)
    patches: int
    shape: Size = (0, 0)
    block: Block | None = None

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return self.process()

    def prepare(self) -> None:
        """Have `tensors` made now; they are kept for a while."""
        self.process()

    @property
    def image(self) -> Image:
        return self.seen if isinstance(self.seen, Image) else self.seen.image

    @property
    def key(self) -> str:
        """Equal for spans whose encoded picture, or memory, is the same."""
        return key_of(self.seen)

    @property
    def content(self) -> str:
        """Equal for spans that mean the same in a context."""
        return f"{self.key} {self.block.box} {self.block.pool}" if self.block else self.key


@dataclass(frozen=True)
class Tokens:
    """A conversation as a model reads it.

    Attributes:
        trained: a flag per id: True on what assistant messages wrote and on their turn's end.
    """

    ids: tuple[int, ...]
    images: tuple[ImageSpan, ...]
    trained: tuple[bool, ...]
