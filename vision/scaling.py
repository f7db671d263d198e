"""Spending visual tokens where a verifier says that it pays (VTS-V, 2506.07235, section 3).

The paper's decision process over the one look loop: plan, action, observation, verdict, until the
verifier says stop or the budget is spent; then the answer.
"""

from __future__ import annotations

import time
from typing import Literal

from mm.answers.extraction import ANSWER_START
from mm.errors import UserError
from mm.session import Session, Verifier
from mm.strategies.single import direct
from mm.strategies.verdict import verdict
from mm.trace import Branch
from mm.types import Message, assistant

from .act import act
from .ask_region import NOT_SHOWN, ask_where, show
from .look_loop import Limits, Spent
from .verifier import asked
from .zoom import Camera, by_calls
from .zoom_tool import BadCall, RegionCall

SPENT = "out_of_budget"
"""The score, 1, of a last step that was written because the budget was spent."""

Tools = Literal["all", "zoom"]


def scale(
    session: Session,
    *,
    verifier: Verifier = asked,
    threshold: float = 0.5,
    eps: float | None = None,
    tools: Tools | None = None,
    max_steps: int = 6,
    look_tokens: int | None = None,
    max_seconds: float | None = None,
) -> Branch:
    """Let the model look step by step until the verifier says that more looking pays no more.

    The verifier is asked after each observation and each answer; what it says stands in the trace.
    An answer that it finds wanting is gone on from. A verifier that cannot tell leaves it to the
    model. Where the budget ends the looking, the last step is marked `SPENT`. A model that calls no
    tools is only asked, and nobody judges, where the question has no images.

    Args:
        verifier: scores the branch; one with a keyword `vlm` is given the session's model.
        threshold: it is enough from this score on.
        eps: it is enough once the score moves by less than this from one verdict to the next
            (paper, section 3.1); in place of `threshold`.
        tools: "all" offers the actions of `act`, "zoom" the zoom tool alone; None offers all but to
            a checkpoint that was taught the zoom tool alone (its `traits.tools`).
        max_steps: actions that are carried out, wrong ones included.
        look_tokens: no more once their images cost this many visual tokens.
        max_seconds: no more after so long.

    Raises:
        UserError: a number is out of its bounds.
        ModelError: the model failed, or the verifier needs what it does not have.
    """
    if max_steps < 0 or (eps is not None and eps < 0):
        raise UserError(f"max_steps and eps must be 0 or more, got {max_steps} and {eps}")
    if not (session.images or session.vlm.traits.calls_tools):
        return direct(session)
    until = None if max_seconds is None else time.monotonic() + max_seconds
    judge = _Judge(verifier, threshold, eps, until)
    branch = _looking(session, judge, tools, Limits(max_steps, look_tokens))
    if branch.silence and not session.stopped:
        session.say(assistant(ANSWER_START))
        session.generate()
        branch = session.branch
    if branch.steps and not (judge.satisfied or session.stopped):
        session.score(SPENT, 1.0)
    return session.branch


def _looking(session: Session, judge: _Judge, tools: Tools | None, limits: Limits) -> Branch:
    traits = session.vlm.traits
    if not traits.calls_tools:
        return _by_asking(session, judge, limits)
    if (tools or ("zoom" if traits.tools else "all")) == "zoom":
        return by_calls(session, Camera().shoot, limits, enough=judge)
    return act(session, max_steps=limits.looks, look_tokens=limits.look_tokens, enough=judge)


class _Judge:
    """Says when it is enough, and remembers the score before."""

    def __init__(
        self, verifier: Verifier, threshold: float, eps: float | None, until: float | None
    ) -> None:
        self._verifier, self._threshold, self._eps, self._until = verifier, threshold, eps, until
        self._last: float | None = None
        self.satisfied = False

    def __call__(self, session: Session) -> bool | None:
        if self._until is not None and time.monotonic() > self._until:
            return True
        score = verdict(session, self._verifier)
        last, self._last = self._last, score
        if score is None:
            answered = session.branch.steps[-1].sampled
            self.satisfied = self.satisfied or answered
            return None
        if self._eps is None:
            self.satisfied = score >= self._threshold
        else:
            self.satisfied = last is not None and abs(score - last) < self._eps
        return self.satisfied


def _by_asking(session: Session, judge: _Judge, limits: Limits) -> Branch:
    """For a model that calls no tools: it is asked where to look, until that is enough."""
    spent = Spent(session, limits)
    while spent.allows():
        called = ask_where(session)
        shown = NOT_SHOWN if called is None else _shown(session, called)
        session.say(shown)
        spent.count(shown)
        if session.stopped or not shown.visuals or judge(session):
            break
    return direct(session)


def _shown(session: Session, called: RegionCall) -> Message:
    try:
        return show(Camera().shoot(session, called))
    except BadCall:
        return NOT_SHOWN
