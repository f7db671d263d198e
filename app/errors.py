"""Reports in one line what the user can put right."""

from __future__ import annotations

import atexit
import logging
import os
import stat
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import typer

import mm
from mm.errors import UserError, first_line, quote

EXPECTED = (UserError, mm.ModelError, typer.TyperException)
"""What is told in a line; anything else is a bug and keeps its traceback."""

DEBUG = "MM_DEBUG"
"""With this in the environment, what is told in a line shows its traceback too."""


@contextmanager
def needs_train(command: str) -> Iterator[None]:
    """Imports inside that fail for want of the extra `train` are the user's mistake."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in ("trl", "datasets", "matplotlib"):
            raise
        remedy = "pip install 'multimodal-reasoning[train]'"
        raise UserError(f"{command} needs {error.name}: {remedy}") from None


def check_file(flag: str, file: Path | None) -> None:
    """Refuse a file that `flag` could not write to, before anything is done for it.

    Raises:
        UserError: its folder does not exist, it is a folder itself, or its name is none.
    """
    if file is None:
        return
    if not os.path.isdir(file.parent):  # unlike Path.is_dir, no error for a name that is too long
        raise UserError(f"{flag}: there is no folder {quote(str(file.parent))}")
    try:
        folder = stat.S_ISDIR(os.stat(file).st_mode)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"{flag}: {quote(str(file))} cannot be written: {why}") from error
    if folder:
        raise UserError(f"{flag}: {quote(str(file))} is a folder: name a file in it")


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
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:  # whoever read our words has left
        code = code or 1
    os._exit(code)


def hush() -> None:
    """Silence third-party warnings and progress bars; call before importing them."""
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
