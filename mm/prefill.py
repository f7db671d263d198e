"""Prompts on their way into a cache: from the longest kept beginning on, a chunk at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .kept import Context, Contexts, Kept
from .scheduler import Request
from .sight import Sight
from .tokens import Tokens
from .types import Cost
from .weights import Encoded, Weights, dynamic_cache, layers_of

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
    context: Context
    requests: list[Request]
    reused: int = 0
    done: int = 0
    patches: int = 0
    cache: Any = field(default=None, repr=False)
    positions: Any = field(default=None, repr=False)
    logits: Any = field(default=None, repr=False)
    seen: dict[str, Encoded] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, request: Request) -> Prompt:
        return cls(request.tokens, Context.of(request.tokens, request.adapter), [request])

    @property
    def next_position(self) -> int:
        return int(self.positions.max()) + 1

    @property
    def layers(self) -> tuple[tuple[Tensor, Tensor], ...]:
        return layers_of(self.cache)

    def cost(self, place: int) -> Cost:
        """What the prompt cost the request at `place`: the first one paid for all."""
        length = len(self.tokens.ids)
        if place:
            return Cost(reused_tokens=length)
        computed = length - self.reused
        return Cost(patches=self.patches, computed_tokens=computed, reused_tokens=self.reused)


class Prefill:
    """Computes prompts on `weights`, with what `contexts` and `features` keep."""

    def __init__(
        self,
        weights: Weights,
        contexts: Contexts,
        features: Kept[tuple[str, str | None], Encoded],
    ) -> None:
        self._weights = weights
        self._contexts = contexts
        self._sight = Sight(weights, contexts, features)

    def advance(self, prompt: Prompt, budget: int, others: Iterable[Prompt] = ()) -> int:
        """Compute up to about `budget` ids more; returns how many it was.

        A picture is computed whole, whatever its length. Where one has to be encoded, those that
        `others` will need, of up to `budget` visual tokens, are encoded in the same pass.

        Raises:
            ModelError: the prompt is longer than the model's context.
        """
        if prompt.cache is None:
            self._begin(prompt)
        start = prompt.done
        stop = _chunk_end(prompt.context, start, min(start + budget, len(prompt.tokens.ids)))
        with self._weights.using(prompt.context.adapter):
            self._sight.provide(prompt, start, stop, others, budget)
            hidden = self._compute(prompt, start, stop)
            prompt.done = stop
            if stop == len(prompt.tokens.ids):
                prompt.logits = self._weights.logits(hidden[0, -1])
                self._contexts.keep(prompt.context, prompt.layers)
        return stop - start

    def _begin(self, prompt: Prompt) -> None:
        """Start from the longest context that is kept.

        Layers with a sliding window keep all their keys here and only their mask slides: a cache
        that forgets could not serve a request that begins the same and goes on differently.
        """
        length = len(prompt.tokens.ids)
        self._weights.check_length(length)
        prompt.reused, layers = self._contexts.longest(prompt.context, length - 1)
        prompt.done = prompt.reused
        prompt.positions = self._weights.positions(prompt.tokens)
        prompt.cache = dynamic_cache(layers)

    def _compute(self, prompt: Prompt, start: int, stop: int) -> Tensor:
        spans = [s for s in prompt.tokens.images if start <= s.start < stop]
        seen = [prompt.seen[s.key].block(s.block) if s.block else prompt.seen[s.key] for s in spans]
        embeds, extra = self._weights.inputs(prompt.tokens.ids[start:stop], start, seen)
        at = prompt.positions[..., start:stop]
        return self._weights.forward(embeds, at, prompt.cache, **extra)


def _chunk_end(context: Context, start: int, stop: int) -> int:
    """`stop`, moved to where it cuts no picture: before it, or after one the chunk begins with."""
    before = context.cut(stop)
    if before > start:
        return before
    return next(end for begin, end, _ in context.images if begin == start)
