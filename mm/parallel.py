"""Work on many items at a time, in threads whose requests share the engine's forward passes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from .vlm import Cancelled

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Item, Cancelled], Result], items: Iterable[Item], threads: int
) -> Generator[Result, None, None]:
    """`work(item, cancelled)` of each of `items`, in their order, up to `threads` at a time.

    Items are drawn as they are needed. Closing the iterator, an error or Ctrl-C make `cancelled()`
    true; what is in progress is waited for.
    """
    stopped = threading.Event()
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            waiting.append(pool.submit(work, item, stopped.is_set))
            if len(waiting) >= 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)
