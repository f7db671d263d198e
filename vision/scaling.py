"""Spending visual tokens where a verifier says that it pays (VTS-V, 2506.07235, section 3).

The paper's decision process over the one look loop: plan, action, observation, verdict, until the
verifier says stop, the model is done or the budget is spent; then the answer.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from mm.answers.extraction import ANSWER_START
from mm.errors import UserError
from mm.session import Session, Verifier
from mm.strategies.single import direct
from mm.strategies.verdict import verdict
from mm.trace import Branch
from mm.types import Message, assistant

from .act import act
from .action_schema import Action
from .actions import ACTIONS
from .ask_region import NOT_SHOWN, ask_where, show
from .look_loop import Limits, Spent, mark_spent
from .verifier import Tools, asked
from .zoom import Camera, by_calls
from .zoom_tool import BadCall, RegionCall

ENDED_BY_VERDICT = "ended_by_verdict"
"""The trace's setting, True where a verdict ended the looking; else model or budget did."""


def scale(
    session: Session,
    *,
    verifier: Verifier = asked,
    threshold: float = 0.5,
    eps: float | None = None,
    tools: Tools | None = None,
    actions: Sequence[Action] | None = None,
    max_steps: int = 6,
    look_tokens: int | None = None,
    max_seconds: float | None = None,
) -> Branch:
    """Let the model look step by step until the verifier says that more looking pays no more.

    The verifier is asked after each observation and each answer; what it says stands in the trace.
    After an answer that is not enough the model looks on. A verifier that cannot tell leaves it to
    the model. Where the budget ends the looking, and neither verifier nor model would have, the
    last step is marked (`look_loop.mark_spent`): the last verdict was not enough, or a look was
    refused. A model that calls no tools answers a question without images directly.

    Args:
        verifier: scores the branch; one with a keyword `vlm` is given the session's model.
        threshold: it is enough from this score on.
        eps: it is enough once the score moves by less than this from one verdict to the next, the
            first of them on the question alone (paper, section 3.1); in place of `threshold`.
        tools: "all" offers the actions of `act`, "zoom" the zoom tool alone; None offers all but to
            a checkpoint that was taught the zoom tool alone (its `traits.tools`).
        actions: what is on offer, to a model that calls tools, in the place of `tools`.
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
    offered = actions if actions is not None else _offered(session, tools)
    spent = _looked(session, judge, offered, Limits(max_steps, look_tokens))
    if session.branch.silence and not session.stopped:
        session.say(assistant(ANSWER_START))
        session.generate()
    if spent:
        mark_spent(session, wanting=judge.wanting)
    return session.branch


def _offered(session: Session, tools: Tools | None) -> Sequence[Action] | None:
    """The actions on offer; None for the zoom tool alone."""
    zooms = (tools or ("zoom" if session.vlm.traits.tools else "all")) == "zoom"
    return None if zooms else ACTIONS


def _looked(
    session: Session, judge: _Judge, actions: Sequence[Action] | None, limits: Limits
) -> bool:
    """Let the model look and answer; whether the budget ended the looking."""
    if not session.vlm.traits.calls_tools:
        return _by_asking(session, judge, limits)
    spent = Spent(session, limits)
    if actions is None:
        by_calls(session, Camera().shoot, limits, enough=judge, spent=spent)
    else:
        act(session, actions=actions, enough=judge, spent=spent)
    return judge.late or not spent.allows()


class _Judge:
    """Says when it is enough, and remembers the score before.

    Attributes:
        late: whether it said so because the time is over.
        wanting: whether its last verdict was that it is not enough.
    """

    def __init__(
        self, verifier: Verifier, threshold: float, eps: float | None, until: float | None
    ) -> None:
        self._verifier, self._threshold, self._eps, self._until = verifier, threshold, eps, until
        self._last: float | None = None
        self._begun = False
        self.late = self.wanting = False

    def __call__(self, session: Session) -> bool | None:
        if self._until is not None and time.monotonic() > self._until:
            self.late = True
            return True
        said = self._verdict(session)
        self.wanting = said is False
        if said:
            session.note(ENDED_BY_VERDICT, True)
        return said

    def _verdict(self, session: Session) -> bool | None:
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
