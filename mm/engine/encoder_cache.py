"""Encodes the images of prompts together, and caches their features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mm.lru_cache import ByteBudget, LRUCache
from mm.tokens.sequence import ImageSpan

from .model_runner import ModelRunner
from .prefix_cache import PrefixCache
from .prompt import Prompt
from .vision_encoder import ImageFeatures

Need = tuple[Prompt, list[ImageSpan]]
"""A prompt, and those of its images that are to be encoded for it."""


class EncoderCache:
    """Features of images, by an image's key and the adapter, under a budget of bytes.

    An adapter on the language model alone has those of the weights without any: an image that a
    reasoner and its verifier see is encoded, and counted, once.

    Args:
        prefixes: tells which images of a prompt need no features any more.
    """

    def __init__(
        self,
        runner: ModelRunner,
        prefixes: PrefixCache,
        budget: int,
        shared: ByteBudget | None = None,
    ) -> None:
        self._runner = runner
        self._prefixes = prefixes
        self._features: LRUCache[tuple[str, str | None], ImageFeatures]
        self._features = LRUCache(budget, shared=shared)

    def holds(self, span: ImageSpan, adapter: str | None) -> bool:
        """Whether an image's features are cached; any thread may ask."""
        return (span.key, self._of(adapter)) in self._features

    def clear(self) -> None:
        self._features.clear()
        self._runner.note_adapters()  # weights may have changed, and adapters with them

    def _of(self, adapter: str | None) -> str | None:
        """Whose features images have under `adapter`: its own, or (None) the weights' alone."""
        return adapter if self._runner.changes_images(adapter) else None

    def encode(
        self, prompt: Prompt, start: int, stop: int, others: Iterable[Prompt], room: int
    ) -> None:
        """Put the features of the images in ids[start:stop] into `prompt.features`.

        Where one has to be encoded, the images that `others` will need, of up to `room` visual
        tokens, share the pass; where that fails, they are left to fail alone.
        """
        spans = self._missing(prompt, start, stop)
        if not spans:
            return
        company = self._company(prompt, others, room)
        try:
            self._encode([(prompt, spans), *company])
        except Exception:
            if not company:
                raise
            self._encode([(prompt, spans)])

    def _missing(self, prompt: Prompt, start: int, stop: int) -> list[ImageSpan]:
        """The images in ids[start:stop] without features; the prompt takes those that are cached.

        An image that stands there twice is encoded once.
        """
        missing: dict[str, ImageSpan] = {}
        for span in prompt.tokens.images:
            if not start <= span.start < stop or span.key in prompt.features:
                continue
            cached = self._features.get((span.key, self._of(prompt.prefix.adapter)))
            if cached is None:
                missing[span.key] = span
            else:
                prompt.features[span.key] = cached
        return list(missing.values())

    def _company(self, prompt: Prompt, others: Iterable[Prompt], room: int) -> list[Need]:
        found: list[Need] = []
        alike = self._of(prompt.prefix.adapter)
        for other in others:
            if other is prompt or self._of(other.prefix.adapter) != alike:
                continue
            spans = self._ahead(other)
            room -= sum(span.stop - span.start for span in spans)
            if room < 0:
                break
            if spans:
                found.append((other, spans))
        return found

    def _ahead(self, prompt: Prompt) -> list[ImageSpan]:
        """The images that are still to be encoded for a prompt."""
        length = len(prompt.tokens.ids)
        start = prompt.done
        if prompt.cache is None:
            start = self._prefixes.match_length(prompt.prefix, length - 1)
        return self._missing(prompt, start, length)

    def _encode(self, needs: Sequence[Need]) -> None:
        spans = {span.key: span for _, mine in needs for span in mine}
        encoded = dict(zip(spans, self._runner.encode_images(list(spans.values())), strict=True))
        for prompt, mine in needs:
            for span in mine:
                features = prompt.features[span.key] = encoded[span.key]
                if spans.pop(span.key, None):  # the first that needs it pays
                    prompt.patches += span.patches
                    key = (span.key, self._of(prompt.prefix.adapter))
                    self._features.put(key, features, features.nbytes)
