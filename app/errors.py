"""What the user can put right, told in one line."""

from __future__ import annotations

import atexit
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import typer

import mm
from mm.errors import UserError

EXPECTED = (UserError, mm.ModelError, typer.TyperException)
"""What is told in a line; anything else is a bug and keeps its traceback."""


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


def tell(error: Exception) -> None:
    """`error` on stderr, as one line unless it is several mistakes."""
    said = error.format_message() if isinstance(error, typer.TyperException) else str(error)
    for line in said.splitlines() if isinstance(error, UserError) else [said]:
        print(f"mm: {' '.join(line.split())}", file=sys.stderr)


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
    """Keep libraries from talking around our own words; to be called before they are imported."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def one_of(names: Sequence[str]) -> str:
    """`names` for an error message: "direct, think or zoom"."""
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
