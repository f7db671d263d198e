"""A model behind an OpenAI-compatible server: vLLM, SGLang, transformers serve and others.

The way to many GPUs. Turns are only ever added to a conversation, and what was sent once is sent
again byte for byte, so that a server's prefix cache computes only what is new.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mm.errors import ModelError
from mm.families.registry import Family
from mm.geometry import Size
from mm.markup import parse_parts, render_parts
from mm.types import Conversation, Cost, Generation, Message, Sampling, assistant
from mm.vlm import Cancelled, OnToken, Traits

from .http_client import Client, Refused
from .openai_format import Json, MessageFormat, StreamedReply

if TYPE_CHECKING:
    from mm.tokens.builder import TokenBuilder

Token = tuple[str | None, float, str]
"""A token of a prompt: its id, its log-probability, its text; None for the first, which has none"""

_CHAT = "chat/completions"
_REMEMBERED = 4096  # replies whose exact words are known, where their parts render as others


class RemoteVLM:
    """A conversation goes in, a generation comes out; any number of threads may ask.

    Replies have no tokens, as servers send words. Seeds, and that greedy replies are the same
    alone and among others, are the server's to keep.

    Args:
        dialect: how conversations are written for the model.
        family: that it is of, as far as is known.
        builder: of the same checkpoint, for the sizes and prices of pictures.
        extra: fields for every request.
        deadline: seconds after which a request fails with `DeadlineExceeded`; None waits
            as long as `client`.
    """

    def __init__(
        self,
        name: str,
        client: Client,
        *,
        traits: Traits = Traits(calls_tools=False),
        dialect: MessageFormat = MessageFormat(),
        family: Family | None = None,
        builder: TokenBuilder | None = None,
        extra: Mapping[str, Any] | None = None,
        deadline: float | None = None,
    ) -> None:
        self.name = name
        self.client = client
        self.traits = traits
        self.family = family
        self.builder = builder
        self.deadline = deadline
        self._said = _Said()
        self._dialect = replace(dialect, spoken=self._said.words)
        self._extra = dict(extra or {})
        self._logprobs = True

    def asking(self, *, deadline: float | None = None) -> RemoteVLM:
        """The same model, whose requests have this deadline, in seconds."""
        other = copy(self)
        other.deadline = deadline
        return other

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling,
        *,
        on_token: OnToken | None = None,
        cancel: Cancelled | None = None,
    ) -> list[Generation]:
        """One reply per conversation, all asked for at once.

        Raises:
            ValueError: `on_token` with several conversations, whose pieces could not be told apart.
            ModelUnavailable: the server cannot be reached, wants a key, or has no such model.
            ModelError: it refuses the conversation, fails, or breaks off.
            DeadlineExceeded: the deadline passed.
        """
        if on_token and len(conversations) != 1:
            raise ValueError(f"on_token needs exactly one conversation, got {len(conversations)}")
        bodies = [self._request(c, sampling) for c in conversations]
        try:
            return self._generate(conversations, bodies, sampling, on_token, cancel)
        except Refused as error:
            if not self._logprobs or "logprobs" not in str(error):
                raise
            self._logprobs = False  # a server without them
        bodies = [self._request(c, sampling) for c in conversations]
        return self._generate(conversations, bodies, sampling, on_token, cancel)

    def score(self, conversation: Conversation, continuations: Sequence[str]) -> list[list[float]]:
        """Log-probabilities of each continuation's tokens as the next words, end token included.

        Raises:
            ModelError: the server gives no log-probabilities of prompts (vLLM does), or its
                template writes the past anew once it has been answered.
        """
        asked = self._read(conversation)
        return [self._score(asked, conversation, text) for text in continuations]

    def seen_size(self, size: Size) -> Size:
        """What the processor makes of an image; `size` itself where boxes do not depend on it.

        Raises:
            ModelError: they do, and no processor was given.
        """
        if self.builder:
            return self.builder.seen_size(size)
        if self.traits.box_format.frame is None:
            raise ModelError(
                f"{self.name} writes boxes in pixels of the picture as it saw it, and its server "
                "does not tell: give its `processor`, a folder or hub id"
            )
        return size

    def visual_tokens(self, size: Size) -> int:
        """What an image of `size` costs in the context.

        Raises:
            ModelError: no processor was given.
        """
        if self.builder is None:
            raise ModelError(
                f"the server of {self.name} does not tell what a picture costs: give its "
                "`processor`, a folder or hub id"
            )
        return self.builder.visual_tokens(size)

    def _generate(
        self,
        conversations: Sequence[Conversation],
        bodies: Sequence[Json],
        sampling: Sampling,
        on_token: OnToken | None,
        cancel: Cancelled | None,
    ) -> list[Generation]:
        begun = time.perf_counter()
        replies = [StreamedReply(sampling.stop, on_token) for _ in bodies]
        seconds = [0.0] * len(bodies)

        def hear(n: int, chunk: Json) -> bool:
            seconds[n] = time.perf_counter() - begun
            return replies[n].hear(chunk)

        whole = self.client.stream(_CHAT, bodies, hear, cancel=cancel, deadline=self.deadline)
        return [
            self._generation(c, reply, s, whole)
            for c, reply, s in zip(conversations, replies, seconds, strict=True)
        ]

    def _generation(
        self, conversation: Conversation, reply: StreamedReply, seconds: float, whole: bool
    ) -> Generation:
        if whole and reply.finish is None:
            raise ModelError(f"{self.client.base_url} ended its reply in the middle")
        reply.end()
        parts = parse_parts(reply.text)
        visual = sum(self._cost(m) for m in self._unread(conversation))
        self._said.remember(render_parts(parts), reply.text)
        return Generation(
            Message("assistant", parts),
            tuple(reply.logprobs),
            _cost(reply, visual, seconds),
            reply.finish or "cancelled",
        )

    def _request(self, conversation: Conversation, sampling: Sampling) -> Json:
        body = self._body(conversation)
        body |= {
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self._logprobs:
            body["logprobs"] = True
        return body | self._extra

    def _body(self, conversation: Conversation) -> Json:
        """Model, messages and tools; what the assistant has begun at the end is left open."""
        try:
            messages = self._dialect.messages(conversation)
        except ValueError as error:
            raise ModelError(f"{self.name} is behind a server: {error}") from error
        body: Json = {"model": self.name, "messages": messages}
        if tools := self._dialect.offered(conversation):
            body["tools"] = tools
        if conversation and conversation[-1].role == "assistant":
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        return body

    def _score(self, asked: Sequence[Token], conversation: Conversation, text: str) -> list[float]:
        told = self._read((*conversation, assistant(text)), closed=True)
        if [id for id, *_ in told[: len(asked)]] != [id for id, *_ in asked]:
            raise ModelError(
                f"{self.name} cannot score {text!r}: its server writes the conversation before it "
                "differently once it is answered"
            )
        new = list(told[len(asked) :])
        while new and not new[-1][2].strip():  # the template's line break after the end token
            new.pop()
        return [logprob for _, logprob, _ in new]

    def _read(self, conversation: Conversation, *, closed: bool = False) -> list[Token]:
        """The tokens that the server makes of a conversation, with their log-probabilities."""
        body = self._body(conversation) | self._extra
        body |= {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
        if closed:
            body |= {"continue_final_message": False, "add_generation_prompt": False}
        try:
            answer = self.client.post(_CHAT, body, deadline=self.deadline)
        except Refused as error:
            raise ModelError(
                f"{self.name} cannot score: it needs a server that gives log-probabilities of "
                f"prompts, as vLLM does ({error})"
            ) from error
        if not answer.get("prompt_logprobs"):
            raise ModelError(
                f"{self.name} cannot score: it needs a server that gives log-probabilities of "
                "prompts, as vLLM does"
            )
        return [_token(entry) for entry in answer["prompt_logprobs"]]

    def _unread(self, conversation: Conversation) -> Conversation:
        """The messages that no reply of the model's has followed yet."""
        written = [
            i
            for i, m in enumerate(conversation)
            if m.role == "assistant" and self._said.knows(render_parts(m.parts))
        ]
        return conversation[written[-1] + 1 :] if written else conversation

    def _cost(self, message: Message) -> int:
        if self.builder is None:
            return 0
        return sum(self.builder.visual_tokens(image.size) for image in message.images)


class _Said:
    """The exact words of the model's replies, by what their parts render as."""

    def __init__(self) -> None:
        self._words: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def remember(self, rendered: str, words: str) -> None:
        with self._lock:
            self._words[rendered] = words
            self._words.move_to_end(rendered)
            while len(self._words) > _REMEMBERED:
                self._words.popitem(last=False)

    def words(self, rendered: str) -> str:
        return self._words.get(rendered, rendered)

    def knows(self, rendered: str) -> bool:
        return rendered in self._words


def _cost(reply: StreamedReply, visual_tokens: int, seconds: float) -> Cost:
    prompt = reply.usage.get("prompt_tokens") or 0
    cached = (reply.usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Cost(
        visual_tokens=visual_tokens,
        computed_tokens=prompt - cached,
        reused_tokens=cached,
        generated_tokens=reply.tokens,
        calls=1,
        seconds=seconds,
    )


def _token(entry: Mapping[str, Any] | None) -> Token:
    """What vLLM says of a token of the prompt; with nothing for the first."""
    if not entry:
        return None, 0.0, ""
    id, said = next(iter(entry.items()))
    return id, float(said["logprob"]), said.get("decoded_token") or ""
