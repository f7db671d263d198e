"""A prompt in progress, and the requests that begin with exactly it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mm.tokens.sequence import Tokens
from mm.types import Cost

from .prefix_cache import Layers, PrefixKey
from .request import Request
from .vision_encoder import ImageFeatures


@dataclass(eq=False)
class Prompt:
    """A prompt in progress, and the requests that begin with exactly it.

    Attributes:
        reused: how many ids a cached prefix held; `done` counts them too.
        cache: transformers' cache, of this prompt alone; None before the first chunk.
        positions: (1, T), or (3, 1, T) where the family has three axes.
        logits: (V,) for the token after the prompt, once `done` reaches its end.
        features: of this prompt's images, by their keys.
        restarted: whether it began anew after memory ran out.
    """

    tokens: Tokens
    prefix: PrefixKey
    requests: list[Request]
    reused: int = 0
    done: int = 0
    patches: int = 0
    cache: Any = field(default=None, repr=False)
    positions: Any = field(default=None, repr=False)
    logits: Any = field(default=None, repr=False)
    features: dict[str, ImageFeatures] = field(default_factory=dict, repr=False)
    restarted: bool = False

    @classmethod
    def of(cls, request: Request) -> Prompt:
        """A prompt that nothing is computed of yet."""
        return cls(request.tokens, PrefixKey.of(request.tokens, request.options.adapter), [request])

    @property
    def priority(self) -> int:
        """The largest priority among the requests that wait for it."""
        return max(request.options.priority for request in self.requests)

    @property
    def next_position(self) -> int:
        """The position of the token after the prompt."""
        return int(self.positions.max()) + 1

    @property
    def layers(self) -> Layers:
        """The keys and values computed so far, layer by layer."""
        return tuple((layer.keys, layer.values) for layer in self.cache.layers)

    def restart(self) -> None:
        """Begin anew: a forward that failed may have filled some of the cache's layers.

        Images that are encoded stay so: they are whole, counted, and needed again.
        """
        self.reused = self.done = 0
        self.cache = self.logits = None
        self.restarted = True

    def fail(self, error: BaseException) -> None:
        """Raise `error` in every thread that waits for it."""
        for request in self.requests:
            request.fail(error)

    def features_until(self, stop: int | None = None) -> list[ImageFeatures]:
        """Those in ids[done:stop], which ends at an image's end or outside of any."""
        stop = len(self.tokens.ids) if stop is None else stop
        spans = (s for s in self.tokens.images if self.done <= s.start < stop)
        found = ((self.features[s.key], s.block) for s in spans)
        return [whole.block(block) if block else whole for whole, block in found]

    def cost(self, place: int) -> Cost:
        """What the prompt cost the request at `place`; the first one pays for all."""
        length = len(self.tokens.ids)
        if place:
            return Cost(reused_tokens=length)
        computed = length - self.reused
        return Cost(patches=self.patches, computed_tokens=computed, reused_tokens=self.reused)
