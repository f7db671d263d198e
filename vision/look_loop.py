"""The loop every way of looking again shares: the policy writes; parse; observe; append."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mm.session import Session
from mm.strategies.forced_answer import force_answer, open_answer
from mm.trace import Branch
from mm.types import Generation, Message, Text, Visual, message
from mm.vlm import tokens_of

Asked = TypeVar("Asked")

Parse = Callable[[Session, Generation], Sequence[Asked]]
"""What a reply asks for; empty when it asks for nothing and so is the answer."""

Observe = Callable[[Session, Asked], Message | None]
"""What the policy gets for each thing it asked for: an image, or a text that says what was wrong
with it; None for nothing at all."""

Close = Callable[[Session, Message | None], Message]
"""Adds "no more looks" to the last observation; given None, returns that notice alone."""

Write = Callable[[Session], Generation]
"""Lets the policy write its next reply, in the manner of its layout."""

NO_MORE = "There are no more looks. Answer now."
REFUSED = message("tool", "There are no more looks.")


@dataclass(frozen=True)
class Limits:
    """When looking ends.

    Attributes:
        looks: requests that are observed, the wrong ones included.
        look_tokens: no more looks once the observations cost this many; None for no bound.
    """

    looks: int = 6
    look_tokens: int | None = None

    def allow(self, looks: int, spent: int) -> bool:
        """Whether another look is allowed after so many, at such a cost."""
        return looks < self.looks and (self.look_tokens is None or spent < self.look_tokens)


def tell(session: Session, observation: Message | None) -> Message:
    """The default `Close`: tells the model in the tool's message, or opens its answer if there is
    none."""
    if observation is None:
        return open_answer(session.branch)
    return Message(observation.role, (*observation.parts, Text("\n" + NO_MORE)))


def look(
    session: Session,
    *,
    parse: Parse[Asked],
    observe: Observe[Asked],
    close: Close = tell,
    limits: Limits = Limits(),
    write: Write = Session.generate,
) -> Branch:
    """Let the policy look until it answers.

    A reply that says nothing, or that the token limit cut off before its answer, is opened for its
    answer once. When the limits are reached, one last reply must be the answer. If that says
    nothing, it too is opened once (`force_answer`); if it asks for looks they are refused, and the
    branch, which then ends with the refusal, has no reply.

    Raises:
        ModelError: the model failed.
    """
    looks = tokens = 0
    while limits.allow(looks, tokens):
        reply = write(session)
        requests = parse(session, reply)
        if reply.finish == "cancelled" or not (requests or _unanswered(session, reply)):
            return session.branch
        if not requests:
            session.say(close(session, None))
            return _last_reply(session, parse, write)
        for request in requests:
            if not limits.allow(looks, tokens):
                session.say(REFUSED)
                continue
            observation = observe(session, request)
            looks += 1
            if limits.look_tokens is not None:  # not every model can tell
                tokens += sum(tokens_of(session.vlm, seen) for seen in _seen(observation))
            if not limits.allow(looks, tokens):
                observation = close(session, observation)
            if observation:
                session.say(observation)
    _last_reply(session, parse, write)
    return force_answer(session, write)


def _seen(observation: Message | None) -> Sequence[Visual]:
    return observation.visuals if observation else ()


def _last_reply(session: Session, parse: Parse[Asked], write: Write) -> Branch:
    reply = write(session)
    for _ in parse(session, reply):
        session.say(REFUSED)
    return session.branch


def _unanswered(session: Session, reply: Generation) -> bool:
    branch = session.branch
    return bool(branch.silence) or (reply.finish == "length" and branch.answer is None)
