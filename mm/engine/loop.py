"""The engine's thread: it takes requests up, computes prompts, and writes replies in batches."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from mm.errors import ModelError
from mm.lru_cache import LRUCache
from mm.types import Cost

from .decode import DecodeBatch, Reply
from .kv_slots import dynamic_cache
from .model_runner import ModelRunner
from .prefill import Prefill
from .prefix_cache import PrefixCache
from .prompt import Prompt
from .request import Request
from .request_queue import RequestQueue
from .sampler import log_probs
from .vision_encoder import ImageFeatures

log = logging.getLogger(__name__)

_SCORED = 16  # continuations scored in one pass
_LOOK = 0.05  # seconds between two looks at whether those in the queue still want an answer


class Loop:
    """Serves the requests in `waiting` until `stop` is called; `run` is its thread.

    Args:
        rows: how many requests are in progress at once; a quarter is kept for those of priority 0
            and above.
        chunk: prompt ids computed between two steps of the replies.
    """

    def __init__(
        self,
        weights: ModelRunner,
        contexts: PrefixCache,
        features: LRUCache[tuple[str, str | None], ImageFeatures],
        waiting: RequestQueue,
        *,
        rows: int,
        chunk: int,
    ) -> None:
        self.waiting = waiting
        self._weights = weights
        self._contexts = contexts
        self._features = features
        self._prefill = Prefill(weights, contexts, features)
        self._rows = rows
        self._chunk = chunk
        self._prompts: list[Prompt] = []
        self._batches: dict[str | None, DecodeBatch] = {}
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._stopping = False
        self._look_again = 0.0

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
        """Serve. Whatever ends it, everybody who waits hears of it."""
        import torch

        try:
            with torch.inference_mode():
                while self._wait():
                    self._turn()
            self._end(ModelError("the engine was closed"))
        except BaseException as error:
            log.exception("the engine stopped")
            self._end(ModelError(f"the engine stopped: {error!r}"))

    def forget(self) -> None:
        """Drop all kept contexts and features."""
        self._contexts.kept.clear()
        self._features.clear()

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
        while self._calls:
            self._call(*self._calls.popleft())
        self._leave_stopped()
        self._take_up()
        self._advance_prompts()
        for batch in self._batches.values():
            batch.step()

    def _call(self, work: Callable[[], Any], future: Future[Any]) -> None:
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(self._relieve(error))

    def _leave_stopped(self) -> None:
        """Answer those that were cancelled, or are late, before they wrote anything."""
        if time.monotonic() >= self._look_again:
            stopped = {r for r in self.waiting.all() if _settled(r)}
            self.waiting.drop(stopped)
            self._look_again = time.monotonic() + _LOOK
        for prompt in list(self._prompts):
            prompt.requests = [r for r in prompt.requests if not _settled(r)]
            if not prompt.requests:
                self._prompts.remove(prompt)

    def _take_up(self) -> None:
        """Take requests from the queue while there are rows for them."""
        while (room := self._rows - self._in_progress()) > 0:
            request = self.waiting.take(least=None if room > self._rows // 4 else 0)
            if request is None:
                return
            request.began = time.perf_counter()
            if not _settled(request):
                self._add(request)

    def _in_progress(self) -> int:
        rows = sum(len(batch.rows) for batch in self._batches.values())
        return rows + sum(len(prompt.requests) for prompt in self._prompts)

    def _add(self, request: Request) -> None:
        """A prompt of its own, or a place beside those who ask for a reply to the same one."""
        new = Prompt.of(request)
        for prompt in self._prompts:
            first = prompt.requests[0]
            if first.sampling and request.sampling and prompt.context == new.context:
                prompt.requests.append(request)
                return
        self._prompts.append(new)

    def _advance_prompts(self) -> None:
        """Compute a chunk of prompts: those of highest priority first, then in order."""
        left = self._chunk
        while self._prompts and left > 0:
            first = max(self._prompts, key=lambda p: p.priority)
            left -= self._advance(self._prefill.group(first, self._prompts, left), left)

    def _advance(self, group: Sequence[Prompt], budget: int) -> int:
        """Compute a group; where that fails, each prompt by itself, so that it fails alone."""
        try:
            computed = self._prefill.advance(group, budget, self._prompts)
        except Exception as error:
            told = self._relieve(error)
            if len(group) > 1:
                return sum(self._advance([prompt], budget) for prompt in group)
            self._prompts.remove(group[0])
            _fail(group[0], told)
            return 0
        for prompt in group:
            if prompt.logits is not None:
                self._prompts.remove(prompt)
                self._begin(prompt)
        return computed

    def _begin(self, prompt: Prompt) -> None:
        """Do what was asked for with a computed prompt."""
        first = prompt.requests[0]
        try:
            if first.sampling:
                self._batch(first.adapter).join(prompt)
            elif first.continuations is not None:
                with self._weights.using(first.adapter):
                    first.answer(self._scores(prompt, first.continuations))
            else:
                first.answer(prompt.logits)
        except Exception as error:
            _fail(prompt, self._relieve(error))

    def _batch(self, adapter: str | None) -> DecodeBatch:
        if adapter not in self._batches:
            batch = DecodeBatch(self._weights, adapter, self._contexts, self._relieve)
            self._batches[adapter] = batch
        return self._batches[adapter]

    def _scores(self, prompt: Prompt, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        groups = (rows[i : i + _SCORED] for i in range(0, len(rows), _SCORED))
        return [scores for group in groups for scores in self._score_rows(prompt, group)]

    def _score_rows(self, prompt: Prompt, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """One pass over continuations of one prompt; padding stands after all that counts."""
        import torch

        weights, n = self._weights, len(rows)
        longest = max(map(len, rows))
        padded = [[*r, *[0] * (longest - len(r))] for r in rows]
        ids = torch.tensor(padded, device=weights.device)
        logits = prompt.logits.expand(n, 1, -1)
        if longest > 1:
            cache = dynamic_cache(
                (k.expand(n, -1, -1, -1), v.expand(n, -1, -1, -1)) for k, v in prompt.layers
            )
            first = prompt.next_position
            at = torch.arange(first, first + longest - 1, device=weights.device)
            hidden = weights.forward(weights.embed(ids[:, :-1]), at.expand(n, -1), cache)
            logits = torch.cat([logits, weights.logits(hidden)], dim=1)
        likely = log_probs(logits, torch.tensor(sorted(weights.builder.banned_ids)))
        taken = likely.gather(-1, ids[..., None])[..., 0].tolist()
        return [scores[: len(r)] for scores, r in zip(taken, rows, strict=True)]

    def _relieve(self, error: Exception) -> Exception:
        """What to tell of `error`; where memory ran out, what is kept goes first."""
        import torch

        ran_out = isinstance(error, torch.OutOfMemoryError | MemoryError)
        # the second is what the CPU's allocator says
        if not ran_out and "allocate memory" not in str(error):
            return error
        self.forget()
        told = ModelError(_out_of_memory(error))
        told.__cause__ = error
        return told

    def _end(self, error: ModelError) -> None:
        """Fail everybody, and all who come later."""
        self.waiting.close(error)
        for request in self.waiting.drop(set(self.waiting.all())):
            request.fail(error)
        for request in [r for p in self._prompts for r in p.requests]:
            request.fail(error)
        for row in [r for b in self._batches.values() for r in b.rows]:
            row.request.fail(error)
        while self._calls:
            self._calls.popleft()[1].set_exception(error)
        self._prompts, self._batches = [], {}


def _fail(prompt: Prompt, error: BaseException) -> None:
    for request in prompt.requests:
        request.fail(error)


def _settled(request: Request) -> bool:
    """Whether a request that wrote nothing yet needs no work any more; it is told so."""
    try:
        if stopped := request.check():
            request.answer(Reply((), (), "cancelled", Cost()))
        return stopped
    except Exception as error:
        request.fail(error)
        return True


def _out_of_memory(error: BaseException) -> str:
    first = str(error).splitlines()[0][:200] if str(error) else "no memory left"
    return f"out of memory: {first}; use fewer or smaller pictures, or a smaller model"
