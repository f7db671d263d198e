"""What a terminal shows and was given: spinners, progress bars, the command."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from mm.remote.responses import shown


@contextmanager
def spinner(doing: str, *, quiet: bool = False) -> Iterator[None]:
    """Something that moves on a terminal while work is done; nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    # each refresh takes the interpreter from the imports that the person waits for
    with Console(stderr=True).status(doing, refresh_per_second=4):
        yield


T = TypeVar("T")


def progress(items: Iterable[T], doing: str, total: int, *, transient: bool = False) -> Iterable[T]:
    """`items`, with a bar on a terminal; one that is `transient` leaves nothing there."""
    if not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, doing, total, console=Console(stderr=True), transient=transient)


def command_line() -> str:
    """The command as it was given, for files that say what made them; passwords are masked."""
    return shlex.join(["mm", *map(shown, sys.argv[1:])])
