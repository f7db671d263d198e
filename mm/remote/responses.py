"""What a server's response means: the chunks of a reply, or an error in one line."""

from __future__ import annotations

import json
import math
import re
import time
from calendar import timegm
from collections.abc import AsyncIterator, Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from mm.errors import ModelError, ModelUnavailable

if TYPE_CHECKING:
    from httpx2 import Response

Json = dict[str, Any]

DONE: Final[Json] = {"done": True}
"""Stands at the end of the chunks where the server says that the reply is whole."""

_ENDS = re.compile(r"\r\n|\n|\r")
"""Ends of lines in a stream of events; a reply may hold others, such as U+2028."""

BUSY = (408, 429, 500, 502, 503, 504, 529)
"""Statuses after which the same request may well succeed a little later."""


_MASK = "***@"
_ADDRESS = re.compile(r"https?://\S+", re.IGNORECASE)
_USER = re.compile(r"(?<=://)\S*@")
"""As far as the last @: a password may hold a slash, which no address allows."""

OPTIONAL = (
    *("logprobs", "seed", "stream_options", "top_p", "temperature"),
    *("top_k", "min_p", "repetition_penalty"),
    *("continue_final_message", "add_generation_prompt"),
)
"""Fields of a request that a server may refuse, and that it is then asked without."""


class Refused(ModelError):
    """The server will not do what it was asked for."""


class Busy(Exception):
    """The server may answer a little later: in `retry_after` seconds, where it says so."""

    def __init__(self, message: str, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.retry_after = _seconds(headers.get("retry-after"))


async def check(response: Response, server: str, model: str | None) -> None:
    """Raise what a status other than 200 means.

    Raises:
        Busy: the request may be sent again.
        ModelUnavailable: the server wants a key, or has no such model.
        Refused: it answers anything else, or forbids a field of the request.
    """
    status = response.status_code
    if status == 200:
        return
    await response.aread()
    said = message_in(response.text)
    if status in BUSY:
        raise Busy(f"{server} answered {status}: {said}", response.headers)
    if status == 403 and any(names(without(said, model or ""), field) for field in OPTIONAL):
        raise Refused(f"{server} answered {status}: {said}")
    if status in (401, 403):
        raise ModelUnavailable(
            f"{server} lets nobody in without its key ({status}: {said}): set OPENAI_API_KEY"
        )
    if status == 404 and model is not None:
        raise ModelUnavailable(
            f"{server} has no model {model!r}, or is not the address that ends in /v1 (404: {said})"
        )
    if moved := response.headers.get("location"):
        there = f"it has moved to {shown(moved)}; give that address"
        raise Refused(f"{server} answered {status}: {there}")
    raise Refused(f"{server} answered {status}: {said}")


def names(said: str, field: str) -> bool:
    """Whether a server speaks of a field of the request; a part of another word is none."""
    return re.search(rf"(?<![\w-]){field}(?![\w-])", said, re.IGNORECASE) is not None


def without(said: str, model: str) -> str:
    """What a server says without the model's name, which may be a letter of other words."""
    return re.sub(rf"(?<![\w-]){re.escape(model)}(?![\w-])", "", said, flags=re.IGNORECASE)


def shown(text: str) -> str:
    """`text` with the user's name and password in its addresses masked."""
    return _ADDRESS.sub(
        lambda found: _USER.sub(_MASK, found[0]) if _names_user(found[0]) else found[0], text
    )


def _names_user(address: str) -> bool:
    """Whether a user stands in an address.

    Where it has a colon before the first slash, an @ inside a later word may end a password, as in
    `http://me:12/3@host`; in `http://host:80/@cf` the @ begins its word.
    """
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:  # half of brackets, or a password for a port
        return True
    host, path = parts.netloc, address.partition("://")[2][len(parts.netloc) :]
    return "@" in host or (":" in host and re.search(r"[^/]@", path) is not None)


async def chunks(response: Response, server: str) -> AsyncIterator[Json]:
    """The chunks of a reply, `DONE` after them where the server says so.

    A server that ignores `stream` answers with the whole reply, which comes as a single chunk.

    Raises:
        ModelError: the server reports an error, or sends something else than a reply.
    """
    from httpx2 import EventSource

    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "text/event-stream":
        await response.aread()
        for chunk in _whole(response.text, kind, server):
            yield chunk
        return
    async for event in EventSource(response):
        if event.data.strip() == "[DONE]":
            yield DONE
            return
        if event.event == "error":
            raise ModelError(f"{server} failed: {message_in(event.data)}")
        if event.data.strip():  # some servers keep a connection alive with empty events
            yield _chunk(event.data, server)


def json_in(text: str, server: str) -> Any:
    """The JSON that `text` is.

    Raises:
        ModelError: it is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ModelError(f"{server} sent no JSON: {message_in(text)}") from None


def message_in(text: str, most: int = 300) -> str:
    """What a server says is wrong, on one line: its JSON has it in one of several places."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = text
    if isinstance(said, list) and said:  # as Gemini sends it
        said = said[0]
    for key in ("error", "detail", "message"):
        if isinstance(said, dict) and said.get(key):
            said = said[key]
    line = " ".join((said if isinstance(said, str) else json.dumps(said)).split())
    return line if len(line) <= most else line[:most] + "..."


def failure(error: Exception, server: str, silence_s: float) -> ModelError | None:
    """What an error of the transport means, in one line; None for any other error."""
    from httpx2 import ConnectError, ConnectTimeout, HTTPError, InvalidURL, ReadTimeout, StreamError

    if isinstance(error, Busy):
        return ModelError(str(error))
    if isinstance(error, ConnectError | ConnectTimeout):
        why = str(error) or "no connection in time"
        return ModelUnavailable(f"cannot reach {server}: {why}; is the server running?")
    if isinstance(error, ReadTimeout):
        return ModelError(f"{server} said nothing for {silence_s:g} s")
    if isinstance(error, InvalidURL):
        why = "" if _MASK in server else f": {error}"  # which may quote a piece of the password
        return ModelUnavailable(f"{server!r} is no server's address{why}")
    if not isinstance(error, HTTPError | StreamError | OSError | UnicodeError):
        return None
    why = " ".join(str(error).split()) or type(error).__name__
    return ModelError(f"{server} broke off its reply: {why}")


def _whole(text: str, kind: str, server: str) -> list[Json]:
    """The chunks of a response that is not a stream of events."""
    lines = [line.strip() for line in _ENDS.split(text)]
    events = [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]
    if events:  # a stream under another name
        said = [event for event in events if event and event != "[DONE]"]
        return [*(_chunk(event, server) for event in said), *[DONE] * ("[DONE]" in events)]
    if kind == "application/json" or text.lstrip().startswith(("{", "[")):
        return [_chunk(text, server), DONE]
    raise ModelError(
        f"{server} answered with {kind or 'no content type'} in place of a reply: give the "
        f"address that ends in /v1 ({message_in(text, 80)})"
    )


def _chunk(data: str, server: str) -> Json:
    chunk = json_in(data, server)
    failed = not isinstance(chunk, dict) or chunk.get("error") or chunk.get("object") == "error"
    if failed:
        raise ModelError(f"{server} failed: {message_in(data)}")
    return chunk


def _seconds(value: str | None) -> float | None:
    """The seconds that a Retry-After gives, as a number or as the date when they are over."""
    try:
        seconds = float(value or "")
    except ValueError:
        return _seconds_until(value or "")
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _seconds_until(date: str) -> float | None:
    try:
        seconds = timegm(parsedate_to_datetime(date).utctimetuple()) - time.time()
    except (TypeError, ValueError, OverflowError):
        return None
    return max(seconds, 0.0)
