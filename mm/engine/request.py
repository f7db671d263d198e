"""A request to an engine: what is asked, until when, and where its answer goes."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mm.errors import DeadlineExceeded
from mm.tokens.sequence import Tokens
from mm.types import Sampling
from mm.vlm import Cancelled, OnToken


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
        """Give `value` to the thread that waits."""
        self._events.put(("answer", value))

    def fail(self, error: BaseException) -> None:
        """Raise `error` in the thread that waits."""
        self._events.put(("error", error))

    def check(self) -> bool:
        """Whether it was cancelled or nobody waits any more.

        Raises:
            DeadlineExceeded: its deadline has passed.
        """
        if self.abandoned:
            return True
        if self.until is not None and time.monotonic() > self.until:
            raise self.late()
        return self.cancel is not None and self.cancel()

    def late(self) -> DeadlineExceeded:
        """The error of a request whose deadline is over."""
        return DeadlineExceeded(
            f"no answer within {self.deadline:g} s; allow more time, or ask for less"
        )

    def wait(self, alive: Callable[[], None], on_text: OnToken | None = None) -> Any:
        """The answer; called on the thread that asked, which `on_text` hears the pieces on.

        Args:
            alive: raises where no answer will ever come.

        Raises:
            DeadlineExceeded: the deadline passed.
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
