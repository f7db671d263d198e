"""A model that answers from a list: for tests, documents, and the demo without weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from .geometry import Size
from .parts import parse_parts
from .types import Conversation, Cost, Generation, Message, Sampling
from .vlm import Cancelled, ModelError, OnToken, Traits

Reply = str | Callable[[Conversation], str]


class ScriptedVLM:
    """Answers with `replies` in turn and remembers what it saw in `conversations` and `samplings`.

    A reply is the text a model would write, calls and thinking included, or a function that makes it from
    the conversation. Its tokens are the bytes of the text. `scores` are likelihoods by continuation;
    those it lacks are unlikely.
    """

    name = "scripted"

    def __init__(
        self,
        replies: Sequence[Reply],
        *,
        traits: Traits = Traits(),
        scores: dict[str, float] | None = None,
    ) -> None:
        self.replies = list(replies)
        self.traits = traits
        self.scores = scores or {}
        self.conversations: list[Conversation] = []
        self.samplings: list[Sampling] = []

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling,
        *,
        on_token: OnToken | None = None,
        cancel: Cancelled | None = None,
    ) -> list[Generation]:
        return [self._reply(c, sampling, on_token, cancel) for c in conversations]

    def score(self, conversation: Conversation, continuations: Sequence[str]) -> list[list[float]]:
        return [[self.scores.get(c, -100.0)] for c in continuations]

    def seen_size(self, size: Size) -> Size:
        return size

    def visual_tokens(self, size: Size) -> int:
        return -(-size[0] // 32) * -(-size[1] // 32)

    def _reply(
        self, seen: Conversation, sampling: Sampling, on_token: OnToken | None, cancel: Cancelled | None
    ) -> Generation:
        self.conversations.append(seen)
        self.samplings.append(sampling)
        if len(self.conversations) > len(self.replies):
            raise ModelError(f"the script has {len(self.replies)} replies and was asked for another")
        reply = self.replies[len(self.conversations) - 1]
        text = reply if isinstance(reply, str) else reply(seen)
        if on_token:
            for piece in re.findall(r"\s*\S+\s*\Z|\s*\S+", text):
                on_token(piece)
        tokens = tuple(text.encode())
        message = Message("assistant", parse_parts(text), tokens)
        return Generation(message, (0.0,) * len(tokens), Cost(generated_tokens=len(tokens), calls=1))
