"""Log-probabilities of a prompt's tokens, as vLLM gives them for `prompt_logprobs`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Token(NamedTuple):
    """A token of a prompt; the first one's id is None, since nothing predicts it."""

    id: str | None
    logprob: float
    text: str


def tokens_of(answer: Any) -> list[Token] | None:
    """The prompt's tokens in a server's answer; None where it gives none."""
    entries = answer.get("prompt_logprobs") if isinstance(answer, dict) else None
    try:
        return [_token(entry) for entry in entries] if entries else None
    except (AttributeError, KeyError, StopIteration, TypeError, ValueError):
        return None


def continuation(before: Sequence[Token], after: Sequence[Token]) -> list[float] | None:
    """Log-probabilities of what `after` adds to `before`; None where it does not begin with it.

    The line break that a template writes after the end token is left out.
    """
    if [token.id for token in after[: len(before)]] != [token.id for token in before]:
        return None
    new = list(after[len(before) :])
    while new and not new[-1].text.strip():
        new.pop()
    return [token.logprob for token in new]


def _token(entry: Any) -> Token:
    if not entry:
        return Token(None, 0.0, "")
    id, said = next(iter(entry.items()))
    return Token(id, float(said["logprob"]), said.get("decoded_token") or "")
