"""Chunked prefill from the longest cached prefix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .encoder_cache import EncoderCache
from .model_runner import ModelRunner, dynamic_cache
from .prefill_batch import companions, compute_batch
from .prefix_cache import PrefixCache, PrefixKey
from .prompt import Prompt

if TYPE_CHECKING:
    from torch import Tensor


class Prefill:
    """Computes prompts on `runner`, reusing what `prefixes` and `encoder` have cached."""

    def __init__(self, runner: ModelRunner, prefixes: PrefixCache, encoder: EncoderCache) -> None:
        self._runner = runner
        self._batches_prompts = runner.batches_prompts
        self._prefixes = prefixes
        self._encoder = encoder

    def group(
        self, first: Prompt, others: Sequence[Prompt], budget: int, positions: int = 2**13
    ) -> list[Prompt]:
        """`first`, and those of `others` to compute in the same forward.

        Args:
            budget: ids that a forward may compute.
            positions: how many keys and values, padding included, may be copied for it.
        """
        if not self._batches_prompts:
            return [first]
        return companions(first, others, budget, self._start, positions)

    def advance(self, group: Sequence[Prompt], budget: int, others: Iterable[Prompt] = ()) -> int:
        """Compute a group, or up to about `budget` ids more of a prompt alone; returns how many.

        An image is computed whole, whatever its length. Where one has to be encoded, those that
        `others` will need, of up to `budget` visual tokens, are encoded in the same pass.
        """
        for prompt in group:
            if prompt.cache is None:
                self._match_prefix(prompt)
        with self._runner.using(group[0].prefix.adapter):
            if len(group) == 1:
                return self._advance(group[0], budget, others)
            return self._advance_group(group, budget, others)

    def _start(self, prompt: Prompt) -> int:
        """Where a prompt's computation goes on, or will begin."""
        if prompt.cache is not None:
            return prompt.done
        return self._prefixes.match_length(prompt.prefix, len(prompt.tokens.ids) - 1)

    def _match_prefix(self, prompt: Prompt) -> None:
        """Start from the longest cached prefix.

        Layers with a sliding window keep all their keys here and only their mask slides: a cache
        that forgets could not serve a request that begins the same and goes on differently.
        """
        # the last id is always computed: its logits are what the prompt is computed for
        length = len(prompt.tokens.ids)
        prompt.reused, layers = self._prefixes.match(prompt.prefix, length - 1)
        prompt.done = prompt.reused
        prompt.positions = self._runner.positions(prompt.tokens)
        prompt.cache = dynamic_cache(layers)

    def _advance(self, prompt: Prompt, budget: int, others: Iterable[Prompt]) -> int:
        length, start = len(prompt.tokens.ids), prompt.done
        stop = _chunk_end(prompt.prefix, start, min(start + budget, length))
        self._encoder.encode(prompt, start, stop, others, budget)
        hidden = self._compute(prompt, start, stop)  # (1, T, D)
        prompt.done = stop
        if stop == length:
            prompt.logits = self._runner.logits(hidden[0, -1])  # (V,)
            self._prefixes.store(prompt.prefix, prompt.layers)
        return stop - start

    def _compute(self, prompt: Prompt, start: int, stop: int) -> Tensor:
        ids, features = prompt.tokens.ids[start:stop], prompt.features_until(stop)
        at = prompt.positions[..., start:stop]
        return self._runner.forward_prompt(ids, start, features, at, prompt.cache)

    def _advance_group(self, group: Sequence[Prompt], budget: int, others: Iterable[Prompt]) -> int:
        lengths = [len(prompt.tokens.ids) for prompt in group]
        computed = sum(lengths) - sum(prompt.done for prompt in group)
        for prompt, length in zip(group, lengths, strict=True):
            self._encoder.encode(prompt, prompt.done, length, others, budget)
        compute_batch(self._runner, group)
        for prompt in group:
            self._prefixes.store(prompt.prefix, prompt.layers)
        return computed


def _chunk_end(prefix: PrefixKey, start: int, stop: int) -> int:
    """`stop`, moved to where it cuts no image: before it, or after one the chunk begins with."""
    before = prefix.cut(stop)
    if before > start:
        return before
    return next(end for begin, end, _ in prefix.images if begin == start)
