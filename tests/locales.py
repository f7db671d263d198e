"""A locale whose files are ASCII unless somebody says otherwise, as on a bare server."""

from __future__ import annotations

import locale
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ascii_only() -> Iterator[None]:
    """Text files are ASCII where they are opened without an encoding."""
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C")
    try:
        yield
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
