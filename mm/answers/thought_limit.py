"""A bound on a model's thought: it is closed there, and the answer is opened (budget forcing,
s1, arXiv 2501.19393, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mm.markup import parse_parts, render_parts
from mm.types import Conversation, Generation, Message, Sampling, Thinking, assistant

from .extraction import THOUGHT_END, answer_opening

Write = Callable[[Conversation, Sampling], Generation]
"""Lets a model write its next message."""

_SECOND_PART = 500_009  # far from the seeds of forks and of later replies


def write_within(
    write: Write, messages: Conversation, sampling: Sampling
) -> list[Generation | Message]:
    """What is added to `messages` by one reply whose thought is bounded by `max_thought_tokens`.

    That is the reply; or, where the thought reached the bound, the thought, the message that
    closes it and opens the answer, and the answer. All together have at most `max_tokens`, besides
    what closes the thought. A reply that is no thought goes on beyond the bound as it was.
    """
    limit = sampling.max_thought_tokens
    if limit is None or limit >= sampling.max_tokens:
        return [write(messages, sampling)]
    stop = (*sampling.stop, THOUGHT_END)
    first = write(messages, replace(sampling, max_tokens=limit, stop=stop))
    left = sampling.max_tokens - first.cost.generated_tokens
    seed = sampling.seed + _SECOND_PART
    rest = replace(sampling, max_tokens=left, seed=seed, max_thought_tokens=None)
    said = (*messages, first.message)
    if first.finish == "length" and _thinks_on(first.message):
        opening = assistant(answer_opening(render_parts(first.message.parts)))
        return [first, opening, write((*said, opening), rest)]
    if left > 0 and (first.finish == "length" or _has_thought(first)):
        return [_joined(first, write(said, rest))]
    return [first]


def _thinks_on(message: Message) -> bool:
    last = message.parts[-1:]
    return bool(last) and isinstance(last[0], Thinking) and not last[0].closed


def _has_thought(written: Generation) -> bool:
    """Whether the reply stopped at its thought's end."""
    text = render_parts(written.message.parts)
    return written.finish == "stop" and text.rstrip().endswith(THOUGHT_END)


def _joined(first: Generation, second: Generation) -> Generation:
    """One reply that was written in two parts."""
    text = "".join(render_parts(each.message.parts) for each in (first, second))
    tokens = (first.message.tokens, second.message.tokens)
    ids = None if tokens[0] is None or tokens[1] is None else tokens[0] + tokens[1]
    return Generation(
        Message("assistant", parse_parts(text), ids),
        first.logprobs + second.logprobs,
        first.cost + second.cost,
        second.finish,
    )
