"""Prompts on their way into caches: from the longest kept beginning on, a chunk at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mm.lru_cache import LRUCache

from .encoder_cache import EncoderCache
from .kv_slots import dynamic_cache
from .model_runner import ModelRunner
from .prefill_batch import companions, compute_together
from .prefix_cache import PrefixCache, PrefixKey
from .prompt import Prompt
from .vision_encoder import ImageFeatures

if TYPE_CHECKING:
    from torch import Tensor


class Prefill:
    """Computes prompts on `weights`, with what `contexts` and `features` keep."""

    def __init__(
        self,
        weights: ModelRunner,
        contexts: PrefixCache,
        features: LRUCache[tuple[str, str | None], ImageFeatures],
    ) -> None:
        self._weights = weights
        self._contexts = contexts
        self._sight = EncoderCache(weights, contexts, features)

    def group(self, first: Prompt, others: Iterable[Prompt], budget: int) -> list[Prompt]:
        """`first`, and those of `others` to compute in the same forward."""
        if not self._weights.batches_prompts:
            return [first]
        return companions(first, others, budget, self._start)

    def advance(self, group: Sequence[Prompt], budget: int, others: Iterable[Prompt] = ()) -> int:
        """Compute a group, or up to about `budget` ids more of a prompt alone; returns how many.

        A picture is computed whole, whatever its length. Where one has to be encoded, those that
        `others` will need, of up to `budget` visual tokens, are encoded in the same pass.

        Raises:
            ModelError: a prompt is longer than the model's context.
        """
        for prompt in group:
            if prompt.cache is None:
                self._begin(prompt)
        with self._weights.using(group[0].context.adapter):
            if len(group) == 1:
                return self._advance(group[0], budget, others)
            return self._compute_together(group, budget, others)

    def _start(self, prompt: Prompt) -> int:
        """Where a prompt's computation goes on, or will begin."""
        if prompt.cache is not None:
            return prompt.done
        return self._contexts.reach(prompt.context, len(prompt.tokens.ids) - 1)

    def _advance(self, prompt: Prompt, budget: int, others: Iterable[Prompt]) -> int:
        start = prompt.done
        stop = _chunk_end(prompt.context, start, min(start + budget, len(prompt.tokens.ids)))
        self._sight.provide(prompt, start, stop, others, budget)
        hidden = self._compute(prompt, start, stop)
        prompt.done = stop
        if stop == len(prompt.tokens.ids):
            prompt.logits = self._weights.logits(hidden[0, -1])
            self._contexts.keep(prompt.context, prompt.layers)
        return stop - start

    def _compute_together(
        self, group: Sequence[Prompt], budget: int, others: Iterable[Prompt]
    ) -> int:
        lengths = [len(prompt.tokens.ids) for prompt in group]
        computed = sum(lengths) - sum(prompt.done for prompt in group)
        for prompt, length in zip(group, lengths, strict=True):
            self._sight.provide(prompt, prompt.done, length, others, budget)
        compute_together(self._weights, group)
        for prompt in group:
            self._contexts.keep(prompt.context, prompt.layers)
        return computed

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
        ids, shown = prompt.tokens.ids[start:stop], prompt.shown(stop)
        embeds, extra = self._weights.inputs(ids, start, shown)
        at = prompt.positions[..., start:stop]
        return self._weights.forward(embeds, at, prompt.cache, **extra)


def _chunk_end(context: PrefixKey, start: int, stop: int) -> int:
    """`stop`, moved to where it cuts no picture: before it, or after one the chunk begins with."""
    before = context.cut(stop)
    if before > start:
        return before
    return next(end for begin, end, _ in context.images if begin == start)
