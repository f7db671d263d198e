"""Where the page listens: an address that can be used, reached by no proxy."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from mm.errors import UserError, first_line

TAKEN = "try --port 0"
NO_PROXY = ("NO_PROXY", "no_proxy")


@contextmanager
def serving(host: str, port: int) -> Iterator[str]:
    """Around a start of Gradio at `host` and `port`: gives the host as Gradio writes it.

    Gradio asks its own server whether it is there; no proxy of the environment is asked for it.

    Raises:
        UserError: it cannot be started.
    """
    check_free(host, port)
    try:
        with without_proxies():
            yield f"[{host}]" if ":" in host else host
    except (OSError, ValueError, httpx.HTTPError, httpx.InvalidURL) as error:
        taken = port and "empty port" in str(error)  # its test of 127.0.0.1, whatever the host
        why = f"port {port} is taken: {TAKEN}" if taken else first_line(error)
        raise UserError(f"cannot serve at {host}:{port}: {why}") from error


def check_free(host: str, port: int) -> None:
    """Refuse what nobody can listen at.

    Raises:
        UserError: there is no such host here, or the port is taken or not allowed.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except (OSError, UnicodeError) as error:
        taken = f": {TAKEN}" if getattr(error, "errno", None) == errno.EADDRINUSE else ""
        why = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"cannot serve at {host}:{port}: {why}{taken}") from error


@contextmanager
def without_proxies() -> Iterator[None]:
    """Inside, HTTP clients are made without the proxies of the environment."""
    before = {name: os.environ.get(name) for name in NO_PROXY}
    os.environ.update(dict.fromkeys(NO_PROXY, "*"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)  # on Windows both names are one
            if value is not None:
                os.environ[name] = value
