"""Reports in one line what the user can put right."""

from __future__ import annotations

import atexit
import errno
import logging
import os
import stat
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

import typer

import mm
from mm.errors import UserError, first_line

EXPECTED = (UserError, mm.ModelError, typer.TyperException)
"""What is told in a line; anything else is a bug and keeps its traceback."""

DEBUG = "MM_DEBUG"
"""With this in the environment, what is told in a line shows its traceback too."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""What an output says that takes no more, and a disk that is read or written."""


class OutputFull(OSError):
    """What is printed is not taken: no file that a command reads or writes is at fault."""


def check_file(flag: str, file: Path | None, read: Iterable[str | Path | None] = ()) -> None:
    """Refuse a file that `flag` could not write to, before anything is done for it.

    Args:
        read: files that the command reads, none of which may be written over.

    Raises:
        UserError: its folder does not exist, it is a folder itself, it may not be written, its name
            is none, or it is read.
    """
    if file is None:
        return
    if not os.path.isdir(file.parent):  # unlike Path.is_dir, no error for a name that is too long
        raise UserError(f"{flag}: there is no folder {str(file.parent)!r}")
    try:
        folder = stat.S_ISDIR(os.stat(file).st_mode)
    except FileNotFoundError:
        _check_access(flag, file, file.parent)
        return
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"{flag}: {str(file)!r} cannot be written: {why}") from error
    if folder:
        raise UserError(f"{flag}: {str(file)!r} is a folder: name a file in it")
    _check_access(flag, file, file)
    if any(each is not None and _same(file, each) for each in read):
        raise UserError(f"{flag}: {str(file)!r} is read by this command: name another file")


def _check_access(flag: str, file: Path, changed: Path) -> None:
    if not os.access(changed, os.W_OK):
        raise UserError(f"{flag}: {str(file)!r} cannot be written: Permission denied")


def _same(file: Path, other: str | Path) -> bool:
    try:
        return os.path.samefile(file, other)
    except (OSError, ValueError):
        return False


@contextmanager
def writing(flag: str, file: Path) -> Iterator[None]:
    """Around writing what `flag` names: what goes wrong is told in a line.

    Raises:
        UserError: it cannot be written.
    """
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"{flag}: {str(file)!r} cannot be written: {why}") from error


def tell(error: Exception) -> None:
    """`error` on stderr, as one line unless it is several mistakes.

    With MM_DEBUG in the environment its traceback goes first, with the error behind it.
    """
    if os.environ.get(DEBUG):
        _show_all(error)
    said = error.format_message() if isinstance(error, typer.TyperException) else str(error)
    for line in said.splitlines() if isinstance(error, UserError) else [said]:
        print(f"mm: {' '.join(line.split())}", file=sys.stderr)


def _show_all(error: BaseException) -> None:
    """The traceback of `error` with what it was made from, `from None` or not."""
    seen: BaseException | None = error
    while seen is not None:
        seen.__suppress_context__ = seen.__cause__ is not None
        seen = seen.__cause__ or seen.__context__
    traceback.print_exception(error)


def leave(code: int) -> NoReturn:
    """End the process with exit code `code`, all output written.

    A process that has loaded a model would spend another second taking it apart.
    """
    atexit._run_exitfuncs()  # temporary files and terminals are put right as at any end
    code = flushed(code)
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


def flushed(code: int) -> int:
    """`code`, all that was printed written; 1 or 2 where it cannot be, which is told in a line."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return lost(error, code)
    return code


def lost(error: OSError, code: int = 0) -> int:
    """The exit code where output cannot be written, told in a line; nothing more is written."""
    with suppress(OSError):  # what is left would be tried once more at the end of the process
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):  # whoever read our words has left
        return code or 1
    told = UserError(f"the output cannot be written: {error.strerror}")
    told.__cause__ = error
    tell(told)
    return 2


def take_any_text() -> None:
    """Let any text be printed: what a terminal's encoding lacks as its escape, and into a stream
    that was closed nothing. A stdout that is full says so by `OutputFull`."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdout, TextIOWrapper):
        for name in ("write", "flush"):
            setattr(sys.stdout, name, partial(_printed, getattr(sys.stdout, name)))


def _printed(act: Callable[..., Any], *arguments: Any) -> Any:
    """What `act`, a method of stdout, gives; its error names what is full."""
    try:
        return act(*arguments)
    except OSError as error:
        if error.errno not in FULL or isinstance(error, OutputFull):
            raise
        raise OutputFull(error.errno, error.strerror) from error


def hush() -> None:
    """Silence third-party warnings and progress bars, and make output safe; call before importing
    them."""
    take_any_text()
    warnings.simplefilter("ignore")
    if os.environ.get(DEBUG):
        logging.basicConfig()
        logging.getLogger("mm").setLevel(logging.DEBUG)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def one_of(names: Sequence[str]) -> str:
    """`names` for an error message: "direct, think or zoom"."""
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
