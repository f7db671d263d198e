"""Waits for an answer, and stops the model when its asker has left or the time is up."""

from __future__ import annotations

import time
from collections.abc import Generator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from threading import Event, Thread
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
    stopped, answer = Event(), Future[mm.Trace]()
    ends = time.monotonic() + deadline_s
    Thread(target=_answer, args=(work, stopped, answer), daemon=True).start()
    try:
        while not wait_for([answer], BEAT_S).done:
            if time.monotonic() > ends:
                raise UserError(f"no answer within {deadline_s:g} s")
            yield None
        yield answer.result()
    finally:
        stopped.set()


def _answer(work: Work, stopped: Event, answer: Future[mm.Trace]) -> None:
    try:
        answer.set_result(work(cancel=stopped.is_set))
    except BaseException as error:  # whoever waits is told
        answer.set_exception(error)
