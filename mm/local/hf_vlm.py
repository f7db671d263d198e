"""A transformers checkpoint behind the `VLM` protocol."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mm.engine.engine import Engine, Reply, RequestOptions
from mm.errors import ModelError
from mm.geometry import Size
from mm.tokens.sequence import Tokens
from mm.trace import unread
from mm.types import (
    Conversation,
    Features,
    Generation,
    ImageKind,
    Message,
    Sampling,
    Scores,
)
from mm.vlm import (
    AttentionMaps,
    Cancelled,
    OnToken,
    Query,
    Traits,
    check_on_token,
)

from .adapters import content_of, with_adapter
from .checkpoints import find
from .fingerprint import check_base


class HFVLM:
    """A conversation goes in, a generation comes out; any number of threads may ask.

    Args:
        options: how its requests are served: the adapter in `engine`, the priority, the deadline.
        folder: where the weights were read, which adapters are compared with; None where they
            stand in none.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        name: str = "",
        traits: Traits | None = None,
        options: RequestOptions = RequestOptions(),
        folder: Path | None = None,
    ) -> None:
        self.engine = engine
        self.builder = engine.builder
        self.name = name
        self.traits = traits or engine.builder.traits
        self.options = options
        self.folder = folder

    @property
    def adapter(self) -> str | None:
        """The adapter that answers; None is the weights alone."""
        return self.options.adapter

    @property
    def base(self) -> HFVLM:
        """The same weights without the adapter."""
        return self.using(None)

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the adapters on the weights."""
        return self.engine.runner.adapters

    def using(self, adapter: str | None) -> HFVLM:
        """The same weights, answering with one of `adapters`; None is the weights alone."""
        return self._with(replace(self.options, adapter=adapter))

    def with_adapter(self, folder: str) -> HFVLM:
        """The same weights, answering with the peft adapter in `folder`, which is loaded once.

        One that was trained anew since, in the same folder, is loaded beside what was there before.

        Raises:
            ModelUnavailable: it is not an adapter, was trained on other weights, or does not fit;
                the weights answer as before then.
        """
        told = f"{content_of(folder)} {folder}".encode()
        name = f"at_{hashlib.blake2b(told, digest_size=8).hexdigest()}"
        if name not in self.adapters:
            if self.folder:
                check_base(find(folder), self.folder)
            self.engine.on_thread(self._add, folder, name)
        return self.using(name)

    def _add(self, folder: str, name: str) -> None:
        """Put an adapter beside those on the weights, unless it is there."""
        runner = self.engine.runner
        if name not in runner.adapters:
            runner.adapt(with_adapter(runner.adapted or runner.model, folder, name).eval())

    def asking(self, *, priority: int = 0, deadline: float | None = None) -> HFVLM:
        """The same model, whose requests have this priority and deadline (in seconds)."""
        return self._with(replace(self.options, priority=priority, deadline=deadline))

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
        if on_token:
            check_on_token(on_token, conversations)
        built: dict[int, Tokens] = {}  # samples of one prompt are built once
        for c in conversations:
            if id(c) not in built:
                built[id(c)] = self._tokens(c)
        replies = self.engine.generate_all(
            [built[id(c)] for c in conversations],
            sampling,
            replace(self.options, on_text=on_token, cancel=cancel),
        )
        return [
            self._generation(c, built[id(c)], reply)
            for c, reply in zip(conversations, replies, strict=True)
        ]

    def score(self, conversation: Conversation, continuations: Sequence[str]) -> Scores:
        """Log-probabilities of each continuation's tokens as the next text, end token included."""
        begins = not (conversation and conversation[-1].role == "assistant")
        ids = [self.builder.continuation(text, begins=begins) for text in continuations]
        return self._score(conversation, ids)

    def score_tokens(self, conversation: Conversation, ids: tuple[int, ...]) -> Scores:
        """Log-probabilities of `ids`, once, as the assistant's next tokens."""
        return self._score(conversation, [ids])

    def next_logprobs(self, conversation: Conversation) -> tuple[float, ...]:
        """Log-probabilities, in float32, of each token of the vocabulary as the next one."""
        logits = self.engine.next_logits(self._tokens(conversation), adapter=self.adapter)
        return tuple(logits.log_softmax(-1).tolist())

    def _score(self, conversation: Conversation, ids: Sequence[Sequence[int]]) -> Scores:
        tokens = self._tokens(conversation)
        scores = self.engine.score(tokens, ids, self.options)
        visual = _visual_tokens(conversation, tokens)
        return replace(scores, cost=replace(scores.cost, visual_tokens=visual))

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

    def seen_size(self, size: Size, kind: ImageKind = "overview") -> Size:
        return self.builder.seen_size(size, kind)

    def visual_tokens(self, size: Size, kind: ImageKind = "overview") -> int:
        return self.builder.visual_tokens(size, kind)

    def feature_tokens(self, features: Features) -> int:
        return self.builder.feature_tokens(features)

    def _with(self, options: RequestOptions) -> HFVLM:
        return HFVLM(
            self.engine,
            name=self.name,
            traits=self.traits,
            options=options,
            folder=self.folder,
        )

    def _generation(self, conversation: Conversation, tokens: Tokens, reply: Reply) -> Generation:
        visual = _visual_tokens(conversation, tokens)
        begins = not (conversation and conversation[-1].role == "assistant")
        said = Message("assistant", self.builder.parse(reply.ids, begins=begins), reply.ids)
        return Generation(
            said, reply.logprobs, replace(reply.cost, visual_tokens=visual), reply.finish
        )

    def _tokens(self, conversation: Conversation) -> Tokens:
        try:
            return self.builder.build(conversation)
        except ValueError as error:
            raise ModelError(str(error)) from error


def _visual_tokens(conversation: Conversation, tokens: Tokens) -> int:
    """Those of the messages that no reply has followed yet."""
    new = sum(len(message.visuals) for message in unread(conversation, _wrote))
    return sum(span.tokens for span in tokens.images[len(tokens.images) - new :])


def _wrote(message: Message) -> bool:
    return message.tokens is not None
