"""A model that answers from a list: for tests, documents, and trying a strategy without weights."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Mapping, Sequence

from .errors import ModelError
from .geometry import Size
from .markup import parse_parts
from .types import (
    Conversation,
    Cost,
    Features,
    Finish,
    Generation,
    ImageKind,
    Message,
    Sampling,
    Scores,
)
from .vlm import Cancelled, OnToken, Traits, tokens_of

Reply = str | Callable[[Conversation], str]


class ScriptedVLM:
    """Answers with `replies` in turn and remembers what it was asked.

    A reply is the text that a model would write, with its thinking and calls, or a function that
    makes it from the conversation. The tokens of a reply are its bytes.

    Attributes:
        conversations: what it saw, one for each reply.
        samplings: how it was asked to answer, one for each reply.
        scores: the log-probability of continuations that `score` is asked for; others have -100.
    """

    name = "scripted"

    def __init__(
        self,
        replies: Sequence[Reply],
        *,
        traits: Traits = Traits(),
        scores: Mapping[str, float] | None = None,
    ) -> None:
        self.replies = list(replies)
        self.traits = traits
        self.scores = dict(scores or {})
        self.conversations: list[Conversation] = []
        self.samplings: list[Sampling] = []
        self._turn = threading.Lock()

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling,
        *,
        on_token: OnToken | None = None,
        cancel: Cancelled | None = None,
    ) -> list[Generation]:
        """The next replies, cut at stop strings and at `max_tokens` bytes.

        Raises:
            ModelError: the script has run out.
        """
        return [self._generate(c, sampling, on_token, cancel) for c in conversations]

    def score(self, conversation: Conversation, continuations: Sequence[str]) -> Scores:
        logprobs = tuple((self.scores.get(text, -100.0),) for text in continuations)
        return Scores(logprobs, Cost(calls=1))

    def seen_size(self, size: Size, kind: ImageKind = "overview") -> Size:
        return size

    def visual_tokens(self, size: Size, kind: ImageKind = "overview") -> int:
        return math.ceil(size[0] / 32) * math.ceil(size[1] / 32)

    def feature_tokens(self, features: Features) -> int:
        region, (width, height) = features.region, features.image.size
        across, down = (region.x1 - region.x0) * width, (region.y1 - region.y0) * height
        cell = 32 * features.pool
        return math.ceil(across / cell) * math.ceil(down / cell)

    def _generate(
        self,
        conversation: Conversation,
        sampling: Sampling,
        on_token: OnToken | None,
        cancel: Cancelled | None,
    ) -> Generation:
        text, finish = _cut(self._next(conversation, sampling), sampling)
        spoken = ""
        for piece in re.findall(r"\s*\S+\s*\Z|\s*\S+", text) or [text] * bool(text):
            if cancel and cancel():
                finish = "cancelled"
                break
            spoken += piece
            if on_token:
                on_token(piece)
        tokens = tuple(spoken.encode())
        visual = sum(tokens_of(self, v) for m in conversation for v in m.visuals)
        cost = Cost(visual_tokens=visual, generated_tokens=len(tokens), calls=1)
        message = Message("assistant", parse_parts(spoken), tokens)
        return Generation(message, (0.0,) * len(tokens), cost, finish)

    def _next(self, conversation: Conversation, sampling: Sampling) -> str:
        with self._turn:
            turn = len(self.conversations)
            if turn == len(self.replies):
                raise ModelError(f"the script has only {turn} replies and was asked for one more")
            self.conversations.append(conversation)
            self.samplings.append(sampling)
        reply = self.replies[turn]
        return reply if isinstance(reply, str) else reply(conversation)


def _cut(text: str, sampling: Sampling) -> tuple[str, Finish]:
    """`text` up to the end of its first stop string, or to the token limit."""
    ends = [text.index(stop) + len(stop) for stop in sampling.stop if stop in text]
    text = text[: min(ends, default=len(text))]
    data = text.encode()
    if len(data) > sampling.max_tokens:
        return data[: sampling.max_tokens].decode(errors="ignore"), "length"
    return text, "stop"
