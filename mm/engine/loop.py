"""The engine's thread: admits requests, prefills their prompts, and decodes replies in batches."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from mm.errors import ModelError
from mm.lru_cache import ByteBudget
from mm.types import Cost

from .decode import DecodeBatch, Reply
from .encoder_cache import EncoderCache
from .model_runner import ModelRunner
from .prefill import Prefill
from .prefix_cache import PrefixCache
from .prompt import Prompt
from .request import Request
from .request_queue import RequestQueue
from .resources import mb, out_of_memory, ran_out
from .scoring import ROWS, scores

log = logging.getLogger(__name__)

_COPIED = 2**13  # keys and values of short prompts that are computed together, padding included
_CHECK_S = 0.05  # seconds between two checks whether those in the queue still want an answer


class Loop:
    """Serves the requests in `waiting` until `stop` is called; `run` is its thread.

    Args:
        budget: bytes that requests in progress and caches share.
        rows: how many requests are in progress at once; a quarter is left free for those of
            priority 0 and above.
        chunk: prompt ids computed between two steps of the replies.
    """

    def __init__(
        self,
        runner: ModelRunner,
        prefixes: PrefixCache,
        encoder: EncoderCache,
        waiting: RequestQueue,
        budget: ByteBudget,
        *,
        rows: int,
        chunk: int,
    ) -> None:
        self.waiting = waiting
        self._runner = runner
        self._prefixes = prefixes
        self._encoder = encoder
        self._budget = budget
        self._prefill = Prefill(runner, prefixes, encoder)
        self._rows = rows
        self._chunk = chunk
        self._prompts: list[Prompt] = []
        self._batches: dict[str | None, DecodeBatch] = {}
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._stopping = False
        self._check_again = 0.0
        self._admitted = 0

    def call(self, work: Callable[[], Any]) -> Future[Any]:
        """Have `work` done on the engine's thread, between two steps."""
        future: Future[Any] = Future()
        with self.waiting.changed:
            self.waiting.refuse_if_closed()
            self._calls.append((work, future))
            self.waiting.changed.notify_all()
        return future

    def stop(self) -> None:
        """Ask the loop's thread to end after its current turn."""
        with self.waiting.changed:
            self._stopping = True
            self.waiting.changed.notify_all()

    def run(self) -> None:
        """Serve requests; whatever ends this, every request still waiting fails with the reason."""
        import torch

        try:
            with torch.inference_mode():
                while self._wait():
                    self._turn()
            self._end(ModelError("the engine was closed"))
        except BaseException as error:
            log.exception("the engine stopped")
            self._end(ModelError(f"the engine stopped: {error!r}"))

    def clear_caches(self) -> None:
        """Drop all cached contexts and features."""
        self._prefixes.entries.clear()
        self._encoder.clear()

    def fit_alone(self, request: Request) -> None:
        """Cut the room of a reply to what positions and memory allow. Any thread may call this.

        Raises:
            ModelError: the prompt is longer than the model's context, or than memory holds even
                with nothing else in progress.
        """
        length, each = len(request.tokens.ids), self._runner.kv_bytes
        request.room = min(request.room, self._runner.room_after(length))
        # alone in its batch, the buffer ends at a multiple of 128 tokens
        left = (self._budget.total - self._prompt_bytes(request)) // each // 128 * 128
        if left < length + min(request.room, 1):
            needed = self._prompt_bytes(request) + -(-(length + 1) // 128) * 128 * each
            raise ModelError(
                f"a conversation of {length} tokens needs {mb(needed)} of keys and values, and "
                f"there are {mb(self._budget.total)}; use fewer or smaller images, or more memory"
            )
        request.room = min(request.room, left - length)
        if (needed := self._request_bytes(request)) > self._budget.total:
            raise ModelError(
                f"scoring continuations of {length} tokens needs {mb(needed)}, and there are "
                f"{mb(self._budget.total)}; use shorter ones, or more memory"
            )

    def _wait(self) -> bool:
        """Sleep until there is work; False when there will be none."""
        with self.waiting.changed:
            while not (self._busy() or self._stopping):
                self.waiting.changed.wait()
            return not self._stopping

    def _busy(self) -> bool:
        rows = any(batch.rows for batch in self._batches.values())
        return bool(self._prompts or rows or len(self.waiting) or self._calls)

    def _turn(self) -> None:
        # other work on the weights, between two forwards: no lock is needed inside one
        while self._calls:
            self._call(*self._calls.popleft())
        # as many as there are rows and memory for; the others keep their places in the queue
        self._admit()
        # before anything is computed for them: whoever left, or is late, costs nothing
        self._drop_stopped()
        # one chunk, not whole prompts: the replies in progress wait no longer than that
        self._prefill_chunk()
        # one token of every reply; an adapter has a batch of its own, as it changes the weights
        for batch in self._batches.values():
            if batch.rows:
                batch.step()

    def _call(self, work: Callable[[], Any], future: Future[Any]) -> None:
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(self._on_error(error))

    def _drop_stopped(self) -> None:
        """Answer those that were cancelled, or are late, before anything was generated."""
        if time.monotonic() >= self._check_again:
            self.waiting.drop(_settled)
            self._check_again = time.monotonic() + _CHECK_S
        for prompt in list(self._prompts):
            prompt.requests = [r for r in prompt.requests if not _settled(r)]
            if not prompt.requests:
                self._prompts.remove(prompt)

    def _admit(self) -> None:
        """Take requests from the queue while there are rows and bytes for them."""
        if (in_progress := self._in_progress()) < self._admitted:
            self._budget.reserve(self._bytes_with())  # what left gives its bytes to the caches
        self._admitted = in_progress
        while (free := self._rows - self._admitted) > 0:
            # the last quarter of the rows is for people, whatever jobs there are
            least = None if free > self._rows // 4 else 0
            request = self.waiting.take(least=least, fits=self._fits)
            if request is None:
                return
            request.began = time.perf_counter()
            if not _settled(request):
                try:
                    self._add(request)
                    self._admitted += 1
                except Exception as error:
                    request.fail(self._on_error(error))

    def _in_progress(self) -> int:
        rows = sum(len(batch.rows) for batch in self._batches.values())
        return rows + sum(len(prompt.requests) for prompt in self._prompts)

    def _fits(self, request: Request) -> bool:
        """Reserve bytes for everything in progress and `request`, where there are as many.

        Whoever is admitted is never put back, so the whole reply is reserved. With nothing in
        progress a request fits (`fit_alone`), so all that wait are served in the end. One whose
        bytes cannot be counted fails, and leaves the queue as if it fitted.
        """
        try:
            size = self._bytes_with(request)
        except Exception as error:
            request.fail(error)
            request.abandoned = True
            return True
        if not self._admitted:
            size = min(size, self._budget.total)
        return self._budget.reserve(size)

    def _bytes_with(self, *new: Request) -> int:
        """The most bytes that all requests in progress and `new` may take together."""
        rows: dict[str | None, list[int]] = {adapter: [] for adapter in self._batches}
        size, shared = 0, set[int]()
        for request in [*(r for p in self._prompts for r in p.requests), *new]:
            if request.sampling:
                most = len(request.tokens.ids) + request.room
                rows.setdefault(request.options.adapter, []).append(most)
            else:
                size += self._scoring_bytes(request)
            if id(request.tokens) not in shared:  # samples share their prompt
                shared.add(id(request.tokens))
                size += self._prompt_bytes(request)
        for adapter, lengths in rows.items():
            batch = self._batches.get(adapter)
            size += batch.bytes_with(lengths) if batch else self._runner.batch_bytes(lengths)
        return size

    def _request_bytes(self, request: Request) -> int:
        """Bytes of a request with nothing else in progress."""
        return self._prompt_bytes(request) + self._scoring_bytes(request)

    def _prompt_bytes(self, request: Request) -> int:
        """Keys and values of the prompt while it is computed, and its images' features."""
        visual = sum(span.stop - span.start for span in request.tokens.images)
        runner = self._runner
        return len(request.tokens.ids) * runner.kv_bytes + visual * runner.feature_bytes

    def _scoring_bytes(self, request: Request) -> int:
        """Copies of the prompt's keys and values, one for each continuation in a forward."""
        rows = request.continuations or ()
        length = len(request.tokens.ids) + max(map(len, rows), default=0)
        return min(len(rows), ROWS) * length * self._runner.kv_bytes

    def _add(self, request: Request) -> None:
        """Start a prompt for `request`, or add it to the same prompt already in progress."""
        new = Prompt.of(request)
        for prompt in self._prompts:
            first = prompt.requests[0]
            if first.sampling and request.sampling and prompt.prefix == new.prefix:
                prompt.requests.append(request)
                return
        self._prompts.append(new)

    def _prefill_chunk(self) -> None:
        """Compute a chunk of prompts: those of highest priority first, then in order."""
        left = self._chunk
        while self._prompts and left > 0:
            left -= self._advance(self._group(left), left)

    def _group(self, budget: int) -> list[Prompt]:
        """The prompts to compute next, in one forward."""
        if len(self._prompts) == 1:
            return self._prompts[:]
        first = max(self._prompts, key=lambda p: p.priority)
        # keys and values of a group are copied: no more than there is memory for
        copied = min(_COPIED, max(self._budget.free, 0) // self._runner.kv_bytes)
        return self._prefill.group(first, self._prompts, budget, copied)

    def _advance(self, group: Sequence[Prompt], budget: int) -> int:
        """Compute a group; where that fails, each prompt by itself, so that it fails alone."""
        try:
            computed = self._prefill.advance(group, budget, self._prompts)
        except Exception as error:
            again = self._again(group, error)
        else:
            for prompt in group:
                if prompt.logits is not None:
                    self._prompts.remove(prompt)
                    self._finish(prompt)
            return computed
        # no sooner: the error holds what its forward had computed
        return sum(self._advance([prompt], budget) for prompt in again)

    def _again(self, group: Sequence[Prompt], error: Exception) -> Sequence[Prompt]:
        """The prompts of a group to compute again after `error`; one that was alone fails.

        But where memory ran out and the caches gave some back, it begins anew, once: what it can
        never have would otherwise be computed for ever, as others fill the caches again.
        """
        cached = any(cache.bytes for cache in self._budget.caches)
        reported = self._on_error(error)
        if len(group) > 1:
            return group
        if cached and reported is not error and not group[0].restarted:
            group[0].restart()
            return group
        self._prompts.remove(group[0])
        group[0].fail(reported)
        return ()

    def _finish(self, prompt: Prompt) -> None:
        """Do what was asked for with a computed prompt."""
        first = prompt.requests[0]
        try:
            if first.sampling:
                self._batch(first.options.adapter).join(prompt)
            elif first.continuations is not None:
                first.answer(scores(self._runner, prompt, first.continuations))
            else:
                first.answer(prompt.logits)
        except Exception as error:
            prompt.fail(self._on_error(error))

    def _batch(self, adapter: str | None) -> DecodeBatch:
        if adapter not in self._batches:
            batch = DecodeBatch(self._runner, adapter, self._prefixes, self._on_error)
            self._batches[adapter] = batch
        return self._batches[adapter]

    def _on_error(self, error: Exception) -> Exception:
        """The error to report. On out-of-memory, drops the caches first."""
        if not ran_out(error):
            return error
        self.clear_caches()
        reported = ModelError(out_of_memory(error))
        reported.__cause__ = error
        return reported

    def _end(self, error: ModelError) -> None:
        """Fail all requests, and all that come later."""
        self.waiting.close(error)
        prompts = [r for p in self._prompts for r in p.requests]
        rows = [row.request for b in self._batches.values() for row in b.rows]
        for request in [*self.waiting.all(), *prompts, *rows]:
            request.fail(error)
        self.waiting.drop(lambda _: True)
        while self._calls:
            self._calls.popleft()[1].set_exception(error)
        self._prompts, self._batches = [], {}


def _settled(request: Request) -> bool:
    """Whether a request in the queue needs no work any more; it is answered then."""
    try:
        if stopped := request.check():
            request.answer(Reply((), (), "cancelled", Cost()))
        return stopped
    except Exception as error:
        request.fail(error)
        return True
