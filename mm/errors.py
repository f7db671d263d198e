"""Errors that people can put right: each says what is wrong and the remedy, in a line."""

from __future__ import annotations


class UserError(ValueError):
    """Something was asked for that cannot be done; a line for each fault, with its remedy."""


class BadImage(UserError):
    """An image that cannot be used; one line that names it and says the remedy."""


class ModelError(RuntimeError):
    """A model could not answer; `run` records it on the trace. The message is for people."""


class ModelUnavailable(ModelError):
    """A model could not be loaded: missing, gated, offline or too large. It says the remedy."""


class DeadlineExceeded(ModelError):
    """No answer came before the request's deadline."""


def first_line(error: Exception) -> str:
    """What an error says, cut to a line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
