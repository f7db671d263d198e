"""Asking a verifier for its number, with the session's model where it needs one."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

from mm.session import Session, Verifier, name_of
from mm.trace import Branch
from mm.types import Conversation, Cost, Generation, Sampling, Scores
from mm.vlm import VLM


def verdict(session: Session, verifier: Verifier, branch: Branch | None = None) -> float | None:
    """What `verifier` says of `branch` (None: the session's own), written into the trace.

    A verifier with a keyword `vlm` that nobody gave is given the session's model; what that costs
    is added to the step that is scored. NaN is returned as None: it cannot tell.

    Raises:
        ModelError: the model failed.
        ValueError: the branch has no step yet.
    """
    branch = branch or session.branch
    meter = Metered(session.vlm)
    value = for_model(verifier, cast(VLM, meter))(branch)
    session.score(name_of(verifier), value, leaf=branch.leaf, cost=meter.cost)
    return None if value is None or value != value else value


def for_model(verifier: Verifier, vlm: VLM) -> Verifier:
    """`verifier` with `vlm` in its keyword of that name, where it has one whose default is None."""
    parameter = inspect.signature(verifier).parameters.get("vlm")
    if parameter is None or parameter.default is not None:
        return verifier
    return partial(verifier, vlm=vlm)  # type: ignore[call-arg]


class Metered:
    """A VLM that adds up what it is asked for; all else is the model's own.

    The visual tokens of a context that the policy's own next reply enters again are left out.
    """

    def __init__(self, vlm: VLM, *, own_context: bool = False, costs: list[Cost] | None = None):
        self._vlm = vlm
        self._own_context = own_context
        self._costs = [] if costs is None else costs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vlm, name)

    @property
    def cost(self) -> Cost:
        """Of all that was asked."""
        return sum(self._costs, Cost())

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling, **options: Any
    ) -> list[Generation]:
        replies = self._vlm.generate(conversations, sampling, **options)
        self._costs += [self._counted(reply.cost) for reply in replies]
        return replies

    def score(self, conversation: Conversation, continuations: Sequence[str]) -> Scores:
        scores = self._vlm.score(conversation, continuations)
        self._costs.append(self._counted(scores.cost))
        return scores

    def score_tokens(self, conversation: Conversation, ids: tuple[int, ...]) -> Scores:
        scores = self._vlm.score_tokens(conversation, ids)  # type: ignore[attr-defined]
        self._costs.append(self._counted(scores.cost))
        return scores

    def next_logprobs(self, conversation: Conversation) -> tuple[float, ...]:
        self._costs.append(Cost(calls=1))  # what the cache spares is not known here
        return self._vlm.next_logprobs(conversation)  # type: ignore[attr-defined]

    def using(self, adapter: str | None) -> Metered:
        """The same, answering with `adapter`, whose context is another one."""
        other = self._vlm.using(adapter)  # type: ignore[attr-defined]
        return Metered(other, own_context=True, costs=self._costs)

    def _counted(self, cost: Cost) -> Cost:
        return cost if self._own_context else replace(cost, visual_tokens=0)
