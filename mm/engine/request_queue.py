"""Requests that wait, and the order in which they are admitted."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable

from mm.errors import ModelError

from .request import Request

_OLDEST_EVERY = 8  # of so many requests one is the oldest, so that no priority starves


class RequestQueue:
    """Requests that wait, at most `bound`: by priority, and fairly among clients.

    A client that asks for much at once does not go before one that asks for little: its second
    request stands behind the first ones of all others.
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
                left = None if request.expires is None else request.expires - time.monotonic()
                if left is not None and left <= 0:
                    raise request.too_late()
                self.changed.wait(left)
            self.refuse_if_closed()
            turn = max(self._now, self._turns.get(request.client, 0)) + 1
            self._turns[request.client] = turn
            self._count += 1
            heapq.heappush(self._heap, (-request.options.priority, turn, self._count, request))
            self.changed.notify_all()

    def take(
        self, *, least: int | None = None, fits: Callable[[Request], bool] | None = None
    ) -> Request | None:
        """The next request, of priority `least` or more; None where none waits.

        Also None while the next one does not fit: no other may overtake it, so a large one is not
        starved by small ones.
        """
        with self.changed:
            if not self._heap or (least is not None and -self._heap[0][0] < least):
                return None
            oldest = least is None and (self._taken + 1) % _OLDEST_EVERY == 0
            entry = min(self._heap, key=lambda e: e[2]) if oldest else self._heap[0]
            if fits and not fits(entry[3]):
                return None
            self._taken += 1
            self._heap.remove(entry)
            heapq.heapify(self._heap)
            self._now = max(self._now, entry[1])
            self._turns = {k: v for k, v in self._turns.items() if v > self._now}
            self.changed.notify_all()
            return entry[3]

    def all(self) -> list[Request]:
        """The requests that wait, in no order."""
        with self.changed:
            return [entry[3] for entry in self._heap]

    def drop(self, leaves: Callable[[Request], bool]) -> None:
        """Take out the requests of which `leaves` is true."""
        # asked outside the lock: it may call a client's own code
        gone = {request for request in self.all() if leaves(request)}
        if not gone:
            return
        with self.changed:
            self._heap = [entry for entry in self._heap if entry[3] not in gone]
            heapq.heapify(self._heap)
            self.changed.notify_all()

    def refuse_if_closed(self) -> None:
        """Raise what `close` was given."""
        if self._closed:
            raise self._closed

    def close(self, error: ModelError) -> None:
        """Refuse with `error` whatever comes from now on."""
        with self.changed:
            self._closed = error
            self.changed.notify_all()
