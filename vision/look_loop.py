"""The loop every way of looking again shares: the policy writes; parse; observe; append."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mm.answers.extraction import ANSWER_START
from mm.session import Session
from mm.strategies.forced_answer import force_answer, open_answer
from mm.trace import Branch
from mm.types import Generation, Message, Text, Visual, assistant, message, user
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

Enough = Callable[[Session], bool | None]
"""Asked after each observation and each answer: True ends the looking, False lets a policy that has
answered go on, None leaves it to the policy."""

SPENT = "out_of_budget"
"""The score, 1, of the last step of a branch whose looking the budget cut short."""

NO_MORE = "There are no more looks. Answer now."
REFUSED = message("tool", "There are no more looks.")
GO_ON = user("That is not certain yet. Look at what the answer depends on, then answer.")


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


def unasked(session: Session) -> None:
    """The default `Enough`: leaves it to the policy."""


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
    enough: Enough = unasked,
    spent: Spent | None = None,
) -> Branch:
    """Let the policy look until it answers, or until `enough` says that more pays no more.

    A reply that says nothing, or that the token limit cut off before its answer, is opened for its
    answer once; what that gives is an answer like any other. When the limits are reached, one last
    reply must be the answer. If that says nothing, it too is opened once (`force_answer`); if it
    asks for looks they are refused, and the branch, which then ends with the refusal, has no reply.
    An answer that is not enough counts as a look, and the policy is told to go on. Where the limits
    cut the looking short, the last step is marked (`mark_spent`). A caller that brings `spent`
    replaces `limits` by it, can ask it afterwards, and marks the step itself.

    Raises:
        ModelError: the model failed.
    """
    marks, spent = spent is None, spent or Spent(session, limits)
    last: bool | None = None
    while spent.allows():
        reply = write(session)
        requests = parse(session, reply)
        if reply.finish == "cancelled":
            return session.branch
        if not requests and _unanswered(session, reply):
            session.say(close(session, None))
            if not _last_reply(session, parse, write).reply or session.stopped:
                return session.branch
        if not requests:
            last = enough(session)
            if last is not False:
                return session.branch
            spent.count(None)
            session.say(GO_ON)
            continue
        _observe_all(session, requests, observe, close, spent)
        if spent.allows():
            last = enough(session)
            if last:
                return must_answer(session, parse, write)
    _last_reply(session, parse, write)
    force_answer(session, write)
    if marks:
        mark_spent(session, wanting=last is False)
    return session.branch


def mark_spent(session: Session, *, wanting: bool = False) -> None:
    """Mark the last step of a branch that its budget has ended, where that cut the looking short.

    So it did where a look was refused, or a verifier was `wanting` more; not where a policy that
    had used its last look answered next, nor where somebody stopped it.
    """
    refused = any(step.message == REFUSED for step in session.branch.steps)
    if (refused or wanting) and not session.stopped:
        session.score(SPENT, 1.0)


class Spent:
    """What the looks of one conversation have cost so far, against their limits."""

    def __init__(self, session: Session, limits: Limits) -> None:
        self._vlm, self._limits = session.vlm, limits
        self._looks = self._tokens = 0

    def allows(self) -> bool:
        """Whether another look is allowed."""
        return self._limits.allow(self._looks, self._tokens)

    def count(self, observation: Message | None) -> None:
        """Count a look that showed `observation`."""
        self._looks += 1
        if self._limits.look_tokens is not None:  # not every model can tell
            self._tokens += sum(tokens_of(self._vlm, seen) for seen in _seen(observation))


def _observe_all(
    session: Session,
    requests: Sequence[Asked],
    observe: Observe[Asked],
    close: Close,
    spent: Spent,
) -> None:
    """Say what each request gives; what the limits do not allow is refused."""
    for request in requests:
        if not spent.allows():
            session.say(REFUSED)
            continue
        observation = observe(session, request)
        spent.count(observation)
        if not spent.allows():
            observation = close(session, observation)
        if observation:
            session.say(observation)


def _seen(observation: Message | None) -> Sequence[Visual]:
    return observation.visuals if observation else ()


def _last_reply(session: Session, parse: Parse[Asked], write: Write) -> Branch:
    reply = write(session)
    for _ in parse(session, reply):
        session.say(REFUSED)
    return session.branch


def must_answer(session: Session, parse: Parse[Asked], write: Write = Session.generate) -> Branch:
    """Let the policy answer now: one that would rather look on is refused, its answer opened."""
    reply = write(session)
    requests = parse(session, reply)
    for _ in requests:
        session.say(REFUSED)
    if requests and not session.stopped:
        session.say(assistant(ANSWER_START))
        write(session)
    return force_answer(session, write)


def _unanswered(session: Session, reply: Generation) -> bool:
    branch = session.branch
    return bool(branch.silence) or (reply.finish == "length" and branch.answer is None)
