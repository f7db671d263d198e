"""Requests that wait, and the order in which they are taken up."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Collection

from mm.errors import ModelError

from .request import Request

_OLDEST_EVERY = 8  # of so many requests one is the oldest, so that no priority waits for ever


class RequestQueue:
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
            DeadlineExceeded: its deadline passed before there was room.
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
        """The requests that wait, in no order."""
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
