"""Requests to an engine, and the order in which they are taken up."""

from __future__ import annotations

import heapq
import queue
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from .spans import Tokens
from .types import Sampling
from .vlm import Cancelled, Late, ModelError, OnToken

_OLDEST_EVERY = 8  # of so many requests one is the oldest, so that no priority waits for ever


@dataclass(eq=False)
class Request:
    """Something to compute, and the way back to the thread that waits for it.

    Attributes:
        sampling: how to write a reply; None asks for no reply.
        continuations: ids to score after `tokens`; None asks for no scores.
        priority: larger goes first; below 0 are jobs for which nobody waits at a screen.
        until: `time.monotonic()` at which the answer is too late.
        streams: whether the pieces of a reply are wanted as they come.
    """

    tokens: Tokens
    adapter: str | None = None
    sampling: Sampling | None = None
    continuations: Sequence[Sequence[int]] | None = None
    cancel: Cancelled | None = None
    priority: int = 0
    deadline: float | None = None
    streams: bool = False
    asker: object = None
    abandoned: bool = False
    began: float = field(default_factory=time.perf_counter)
    until: float | None = field(init=False)
    _events: queue.SimpleQueue[tuple[str, Any]] = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        self.until = None if self.deadline is None else time.monotonic() + self.deadline

    def emit(self, piece: str) -> None:
        """Hand a piece of the reply to the waiting thread."""
        self._events.put(("piece", piece))

    def answer(self, value: Any) -> None:
        self._events.put(("answer", value))

    def fail(self, error: BaseException) -> None:
        self._events.put(("error", error))

    def check(self) -> bool:
        """Whether it was cancelled or nobody waits any more.

        Raises:
            Late: its deadline has passed.
        """
        if self.abandoned:
            return True
        if self.until is not None and time.monotonic() > self.until:
            raise self.late()
        return self.cancel is not None and self.cancel()

    def late(self) -> Late:
        return Late(f"no answer within {self.deadline:g} s; allow more time, or ask for less")

    def wait(self, alive: Callable[[], None], on_text: OnToken | None = None) -> Any:
        """The answer; called on the thread that asked, which `on_text` hears the pieces on.

        Args:
            alive: raises where no answer will ever come.

        Raises:
            Late: the deadline passed.
            ModelError: the model failed.
        """
        try:
            while True:
                kind, value = self._next(alive)
                if kind == "answer":
                    return value
                if kind == "error":
                    raise value
                if on_text:
                    on_text(value)
        finally:
            self.abandoned = True  # an interrupted caller must not leave the engine writing

    def _next(self, alive: Callable[[], None]) -> tuple[str, Any]:
        while True:
            left = None if self.until is None else self.until - time.monotonic()
            try:
                return self._events.get(timeout=2.0 if left is None else min(2.0, max(left, 0.0)))
            except queue.Empty:
                if left is not None and left <= 2.0:
                    raise self.late() from None
            if self._events.empty():
                alive()


class Waiting:
    """Requests that wait, at most `bound`: by priority, and fairly among those who ask.

    Whoever asks for much at once does not go before one who asks for little: the second request of
    an asker stands behind the first ones of all others.
    """

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.changed = threading.Condition()
        self._heap: list[tuple[int, int, int, Request]] = []
        self._turns: dict[object, int] = {}
        self._now = 0
        self._count = 0
        self._taken = 0
        self._closed: ModelError | None = None

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, request: Request) -> None:
        """Add a request; waits for room.

        Raises:
            Late: its deadline passed before there was room.
            ModelError: the queue is closed.
        """
        with self.changed:
            while len(self._heap) >= self.bound and not self._closed:
                left = None if request.until is None else request.until - time.monotonic()
                if left is not None and left <= 0:
                    raise request.late()
                self.changed.wait(left)
            self.refuse_if_closed()
            turn = max(self._now, self._turns.get(request.asker, 0)) + 1
            self._turns[request.asker] = turn
            self._count += 1
            heapq.heappush(self._heap, (-request.priority, turn, self._count, request))
            self.changed.notify_all()

    def take(self, *, least: int | None = None) -> Request | None:
        """The next request, of priority `least` or more; None where none waits."""
        with self.changed:
            if not self._heap or (least is not None and -self._heap[0][0] < least):
                return None
            self._taken += 1
            if least is None and self._taken % _OLDEST_EVERY == 0:
                entry = min(self._heap, key=lambda e: e[2])
                self._heap.remove(entry)
                heapq.heapify(self._heap)
            else:
                entry = heapq.heappop(self._heap)
            self._now = max(self._now, entry[1])
            self._turns = {k: v for k, v in self._turns.items() if v > self._now}
            self.changed.notify_all()
            return entry[3]

    def all(self) -> list[Request]:
        with self.changed:
            return [entry[3] for entry in self._heap]

    def drop(self, requests: Collection[Request]) -> list[Request]:
        """Take out those of `requests` that wait; returns them."""
        if not requests:
            return []
        with self.changed:
            found = [e[3] for e in self._heap if e[3] in requests]
            self._heap = [e for e in self._heap if e[3] not in requests]
            heapq.heapify(self._heap)
            self.changed.notify_all()
            return found

    def refuse_if_closed(self) -> None:
        """Raise what `close` was given."""
        if self._closed:
            raise self._closed

    def close(self, error: ModelError) -> None:
        """Refuse with `error` whatever comes from now on."""
        with self.changed:
            self._closed = error
            self.changed.notify_all()
