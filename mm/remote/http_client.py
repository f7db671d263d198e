"""Requests to an OpenAI-compatible server: thread-safe, retried, timed, cancelled at once."""

from __future__ import annotations

import logging
import os
import queue
import random
import re
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from mm.errors import DeadlineExceeded, ModelUnavailable
from mm.vlm import Cancelled

from .responses import Busy, Json, check, chunks, failure, json_in, shown

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from httpx2 import AsyncClient

T = TypeVar("T")

log = logging.getLogger(__name__)

Hear = Callable[[int, Json], bool]
"""Takes the next chunk of the reply to body number n; True once no more of it is wanted."""

_TICK_S = 0.05  # between two checks for a cancellation or the deadline
_LONGEST_WAIT_S = 30.0  # between two attempts, where the server says nothing
_LONGEST_ASKED_S = 300.0  # where it asks for a pause itself (Retry-After)

BAD_PROXY = (
    "a proxy in the environment (ALL_PROXY, HTTPS_PROXY or HTTP_PROXY) cannot be used: unset it"
)
"""What is said of one that the HTTP client cannot speak to."""


@dataclass(frozen=True)
class RetryPolicy:
    """How long a server is waited for.

    Attributes:
        connect_s: for a connection.
        silence_s: for the next piece of its reply; a long queue may come before the first.
        retries: how often a request is sent again that found the server busy or gone.
        backoff_s: before the first of them; each waits twice as long as the one before.
    """

    connect_s: float = 10.0
    silence_s: float = 600.0
    retries: int = 4
    backoff_s: float = 0.5


class Client:
    """A server at `base_url`, such as http://localhost:8000/v1.

    A request is sent again while the server is busy or cannot be reached, but never once a piece of
    its reply was heard. All requests run on one thread; callers wait on their own. `base_url` is
    the address as people may see it, without a password.

    Raises:
        ModelUnavailable: `base_url` is not an address, or `key` cannot be sent.
    """

    def __init__(
        self, base_url: str, *, key: str | None = None, patience: RetryPolicy = RetryPolicy()
    ) -> None:
        self._address = _checked(base_url).rstrip("/")
        self.base_url = shown(self._address)
        key = _sendable(key or "")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._patience = patience
        self._http: AsyncClient | None = None
        self._opened_in = 0

    def get(self, path: str) -> Any:
        """The JSON at `path`, asked for once.

        Raises:
            ModelUnavailable: the server cannot be reached, or wants a key.
            ModelError: it answers anything else.
        """
        return self._wait(self._once("GET", path))

    def post(self, path: str, body: Mapping[str, Any], *, deadline: float | None = None) -> Any:
        """The JSON that answers `body`.

        Raises:
            ModelUnavailable, Refused, ModelError: as `stream`.
            DeadlineExceeded: `deadline` seconds passed.
        """
        return self._wait(self._patiently(path, body), deadline)

    def stream(
        self,
        path: str,
        bodies: Sequence[Mapping[str, Any]],
        hear: Hear,
        *,
        cancel: Cancelled | None = None,
        deadline: float | None = None,
    ) -> bool:
        """Send all `bodies` at once and hear the chunks of their replies, on this thread.

        Returns False when `cancel` ended it. However it ends, no connection stays open.

        Raises:
            ModelUnavailable: the server cannot be reached, wants a key, or has no such model.
            Refused: it does not take the body.
            ModelError: it fails, breaks off, or says nothing for too long.
            DeadlineExceeded: `deadline` seconds passed.
        """
        news: queue.SimpleQueue[tuple[int, Json | Exception | None]] = queue.SimpleQueue()
        tasks = [_start(self._relay(path, n, body, news.put)) for n, body in enumerate(bodies)]
        ends = time.monotonic() + deadline if deadline is not None else None
        going = set(range(len(tasks)))
        try:
            while going:
                if cancel and cancel():
                    return False
                self._check_time(ends, deadline)
                try:
                    n, chunk = news.get(timeout=_TICK_S)
                except queue.Empty:
                    continue
                if isinstance(chunk, Exception):
                    raise chunk
                if n in going and (chunk is None or hear(n, chunk)):
                    going.discard(n)
                    tasks[n].cancel()
            return True
        finally:
            for task in tasks:
                task.cancel()

    def _wait(self, work: Coroutine[Any, Any, T], deadline: float | None = None) -> T:
        task = _start(work)
        try:
            return task.result(deadline)
        except TimeoutError:
            if deadline is None:
                raise
            raise self._late(deadline) from None
        finally:
            task.cancel()

    def _check_time(self, ends: float | None, deadline: float | None) -> None:
        if ends is not None and deadline is not None and time.monotonic() > ends:
            raise self._late(deadline)

    def _late(self, deadline: float) -> DeadlineExceeded:
        return DeadlineExceeded(f"{self.base_url} gave no answer within {deadline:g} s")

    async def _relay(
        self,
        path: str,
        number: int,
        body: Mapping[str, Any],
        tell: Callable[[tuple[int, Json | Exception | None]], None],
    ) -> None:
        try:
            async for chunk in self._chunks(path, body):
                tell((number, chunk))
            tell((number, None))
        except Exception as error:  # raised again on the thread that asked
            tell((number, error))

    async def _chunks(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[Json]:
        for attempt in count():
            heard = False
            try:
                async with self._open().stream("POST", self._url(path), json=body) as response:
                    await check(response, self.base_url, body.get("model"))
                    async for chunk in chunks(response, self.base_url):
                        heard = True
                        yield chunk
                return
            except Exception as error:
                await self._wait_after(error, attempt, last=heard)

    async def _patiently(self, path: str, body: Mapping[str, Any]) -> Any:
        for attempt in count():
            try:
                return await self._answer("POST", path, body)
            except Exception as error:
                await self._wait_after(error, attempt)

    async def _once(self, method: str, path: str) -> Any:
        try:
            return await self._answer(method, path, None)
        except Exception as error:
            self._fail(error)

    async def _answer(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        response = await self._open().request(method, self._url(path), json=body)
        await check(response, self.base_url, (body or {}).get("model"))
        return json_in(response.text, self.base_url)

    async def _wait_after(self, error: Exception, attempt: int, *, last: bool = False) -> None:
        """Wait until the next attempt, where there is one; else raise what `error` means."""
        from asyncio import sleep

        from httpx2 import TransportError

        passing = isinstance(error, TransportError | Busy)
        if last or not passing or attempt >= self._patience.retries:
            self._fail(error)
        await sleep(self._pause(attempt, error))

    def _fail(self, error: Exception) -> NoReturn:
        known = failure(error, self.base_url, self._patience.silence_s)
        if known is None:
            raise error
        raise known from error

    def _pause(self, attempt: int, error: Exception) -> float:
        """Seconds before the next attempt: what the server asks for, else longer each time.

        Up to a quarter more, so that those who failed together do not come back together.
        """
        asked = error.retry_after if isinstance(error, Busy) else None
        ours = min(self._patience.backoff_s * 2**attempt, _LONGEST_WAIT_S)
        wait = ours if asked is None else min(asked, _LONGEST_ASKED_S)
        if wait > _LONGEST_WAIT_S:
            log.warning("%s; waiting %.0f s, as it asks", error, wait)
        return wait * random.uniform(1, 1.25)

    def _url(self, path: str) -> str:
        return f"{self._address}/{path}"

    def _open(self) -> AsyncClient:
        """The connections; made on the thread that uses them, in the process that uses them."""
        if self._http is None or self._opened_in != os.getpid():
            from httpx2 import Limits, Timeout

            timeout = Timeout(self._patience.silence_s, connect=self._patience.connect_s, pool=None)
            self._http = _connections(
                self._address,
                headers=self._headers,
                timeout=timeout,
                limits=Limits(max_connections=None),
            )
            self._opened_in = os.getpid()
            closing = weakref.finalize(self, _start_closing, self._http, self._opened_in)
            closing.atexit = False
        return self._http


def _checked(address: str) -> str:
    """`address`, where it is one of a server.

    Raises:
        ModelUnavailable: it is none.
    """
    try:
        parts = urlsplit(address)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # no port, or half of brackets
        known = False
    if known:
        return address
    told = re.sub(r"^.*@", "***@", address, flags=re.DOTALL)  # no scheme: all may be a password
    raise ModelUnavailable(
        f"{told!r} is no server's address: give one like http://localhost:8000/v1"
    )


def _sendable(key: str) -> str:
    """`key` without the blanks and line breaks around it.

    Raises:
        ModelUnavailable: no header may hold it; the message does not either.
    """
    key = key.strip()
    if key and not (key.isascii() and key.isprintable()):
        raise ModelUnavailable(
            "the server's key holds a line break or a character that is not ASCII, such as a curly "
            "quote: set OPENAI_API_KEY anew"
        )
    return key


def _connections(address: str, **options: Any) -> AsyncClient:
    """Connections to `address`, through the proxy that the environment names.

    Raises:
        ModelUnavailable: it names one that cannot be used.
    """
    from urllib.request import proxy_bypass

    from httpx2 import AsyncClient, InvalidURL

    try:
        return AsyncClient(**options)
    except (ImportError, ValueError, InvalidURL) as error:
        host = urlsplit(address).hostname or ""
        if proxy_bypass(host):  # httpx makes ready for proxies that it would not use
            return AsyncClient(trust_env=False, **options)
        raise ModelUnavailable(f"{BAD_PROXY}, or add {host} to NO_PROXY") from error


_lock = threading.RLock()  # a client may be finalized while one is started
_running: list[AbstractEventLoop] = []
_of_parents: list[AbstractEventLoop] = []


def _forget() -> None:
    """Leave the requests' thread to the parent, in a forked child, which has none."""
    global _lock
    _lock = threading.RLock()  # another thread may have held it
    _of_parents.extend(_running)  # an end of it here would take what it waits on from the parent
    _running.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _start(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Begin `work` on the thread that all requests of this process live on."""
    import asyncio

    with _lock:
        if not _running:
            _running.append(asyncio.new_event_loop())
            threading.Thread(target=_running[0].run_forever, name="requests", daemon=True).start()
    return asyncio.run_coroutine_threadsafe(work, _running[0])


def _start_closing(http: AsyncClient, process: int) -> None:
    if process == os.getpid():  # else the connections are the parent's
        _start(http.aclose())
