"""A transformers checkpoint behind the `VLM` protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mm.engine.engine import Engine, Reply
from mm.errors import ModelError
from mm.geometry import Size
from mm.tokens.sequence import Tokens
from mm.types import Conversation, Features, Generation, Message, Sampling
from mm.vlm import (
    AttentionMaps,
    Cancelled,
    OnToken,
    Query,
    Traits,
    check_on_token,
    tokens_of,
    unread,
)


class HFVLM:
    """A conversation goes in, a generation comes out; any number of threads may ask.

    Args:
        adapter: name of the adapter in `engine` to answer with; None is the weights alone.
        priority: requests of a larger one go first; below 0 are background jobs.
        deadline: seconds after which a request fails with `DeadlineExceeded`; None waits for as
            long as it takes.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        name: str = "",
        traits: Traits | None = None,
        adapter: str | None = None,
        priority: int = 0,
        deadline: float | None = None,
    ) -> None:
        self.engine = engine
        self.builder = engine.builder
        self.name = name
        self.traits = traits or engine.builder.traits
        self.adapter = adapter
        self.priority = priority
        self.deadline = deadline

    @property
    def base(self) -> HFVLM:
        """The same weights without the adapter."""
        return self._with(adapter=None)

    def asking(self, *, priority: int = 0, deadline: float | None = None) -> HFVLM:
        """The same model, whose requests have this priority and deadline (in seconds)."""
        return self._with(priority=priority, deadline=deadline)

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling,
        *,
        on_token: OnToken | None = None,
        cancel: Cancelled | None = None,
    ) -> list[Generation]:
        """One reply per conversation, each the same as if it were asked alone.

        Raises:
            ValueError: `on_token` with several conversations, whose pieces could not be told apart.
            ModelError: the model failed, or cannot take what it was given.
            DeadlineExceeded: the deadline passed.
        """
        check_on_token(on_token, conversations)
        built: dict[int, Tokens] = {}  # samples of one prompt are built once
        for c in conversations:
            if id(c) not in built:
                built[id(c)] = self._tokens(c)
        replies = self.engine.generate_all(
            [built[id(c)] for c in conversations],
            sampling,
            adapter=self.adapter,
            on_text=on_token,
            cancel=cancel,
            priority=self.priority,
            deadline=self.deadline,
        )
        return [self._generation(c, r) for c, r in zip(conversations, replies, strict=True)]

    def score(self, conversation: Conversation, continuations: Sequence[str]) -> list[list[float]]:
        """Log-probabilities of each continuation's tokens as the next words, end token included."""
        begins = not (conversation and conversation[-1].role == "assistant")
        ids = [self.builder.continuation(text, begins=begins) for text in continuations]
        return self.engine.score(
            self._tokens(conversation),
            ids,
            adapter=self.adapter,
            priority=self.priority,
            deadline=self.deadline,
        )

    def attention(
        self,
        conversation: Conversation,
        layers: Sequence[int],
        *,
        query: Query = "last",
        gradient: bool = False,
    ) -> AttentionMaps:
        """How the conversation's next token attends to its images."""
        tokens = self._tokens(conversation)
        return self.engine.attention(
            tokens, layers, query=query, gradient=gradient, adapter=self.adapter
        )

    def seen_size(self, size: Size) -> Size:
        return self.builder.seen_size(size)

    def visual_tokens(self, size: Size) -> int:
        return self.builder.visual_tokens(size)

    def feature_tokens(self, features: Features) -> int:
        return self.builder.feature_tokens(features)

    def _with(self, **changes: Any) -> HFVLM:
        same = {
            "name": self.name,
            "traits": self.traits,
            "adapter": self.adapter,
            "priority": self.priority,
            "deadline": self.deadline,
        }
        return HFVLM(self.engine, **{**same, **changes})

    def _generation(self, conversation: Conversation, reply: Reply) -> Generation:
        visual = sum(tokens_of(self, v) for m in unread(conversation, _wrote) for v in m.visuals)
        said = Message("assistant", self.builder.parse(reply.ids), reply.ids)
        return Generation(
            said, reply.logprobs, replace(reply.cost, visual_tokens=visual), reply.finish
        )

    def _tokens(self, conversation: Conversation) -> Tokens:
        try:
            return self.builder.build(conversation)
        except ValueError as error:
            raise ModelError(str(error)) from error


def _wrote(message: Message) -> bool:
    return message.tokens is not None
