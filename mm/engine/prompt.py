"""A prompt in progress, and the requests that begin with exactly it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mm.tokens.sequence import Tokens
from mm.types import Cost

from .kv_slots import layers_of
from .prefix_cache import PrefixKey
from .request import Request
from .vision_encoder import ImageFeatures

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(eq=False)
class Prompt:
    """A prompt in progress, and the requests that begin with exactly it.

    Attributes:
        reused: how many ids a kept context held; `done` counts them too.
        cache: transformers' cache, of this prompt alone; None before the first chunk.
        logits: (V,) for the token after the prompt, once `done` reaches its end.
        seen: what was encoded for this prompt, by the pictures' keys.
    """

    tokens: Tokens
    context: PrefixKey
    requests: list[Request]
    reused: int = 0
    done: int = 0
    patches: int = 0
    cache: Any = field(default=None, repr=False)
    positions: Any = field(default=None, repr=False)
    logits: Any = field(default=None, repr=False)
    seen: dict[str, ImageFeatures] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, request: Request) -> Prompt:
        """A prompt that nothing is computed of yet."""
        return cls(request.tokens, PrefixKey.of(request.tokens, request.adapter), [request])

    @property
    def priority(self) -> int:
        """The largest priority among the requests that wait for it."""
        return max(request.priority for request in self.requests)

    @property
    def next_position(self) -> int:
        """The position of the token after the prompt."""
        return int(self.positions.max()) + 1

    @property
    def layers(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """The keys and values computed so far, layer by layer."""
        return layers_of(self.cache)

    def shown(self, stop: int | None = None) -> list[ImageFeatures]:
        """What is seen in ids[done:stop], which ends at a picture's end or outside of any."""
        stop = len(self.tokens.ids) if stop is None else stop
        spans = (s for s in self.tokens.images if self.done <= s.start < stop)
        return [self.seen[s.key].block(s.block) if s.block else self.seen[s.key] for s in spans]

    def cost(self, place: int) -> Cost:
        """What the prompt cost the request at `place`: the first one paid for all."""
        length = len(self.tokens.ids)
        if place:
            return Cost(reused_tokens=length)
        computed = length - self.reused
        return Cost(patches=self.patches, computed_tokens=computed, reused_tokens=self.reused)
