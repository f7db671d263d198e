"""One more turn for a reply that says nothing: cut in its thought, ended after it, or empty."""

from __future__ import annotations

import re
from collections.abc import Callable

from mm.answers.extraction import answer_opening
from mm.markup import render_parts
from mm.session import Session
from mm.trace import Branch
from mm.types import Generation, Message, Text, Thinking, ToolCall, assistant

_OPENING = re.compile(r"\s*(?:</think>\s*)?(?:<answer>)?")


def force_answer(
    session: Session, write: Callable[[Session], Generation] = Session.generate
) -> Branch:
    """The session's branch, with a reply if one more turn of the model's gives one.

    Where the last turn ends without a reply its thought is closed, the answer is opened, and the
    model goes on from there; `branch.silence` then says why that gave nothing either. Nothing is
    asked where there is a reply, somebody asked to stop, or the last turn is not the model's.

    Args:
        write: lets the model write its next message.

    Raises:
        ModelError: the model failed.
    """
    branch = session.branch
    ended = bool(branch.steps) and branch.steps[-1].sampled
    if ended and branch.silence and branch.finish != "cancelled" and not session.stopped:
        session.say(open_answer(branch))
        write(session)
    return session.branch


def open_answer(branch: Branch) -> Message:
    """The start of an answer that the model continues; closes an open thought first."""
    said = [
        render_parts([p for p in message.parts if isinstance(p, Text | Thinking | ToolCall)])
        for message in branch.turn
    ]
    return assistant(answer_opening("".join(said)))


def opens_answer(message: Message) -> bool:
    """Whether `message` is no more than what `open_answer` gives."""
    words = all(isinstance(part, Text) for part in message.parts)
    return message.role == "assistant" and words and bool(_OPENING.fullmatch(message.text))
