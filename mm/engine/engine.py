"""The engine owns a model's weights: it computes contexts, keeps them, and writes replies.

One thread does all work on the model, for any number of threads that ask. Requests share its
forward passes: each prompt is computed on its own, in chunks, from the longest kept context that it
begins with; then its reply is written in one batch with all others, a token of each per pass. Rows
join and leave that batch between passes. What is kept is never written in place.
"""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from mm.errors import ModelError
from mm.lru_cache import LRUCache
from mm.tokens.builder import TokenBuilder
from mm.tokens.sequence import Tokens
from mm.types import Sampling
from mm.vlm import AttentionMaps, Cancelled, OnToken, Query

from .decode import Reply
from .loop import Loop
from .model_runner import ModelRunner
from .prefix_cache import PrefixCache
from .request import Request
from .request_queue import RequestQueue
from .vision_encoder import ImageFeatures

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Engine", "Reply"]

T = TypeVar("T")

log = logging.getLogger(__name__)

_PATIENCE_S = 10.0
_running: weakref.WeakKeyDictionary[threading.Thread, Callable[[], Loop | None]]
_running = weakref.WeakKeyDictionary()


def _serve(holder: list[Loop]) -> None:
    """An engine's thread. If nobody else holds the loop any more, its weights are freed here."""
    loop = holder.pop()
    loop.run()


@atexit.register
def _end_threads() -> None:
    """Let every engine's thread end: one that is cut off inside torch aborts the process."""
    threads = list(_running.items())
    for _, of in threads:
        if loop := of():
            loop.stop()
    for thread, _ in threads:
        thread.join(_PATIENCE_S)


class Engine:
    """Serves requests on `model`, whose tokens `builder` builds.

    Args:
        context_budget, feature_budget: bytes that kept contexts and picture features may take.
        rows: how many requests are in progress at once.
        chunk: how many prompt ids are computed between two tokens of the replies in progress.
        queue: how many requests may wait; who asks for more waits for room.
    """

    def __init__(
        self,
        model: Any,
        builder: TokenBuilder,
        *,
        context_budget: int = 2**29,
        feature_budget: int = 2**27,
        rows: int = 32,
        chunk: int = 512,
        queue: int = 1024,
    ) -> None:
        self.builder = builder
        self.weights = ModelRunner(model, builder)
        self.model = self.weights.model
        if not self.weights.batches:
            log.warning(
                "%s: its layers' masks differ; replies are written one by one", builder.family.name
            )
        self._features: LRUCache[tuple[str, str | None], ImageFeatures] = LRUCache(feature_budget)
        self._loop = Loop(
            self.weights,
            PrefixCache(context_budget),
            self._features,
            RequestQueue(queue),
            rows=rows,
            chunk=chunk,
        )
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        # the thread knows the loop alone, so an engine that nobody holds ends its thread
        weakref.finalize(self, self._loop.stop).atexit = False

    @property
    def limit(self) -> int:
        """The longest context, in tokens, that the model's positions reach."""
        return self.weights.limit

    def generate(
        self,
        tokens: Tokens,
        sampling: Sampling,
        *,
        adapter: str | None = None,
        on_text: OnToken | None = None,
        cancel: Cancelled | None = None,
        priority: int = 0,
        deadline: float | None = None,
    ) -> Reply:
        """Write the next tokens.

        Args:
            on_text: called, on the thread that asks, with each new piece of text.
            cancel: asked between tokens, on the engine's thread.
            priority: larger goes first; below 0 are jobs that nobody watches.
            deadline: seconds from now after which no answer is wanted.

        Raises:
            ModelError: the prompt is longer than the model's context, or memory ran out.
            DeadlineExceeded: the deadline passed.
        """
        (reply,) = self.generate_all(
            [tokens],
            sampling,
            adapter=adapter,
            on_text=on_text,
            cancel=cancel,
            priority=priority,
            deadline=deadline,
        )
        return reply

    def generate_all(
        self,
        prompts: Sequence[Tokens],
        sampling: Sampling,
        *,
        adapter: str | None = None,
        on_text: OnToken | None = None,
        cancel: Cancelled | None = None,
        priority: int = 0,
        deadline: float | None = None,
    ) -> list[Reply]:
        """Write the next tokens of each prompt, as `generate` would of each alone.

        Raises:
            ModelError, DeadlineExceeded: as `generate`, for the first prompt that fails.
        """
        asker = object()
        requests = [
            Request(
                tokens,
                adapter,
                sampling,
                cancel=cancel,
                priority=priority,
                deadline=deadline,
                streams=on_text is not None,
                asker=asker,
            )
            for tokens in prompts
        ]
        try:
            for request in requests:
                self._submit(request)
            return [request.wait(self._check_alive, on_text) for request in requests]
        finally:
            for request in requests:
                request.abandoned = True

    def score(
        self,
        tokens: Tokens,
        continuations: Sequence[Sequence[int]],
        *,
        adapter: str | None = None,
        priority: int = 0,
        deadline: float | None = None,
    ) -> list[list[float]]:
        """Log-probabilities of each continuation's ids after `tokens`.

        Raises:
            ModelError, DeadlineExceeded: as `generate`.
        """
        request = Request(
            tokens, adapter, continuations=continuations, priority=priority, deadline=deadline
        )
        self._submit(request)
        return request.wait(self._check_alive)

    def next_logits(self, tokens: Tokens, *, adapter: str | None = None) -> Tensor:
        """The logits (V,), in float32, of the token after `tokens`; the context is kept.

        Raises:
            ModelError: as `generate`.
        """
        request = Request(tokens, adapter)
        self._submit(request)
        return request.wait(self._check_alive)

    def attention(
        self,
        tokens: Tokens,
        layers: Sequence[int],
        *,
        query: Query = "last",
        gradient: bool = False,
        adapter: str | None = None,
    ) -> AttentionMaps:
        """How `tokens` attend to their pictures, in each of `layers`; nothing is kept of it.

        Raises:
            ModelError: as `generate`.
            ValueError: the decoder has no such layer.
        """
        return self.on_thread(self._attention, tokens, layers, query, gradient, adapter)

    def forget(self) -> None:
        """Drop all kept contexts and features."""
        self.on_thread(self._loop.forget)

    def on_thread(self, work: Callable[..., T], *args: Any) -> T:
        """Have `work` done on the engine's thread, where nothing else uses the weights meanwhile.

        Raises:
            ModelError: memory ran out, or the engine has stopped.
        """
        future = self._loop.call(lambda: work(*args))
        self._start()
        return future.result()

    def _attention(
        self,
        tokens: Tokens,
        layers: Sequence[int],
        query: Query,
        gradient: bool,
        adapter: str | None,
    ) -> AttentionMaps:
        from .attention_maps import glance

        self.weights.check_length(len(tokens.ids))
        with self.weights.using(adapter):
            return glance(self.model, self.builder, tokens, layers, query=query, gradient=gradient)

    def _submit(self, request: Request) -> None:
        """Queue a request. Its pictures are prepared here, on the thread that asks."""
        for span in request.tokens.images:
            if (span.key, request.adapter) not in self._features:
                span.process()
        self._start()
        self._loop.waiting.put(request)

    def _start(self) -> None:
        """Start the thread when it is first needed."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=_serve, args=([self._loop],), name="engine", daemon=True
                    )
                    _running[self._thread] = weakref.ref(self._loop)
                    self._thread.start()

    def _check_alive(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            raise ModelError("the engine's thread is gone; load the model again")
