"""Waits for an answer while its asker is looked after, and no longer than is allowed."""

from __future__ import annotations

import time
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import Protocol

import mm
from mm.errors import UserError
from mm.vlm import Cancelled

BEAT_S = 1.0
"""Between two moments when an asker who has left is noticed."""


class Work(Protocol):
    """Finds an answer, and stops soon after `cancel` says so."""

    def __call__(self, *, cancel: Cancelled) -> mm.Trace: ...


def waited(work: Work, deadline_s: float) -> Generator[mm.Trace | None]:
    """None every `BEAT_S` until `work` is done, then its trace. Closing the iterator stops it.

    Raises:
        UserError: `deadline_s` passed, or `work` raised one.
    """
    stopped: list[bool] = []
    ends = time.monotonic() + deadline_s
    pool = ThreadPoolExecutor(1, thread_name_prefix="asked")
    future: Future[mm.Trace] = pool.submit(work, cancel=lambda: bool(stopped))
    try:
        while not wait_for([future], BEAT_S).done:
            if time.monotonic() > ends:
                raise UserError(f"no answer within {deadline_s:g} s")
            yield None
        yield future.result()
    finally:
        stopped.append(True)
        pool.shutdown(wait=False)
