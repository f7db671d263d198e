"""The engine owns a model's weights: it computes contexts, caches them, and generates replies.

One thread does all work on the model, for any number of threads that ask. Requests share its
forward passes: each prompt is computed in chunks, from its longest cached prefix; then its reply is
decoded in one batch with all others, a token of each per pass. Rows join and leave that batch
between passes. Requests are admitted while their keys and values fit a budget of bytes, which the
caches share. What is cached is never written in place.
"""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any, TypeVar

from mm.errors import ModelError
from mm.lru_cache import ByteBudget
from mm.tokens.builder import TokenBuilder
from mm.tokens.sequence import Tokens
from mm.types import Sampling, Scores
from mm.vlm import AttentionMaps, Query

from .decode import Reply
from .encoder_cache import EncoderCache
from .loop import Loop
from .model_runner import ModelRunner
from .prefix_cache import PrefixCache
from .request import Request, RequestOptions
from .request_queue import RequestQueue
from .resources import free_memory

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Engine", "Reply", "RequestOptions"]

T = TypeVar("T")

log = logging.getLogger(__name__)

_JOIN_S = 10.0
_CHECK_S = 2.0  # seconds between two checks whether the thread still lives
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
        thread.join(_JOIN_S)


class Engine:
    """Serves requests on `model`, whose tokens `builder` builds.

    Args:
        budget: bytes that requests in progress and both caches may take together; None takes what
            is free once the weights are loaded.
        context_budget, feature_budget: bytes that cached contexts and image features may take.
        rows: how many requests are in progress at once.
        chunk: how many prompt ids are computed between two tokens of the replies in progress.
        queue: how many requests may wait; a client that asks for more waits for room.
    """

    def __init__(
        self,
        model: Any,
        builder: TokenBuilder,
        *,
        budget: int | None = None,
        context_budget: int = 2**29,
        feature_budget: int = 2**27,
        rows: int = 32,
        chunk: int = 512,
        queue: int = 1024,
    ) -> None:
        self.builder = builder
        self.runner = ModelRunner(model, builder)
        self.model = self.runner.model
        if not self.runner.batches:
            log.warning(
                "%s: its layers' masks differ; replies are decoded one by one", builder.family.name
            )
        shared = ByteBudget(free_memory(self.runner.device) if budget is None else budget)
        prefixes = PrefixCache(context_budget, shared)
        self._encoder = EncoderCache(self.runner, prefixes, feature_budget, shared)
        self._loop = Loop(
            self.runner,
            prefixes,
            self._encoder,
            RequestQueue(queue),
            shared,
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
        return self.runner.limit

    def generate(
        self, tokens: Tokens, sampling: Sampling, options: RequestOptions = RequestOptions()
    ) -> Reply:
        """Write the next tokens.

        Raises:
            ModelError: the prompt is longer than the model's context or than memory holds, or
                memory ran out.
            DeadlineExceeded: the deadline passed.
        """
        return self.generate_all([tokens], sampling, options)[0]

    def generate_all(
        self,
        prompts: Sequence[Tokens],
        sampling: Sampling,
        options: RequestOptions = RequestOptions(),
    ) -> list[Reply]:
        """Write the next tokens of each prompt, as `generate` would of each alone.

        Raises:
            ModelError, DeadlineExceeded: as `generate`, for the first prompt that fails.
        """
        client = object()
        requests = [Request(tokens, options, sampling, client=client) for tokens in prompts]
        try:
            for request in requests:
                self._submit(request)
            return [request.wait(self._check_alive) for request in requests]
        finally:
            for request in requests:
                request.abandoned = True

    def score(
        self,
        tokens: Tokens,
        continuations: Sequence[Sequence[int]],
        options: RequestOptions = RequestOptions(),
    ) -> Scores:
        """Log-probabilities of each continuation's ids after `tokens`.

        Raises:
            ModelError, DeadlineExceeded: as `generate`.
        """
        request = Request(tokens, options, continuations=continuations)
        self._submit(request)
        return request.wait(self._check_alive)

    def next_logits(self, tokens: Tokens, *, adapter: str | None = None) -> Tensor:
        """The logits (V,), in float32, of the token after `tokens`; the context is cached.

        Raises:
            ModelError: as `generate`.
        """
        request = Request(tokens, RequestOptions(adapter=adapter))
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
        """How `tokens` attend to their images, in each of `layers`; nothing of it is cached.

        Raises:
            ModelError: as `generate`.
            ValueError: the decoder has no such layer.
        """
        return self.on_thread(self._attention, tokens, layers, query, gradient, adapter)

    def clear_caches(self) -> None:
        """Drop all cached contexts and features."""
        self.on_thread(self._loop.clear_caches)

    def on_thread(self, work: Callable[..., T], *args: Any) -> T:
        """Have `work` done on the engine's thread, where nothing else uses the weights meanwhile.

        Raises:
            ModelError: memory ran out, or the engine has stopped.
        """
        future = self._loop.call(lambda: work(*args))
        self._start()
        while not wait([future], timeout=_CHECK_S).done:
            self._check_alive()  # after a fork, for one, the thread is in the parent alone
        return future.result()

    def _attention(
        self,
        tokens: Tokens,
        layers: Sequence[int],
        query: Query,
        gradient: bool,
        adapter: str | None,
    ) -> AttentionMaps:
        from .attention_maps import attention_maps

        self.runner.room_after(len(tokens.ids))
        with self.runner.using(adapter):
            return attention_maps(
                self.model, self.builder, tokens, layers, query=query, gradient=gradient
            )

    def _submit(self, request: Request) -> None:
        """Queue a request, unless it can never fit.

        Its images are processed here, on the thread that asks: the engine's has other work.
        """
        self._start()
        self._loop.fit_alone(request)
        for span in request.tokens.images:
            if not self._encoder.holds(span, request.options.adapter):
                span.process()
        self._loop.waiting.put(request)

    def _start(self) -> None:
        """Start the thread when it is first needed."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    _ = self.runner.kv_bytes  # measured while nothing else uses the weights
                    self._thread = threading.Thread(
                        target=_serve, args=([self._loop],), name="engine", daemon=True
                    )
                    _running[self._thread] = weakref.ref(self._loop)
                    self._thread.start()

    def _check_alive(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            raise ModelError("the engine's thread is gone; load the model again")
