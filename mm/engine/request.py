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


@dataclass(frozen=True)
class RequestOptions:
    """How a request is to be served.

    Attributes:
        adapter: which of the model's adapters answers; None is the weights alone.
        on_text: called, on the thread that asks, with each new piece of a reply's text.
        cancel: asked between tokens, on the engine's thread; True ends a reply.
        priority: larger goes first; below 0 are jobs for which nobody waits at a screen.
        deadline: seconds from the call after which no answer is wanted.
    """

    adapter: str | None = None
    on_text: OnToken | None = None
    cancel: Cancelled | None = None
    priority: int = 0
    deadline: float | None = None


@dataclass(eq=False)
class Request:
    """Something to compute, and the way back to the thread that waits for it.

    Attributes:
        sampling: how to write a reply; None asks for no reply.
        continuations: ids to score after `tokens`; None asks for no scores.
        client: who asks, by default a client of its own; the queue is fair among clients.
        room: how many tokens the reply may have; positions and memory may allow fewer than
            `sampling` does.
        began: `time.perf_counter()` when the engine admitted it.
        expires: `time.monotonic()` at which the answer is too late.
    """

    tokens: Tokens
    options: RequestOptions = RequestOptions()
    sampling: Sampling | None = None
    continuations: Sequence[Sequence[int]] | None = None
    client: object = field(default_factory=object)
    room: int = 0
    abandoned: bool = False
    began: float = field(default_factory=time.perf_counter)
    expires: float | None = field(init=False)
    _events: queue.SimpleQueue[tuple[str, Any]] = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        deadline = self.options.deadline
        self.expires = None if deadline is None else time.monotonic() + deadline
        if self.sampling:
            self.room = self.sampling.max_tokens

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
        if self.expires is not None and time.monotonic() > self.expires:
            raise self.too_late()
        cancel = self.options.cancel
        return cancel is not None and cancel()

    def too_late(self) -> DeadlineExceeded:
        """The error of a request whose deadline is over."""
        return DeadlineExceeded(
            f"no answer within {self.options.deadline:g} s; allow more time, or ask for less"
        )

    def wait(self, alive: Callable[[], None]) -> Any:
        """The answer; called on the thread that asked, on which `on_text` gets the pieces.

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
                if self.options.on_text:
                    self.options.on_text(value)
        finally:
            self.abandoned = True  # an interrupted caller must not leave the engine writing

    def _next(self, alive: Callable[[], None]) -> tuple[str, Any]:
        while True:
            left = None if self.expires is None else self.expires - time.monotonic()
            try:
                return self._events.get(timeout=2.0 if left is None else min(2.0, max(left, 0.0)))
            except queue.Empty:
                if left is not None and left <= 2.0:
                    raise self.too_late() from None
            if self._events.empty():
                alive()
