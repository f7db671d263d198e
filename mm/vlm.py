"""What the rest of the code needs from a model, and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from .geometry import BoxFormat, Size
from .types import (
    Conversation,
    Cost,
    Features,
    Generation,
    Image,
    ImageKind,
    Latents,
    Sampling,
    Scores,
    Visual,
)

if TYPE_CHECKING:
    import numpy as np


OnToken = Callable[[str], None]
Cancelled = Callable[[], bool]
CropRule = Literal["vlm_r3", "square"]


Query = Literal["last", "words"]


@dataclass(frozen=True)
class Aim:
    """Which of a model's attention tells where it looks.

    Attributes:
        layer: of the decoder, counted from 0.
        query: whose attention: the prompt's "last" token, or the "words" after the last image.
        relative: divide by the attention under a request that asks for nothing in particular.
        base: side, in pixels of the image, of the smallest window worth looking at.
    """

    layer: int
    query: Query = "last"
    relative: bool = True
    base: int = 224


@dataclass(frozen=True)
class AttentionMaps:
    """Attention over the images of a conversation.

    Attributes:
        maps: for each layer asked for, a map (rows, columns) of each image, in float32.
        cost: of the passes that gave it.
    """

    maps: tuple[tuple[np.ndarray, ...], ...]
    cost: Cost


@dataclass(frozen=True)
class Memory:
    """How an image is remembered at full resolution, and shown from memory (VGR, section 3).

    Poolings count visual tokens: 2 averages 2 x 2 of them to one.

    Attributes:
        tile: side, in pixels, of the squares the image is cut into, each encoded alone; None
            for a model that encodes an image of any size as one.
        max_tiles: the image is made smaller until it has no more of them.
        snapshot: pooling of the image squeezed into one tile, which the overview begins with;
            None leaves it out.
        local: pooling of the whole memory, which the overview ends with; None leaves it out. If
            both are None, the overview is the image encoded in the usual way.
        replay: pooling of a region that is looked at again.
    """

    tile: int | None = None
    max_tiles: int = 20
    snapshot: int | None = None
    local: int | None = None
    replay: int = 2


@dataclass(frozen=True)
class Traits:
    """How a model wants to be used.

    Attributes:
        box_format: how it writes boxes.
        crop_rule: which crop it was trained on ("vlm_r3" unless its config names another).
        calls_tools: whether it writes tool calls when a tool is on offer; else `zoom` asks where,
            then crops.
        aim: which attention tells where it looks; None for a model that shows none.
        memory: how it remembers images; None for a model whose features are no grid.
        sampling: how its authors sample, by its generation config; None where that is silent. Only
            a recommendation: `generate` samples as it is asked to.
        tools: the tools it was taught to call, where its config names some; other tools it cannot
            use. () for a model that takes what is on offer.
        budgets: bounds on images that it was loaded with, by the names of `mm.load`.
        packs_frames: whether two frames of a clip can share the visual tokens of one.
        at_once: how many requests of one question it is given at a time; 1 where it answers one
            after another anyway.
    """

    box_format: BoxFormat = BoxFormat()
    crop_rule: CropRule = "vlm_r3"
    calls_tools: bool = True
    aim: Aim | None = None
    memory: Memory | None = None
    sampling: Sampling | None = None
    budgets: tuple[tuple[str, int], ...] = ()
    tools: tuple[str, ...] = ()
    packs_frames: bool = False
    at_once: int = 1


def sampling_of(traits: Traits, given: Mapping[str, Any] | None = None) -> Sampling:
    """How a checkpoint's authors sample, with what is `given` in its place; else greedy.

    Raises:
        UserError: a number is out of its bounds.
    """
    return replace(traits.sampling or Sampling(), **(given or {}))


def check_on_token(on_token: OnToken | None, conversations: Sequence[Conversation]) -> None:
    """Refuse `on_token` with several conversations, whose pieces could not be told apart.

    Raises:
        ValueError: there are several, or none.
    """
    if on_token and len(conversations) != 1:
        raise ValueError(f"on_token needs exactly one conversation, got {len(conversations)}")


class VLM(Protocol):
    """A conversation goes in, a generation comes out; reuse between calls is the model's business.

    A conversation that ends with an assistant message leaves that turn open: the model goes on
    writing it.
    """

    name: str
    traits: Traits

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling,
        *,
        on_token: OnToken | None = None,
        cancel: Cancelled | None = None,
    ) -> list[Generation]:
        """One reply per conversation.

        Args:
            on_token: called with each new piece of text; only with a single conversation.
            cancel: asked between tokens; True ends the replies with finish "cancelled".

        Raises:
            ModelError: the model failed, or cannot take what it was given.
        """
        ...

    def score(self, conversation: Conversation, continuations: Sequence[str]) -> Scores:
        """Log-probabilities of each continuation's tokens as the assistant's next words.

        Its end token is included.
        """
        ...

    def seen_size(self, size: Size, kind: ImageKind = "overview") -> Size:
        """What the processor makes of an image of `size` and `kind`."""
        ...

    def visual_tokens(self, size: Size, kind: ImageKind = "overview") -> int:
        """What an image of `size` and `kind` costs in the context."""
        ...


class Attentive(VLM, Protocol):
    """A VLM that shows its attention."""

    def attention(
        self,
        conversation: Conversation,
        layers: Sequence[int],
        *,
        query: Query = "last",
        gradient: bool = False,
    ) -> AttentionMaps:
        """How the conversation's next word attends to its images.

        Raises:
            ModelError: the model failed.
            ValueError: it has no such layer.
        """
        ...


class Remembering(VLM, Protocol):
    """A VLM that can be shown images from memory; its `traits.memory` is not None."""

    def feature_tokens(self, features: Features) -> int:
        """What `features` cost in the context."""
        ...


def tokens_of(vlm: VLM, visual: Visual) -> int:
    """How many visual tokens an image, or features of one, take in the context of `vlm`."""
    if isinstance(visual, Image):
        return vlm.visual_tokens(visual.size, visual.kind)
    if isinstance(visual, Latents):
        return len(visual.vectors)
    return cast(Remembering, vlm).feature_tokens(visual)
