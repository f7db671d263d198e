"""Requests to an OpenAI-compatible server: from any thread, retried, in time, cancelled at once."""

from __future__ import annotations

import json
import queue
import random
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from mm.errors import DeadlineExceeded, ModelError, ModelUnavailable
from mm.vlm import Cancelled

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from httpx2 import AsyncClient, Response

T = TypeVar("T")
Json = dict[str, Any]

Hear = Callable[[int, Json], bool]
"""Takes the next chunk of the reply to body number n, and says whether no more is wanted of it."""

BUSY = (408, 429, 500, 502, 503, 504)
"""What a server answers when it may well answer otherwise a little later."""

_TICK_S = 0.05  # between two looks at whether the asker still wants an answer
_LONGEST_WAIT_S = 30.0


class Refused(ModelError):
    """The server will not do what it was asked for."""


@dataclass(frozen=True)
class RetryPolicy:
    """How long a server is waited for.

    Attributes:
        connect_s: for a connection.
        silence_s: for its next word; a long queue or a long prompt may come before the first.
        retries: how often a request is sent again that found the server busy or gone.
        backoff_s: before the first of them; each waits twice as long as the one before.
    """

    connect_s: float = 10.0
    silence_s: float = 600.0
    retries: int = 4
    backoff_s: float = 0.5


class Client:
    """A server at `base_url`, such as http://localhost:8000/v1.

    A request is sent again while the server is busy or cannot be reached, but never once a word of
    its reply was heard. All of them live on one thread; who asks waits on its own.

    Raises:
        ModelUnavailable: `base_url` is no address.
    """

    def __init__(
        self, base_url: str, *, key: str | None = None, patience: RetryPolicy = RetryPolicy()
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ModelUnavailable(
                f"{base_url!r} is no server's address: give one like http://localhost:8000/v1"
            )
        self.base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._patience = patience
        self._http: AsyncClient | None = None

    def get(self, path: str) -> Any:
        """The JSON at `path`, asked for once.

        Raises:
            ModelUnavailable: the server cannot be reached, or lets nobody in without a key.
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
            raise self._late(deadline) from None
        finally:
            task.cancel()

    def _check_time(self, ends: float | None, deadline: float | None) -> None:
        if ends is not None and time.monotonic() > ends:
            raise self._late(deadline)

    def _late(self, deadline: float | None) -> DeadlineExceeded:
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
        from asyncio import sleep

        from httpx2 import EventSource, TransportError

        for attempt in count():
            heard = False
            try:
                async with self._open().stream("POST", self._url(path), json=body) as response:
                    await self._check(response, body.get("model"))
                    async for event in EventSource(response):
                        if event.data == "[DONE]":
                            return
                        heard = True
                        yield self._chunk(event.data)
                return
            except (TransportError, _Busy) as error:
                if heard or attempt >= self._patience.retries:
                    raise self._failure(error) from error
                await sleep(self._pause(attempt, error))

    async def _patiently(self, path: str, body: Mapping[str, Any]) -> Any:
        from asyncio import sleep

        from httpx2 import TransportError

        for attempt in count():
            try:
                return await self._answer("POST", path, body)
            except (TransportError, _Busy) as error:
                if attempt >= self._patience.retries:
                    raise self._failure(error) from error
                await sleep(self._pause(attempt, error))

    async def _once(self, method: str, path: str) -> Any:
        from httpx2 import TransportError

        try:
            return await self._answer(method, path, None)
        except (TransportError, _Busy) as error:
            raise self._failure(error) from error

    async def _answer(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        response = await self._open().request(method, self._url(path), json=body)
        await self._check(response, (body or {}).get("model"))
        return self._parsed(response.text)

    async def _check(self, response: Response, model: str | None) -> None:
        """Raise what an answer other than 200 means."""
        if response.status_code == 200:
            return
        await response.aread()
        status, said = response.status_code, _message(response.text)
        if status in BUSY:
            raise _Busy(f"{self.base_url} answered {status}: {said}", response.headers)
        if status in (401, 403):
            raise ModelUnavailable(
                f"{self.base_url} lets nobody in without its key ({status}: {said}): "
                "set OPENAI_API_KEY"
            )
        if status == 404 and model is not None:
            raise ModelUnavailable(
                f"{self.base_url} has no model {model!r}, or is not the address that ends in /v1 "
                f"(404: {said})"
            )
        raise Refused(f"{self.base_url} answered {status}: {said}")

    def _failure(self, error: Exception) -> ModelError:
        """What an error of the transport means, in a line for people."""
        from httpx2 import ConnectError, ConnectTimeout, ReadTimeout

        if isinstance(error, _Busy):
            return ModelError(str(error))
        if isinstance(error, ConnectError | ConnectTimeout):
            why = str(error) or "no connection in time"
            return ModelUnavailable(f"cannot reach {self.base_url}: {why}; is the server running?")
        if isinstance(error, ReadTimeout):
            return ModelError(f"{self.base_url} said nothing for {self._patience.silence_s:g} s")
        why = str(error) or type(error).__name__
        return ModelError(f"{self.base_url} broke off its reply: {why}")

    def _pause(self, attempt: int, error: Exception) -> float:
        """Seconds before the next attempt: what the server asks for, else longer each time.

        Up to a quarter more, so that those who failed together do not come back together.
        """
        asked = error.retry_after if isinstance(error, _Busy) else None
        wait = self._patience.backoff_s * 2**attempt if asked is None else asked
        return min(wait, _LONGEST_WAIT_S) * random.uniform(1, 1.25)

    def _chunk(self, data: str) -> Json:
        chunk = self._parsed(data)
        if not isinstance(chunk, dict) or chunk.get("error"):
            raise ModelError(f"{self.base_url} failed: {_message(data)}")
        return chunk

    def _parsed(self, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            raise ModelError(f"{self.base_url} sent no JSON: {_message(text)}") from None

    def _url(self, path: str) -> str:
        return f"{self.base_url}/{path}"

    def _open(self) -> AsyncClient:
        """The connections; made on the thread that keeps them."""
        if self._http is None:
            from httpx2 import AsyncClient, Limits, Timeout

            timeout = Timeout(self._patience.silence_s, connect=self._patience.connect_s, pool=None)
            self._http = AsyncClient(
                headers=self._headers, timeout=timeout, limits=Limits(max_connections=None)
            )
            weakref.finalize(self, _start_closing, self._http).atexit = False
        return self._http


class _Busy(Exception):
    """The server may answer a little later: in `retry_after` seconds, where it says so."""

    def __init__(self, message: str, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        try:
            self.retry_after = float(headers["retry-after"])
        except (KeyError, ValueError):
            self.retry_after = None


def _message(text: str, most: int = 300) -> str:
    """What a server says is wrong, on one line: its JSON has it in one of several places."""
    try:
        said = json.loads(text)
    except ValueError:
        said = text
    for key in ("error", "detail", "message"):
        if isinstance(said, dict) and key in said:
            said = said[key]
    line = " ".join((said if isinstance(said, str) else json.dumps(said)).split())
    return line if len(line) <= most else line[:most] + "..."


_lock = threading.RLock()  # a client may be finalized while one is started
_running: list[AbstractEventLoop] = []


def _start(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Begin `work` on the thread that all requests of this process live on."""
    import asyncio

    with _lock:
        if not _running:
            _running.append(asyncio.new_event_loop())
            threading.Thread(target=_running[0].run_forever, name="requests", daemon=True).start()
    return asyncio.run_coroutine_threadsafe(work, _running[0])


def _start_closing(http: AsyncClient) -> None:
    _start(http.aclose())
