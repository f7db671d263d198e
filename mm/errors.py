"""Errors that people can put right: each says what is wrong and the remedy, in a line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Something was asked for that cannot be done; a line for each fault, with its remedy."""


class BadImage(UserError):
    """An image that cannot be used; one line that names it and says the remedy."""


class ModelError(RuntimeError):
    """A model could not answer; `run` records it on the trace. The message is for people."""


class ModelUnavailable(ModelError):
    """A model could not be loaded: missing, gated, offline or too large. It says the remedy."""


class CannotScore(ModelError):
    """A model that answers, but gives no log-probabilities of words that others chose."""


class DeadlineExceeded(ModelError):
    """No answer came before the request's deadline."""


class BadTrace(UserError):
    """A folder of traces that cannot be read or written; one line that names it and the remedy."""


@contextmanager
def door(thing: str, raises: type[UserError], remedy: str = "") -> Iterator[None]:
    """Around work on data from elsewhere: what goes wrong there comes out as one line.

    The line names `thing` and says the `remedy`; the error itself is its `__cause__`. What is
    already meant for people passes as it is.

    Raises:
        UserError: of the kind `raises`.
    """
    try:
        yield
    except (UserError, ModelError):
        raise
    except Exception as error:
        why = f"lacks {error}" if isinstance(error, KeyError) else first_line(error)
        raise raises(f"{thing}: {why}" + (f": {remedy}" if remedy else "")) from error


@contextmanager
def no_panic() -> Iterator[None]:
    """Around a library in Rust that panics on damaged data: its panic is no `Exception`.

    Raises:
        ValueError: it panicked.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"damaged: {str(error).strip()[:200]}") from error


def quote(value: object, most: int = 80) -> str:
    """`value` as Python writes it, cut to `most` characters: for messages, which are short."""
    quoted = repr(value)
    return quoted if len(quoted) <= most else quoted[:most] + "..."


def first_line(error: Exception) -> str:
    """What an error says, cut to a line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
