"""Pictures on their way into prompts: encoded together, each once for as long as it is kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mm.lru_cache import LRUCache
from mm.tokens.sequence import ImageSpan

from .model_runner import ModelRunner
from .prefix_cache import PrefixCache
from .vision_encoder import ImageFeatures

if TYPE_CHECKING:
    from .prompt import Prompt

Need = tuple["Prompt", list[ImageSpan]]
"""A prompt, and those of its pictures that are to be encoded for it."""


class EncoderCache:
    """Encodes pictures on `weights`; `features` keeps them by their key and the adapter."""

    def __init__(
        self,
        weights: ModelRunner,
        contexts: PrefixCache,
        features: LRUCache[tuple[str, str | None], ImageFeatures],
    ) -> None:
        self._weights = weights
        self._contexts = contexts
        self._features = features

    def provide(
        self, prompt: Prompt, start: int, stop: int, others: Iterable[Prompt], room: int
    ) -> None:
        """Put what `prompt` shows in ids[start:stop] into its `seen`.

        Where something has to be encoded, the pictures that `others` will need, of up to `room`
        visual tokens, share the pass; where that fails, they are left to fail alone.
        """
        spans = self._unseen(prompt, start, stop)
        if not spans:
            return
        company = self._company(prompt, others, room)
        try:
            self._encode([(prompt, spans), *company])
        except Exception:
            if not company:
                raise
            self._encode([(prompt, spans)])

    def _unseen(self, prompt: Prompt, start: int, stop: int) -> list[ImageSpan]:
        """The pictures in ids[start:stop] of which nothing is kept; of the others it takes that."""
        unseen: dict[str, ImageSpan] = {}
        for span in prompt.tokens.images:
            if not start <= span.start < stop or span.key in prompt.seen:
                continue
            kept = self._features.get((span.key, prompt.context.adapter))
            if kept is None:
                unseen[span.key] = span
            else:
                prompt.seen[span.key] = kept
        return list(unseen.values())

    def _company(self, prompt: Prompt, others: Iterable[Prompt], room: int) -> list[Need]:
        found: list[Need] = []
        for other in others:
            if other is prompt or other.context.adapter != prompt.context.adapter:
                continue
            spans = self._ahead(other)
            room -= sum(span.stop - span.start for span in spans)
            if room < 0:
                break
            if spans:
                found.append((other, spans))
        return found

    def _ahead(self, prompt: Prompt) -> list[ImageSpan]:
        """The pictures that are still to be encoded for a prompt."""
        length = len(prompt.tokens.ids)
        start = prompt.done
        if prompt.cache is None:
            start = self._contexts.reach(prompt.context, length - 1)
        return self._unseen(prompt, start, length)

    def _encode(self, needs: Sequence[Need]) -> None:
        spans = {span.key: span for _, mine in needs for span in mine}
        encoded = dict(zip(spans, self._weights.see(list(spans.values())), strict=True))
        for prompt, mine in needs:
            for span in mine:
                seen = prompt.seen[span.key] = encoded[span.key]
                if spans.pop(span.key, None):  # the first that needs it pays
                    prompt.patches += span.patches
                    self._features.put((span.key, prompt.context.adapter), seen, seen.nbytes)
