"""Spending visual tokens where a verifier says that it pays (VTS-V, 2506.07235, section 3).

The paper's decision process over the one look loop: plan, action, observation, verdict, until the
verifier says stop, the model is done or the budget is spent; then the answer.
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
    model. Where the budget ends the looking, and neither verifier nor model did, the last step is
    marked `SPENT`. A model that calls no tools is only asked, and nobody judges, where the question
    has no images.

    Args:
        verifier: scores the branch; one with a keyword `vlm` is given the session's model.
        threshold: it is enough from this score on.
        eps: it is enough once the score moves by less than this from one verdict to the next, the
            first of them on the question alone (paper, section 3.1); in place of `threshold`.
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
    spent = _looked(session, judge, tools, Limits(max_steps, look_tokens))
    if session.branch.silence and not session.stopped:
        session.say(assistant(ANSWER_START))
        session.generate()
    if spent and session.branch.steps and not session.stopped:
        session.score(SPENT, 1.0)
    return session.branch


def _looked(session: Session, judge: _Judge, tools: Tools | None, limits: Limits) -> bool:
    """Let the model look and answer; whether the budget ended the looking."""
    traits = session.vlm.traits
    if not traits.calls_tools:
        return _by_asking(session, judge, limits)
    spent = Spent(session, limits)
    if (tools or ("zoom" if traits.tools else "all")) == "zoom":
        by_calls(session, Camera().shoot, limits, enough=judge, spent=spent)
    else:
        act(session, enough=judge, spent=spent)
    return judge.late or not spent.allows()


class _Judge:
    """Says when it is enough, and remembers the score before.

    Attributes:
        late: whether it said so because the time is over.
    """

    def __init__(
        self, verifier: Verifier, threshold: float, eps: float | None, until: float | None
    ) -> None:
        self._verifier, self._threshold, self._eps, self._until = verifier, threshold, eps, until
        self._last: float | None = None
        self._begun = False
        self.late = False

    def __call__(self, session: Session) -> bool | None:
        if self._until is not None and time.monotonic() > self._until:
            self.late = True
            return True
        if self._eps is not None and not self._begun:
            self._begun, self._last = True, verdict(session, self._verifier, _before(session))
        score = verdict(session, self._verifier)
        if score is None:
            return None
        last, self._last = self._last, score
        if self._eps is None:
            return score >= self._threshold
        return last is not None and abs(score - last) < self._eps


def _before(session: Session) -> Branch:
    """The session's branch before the model's first message; its leaf, on which what a verifier
    says of it stands, is what came last before that."""
    steps = session.branch.steps
    first = next(at for at, step in enumerate(steps) if step.sampled)
    system = tuple(step for step in steps[:first] if step.message.role == "system")
    return Branch(session.sample, system, steps[first].parent)


def _by_asking(session: Session, judge: _Judge, limits: Limits) -> bool:
    """For a model that calls no tools: it is asked where to look, until that is enough; whether the
    budget ended that."""
    spent, done = Spent(session, limits), False
    while spent.allows() and not done:
        called = ask_where(session)
        shown = NOT_SHOWN if called is None else _shown(session, called)
        session.say(shown)
        spent.count(shown)
        done = session.stopped or not shown.visuals or bool(judge(session))
    direct(session)
    return judge.late or not done


def _shown(session: Session, called: RegionCall) -> Message:
    try:
        return show(Camera().shoot(session, called))
    except BadCall:
        return NOT_SHOWN
