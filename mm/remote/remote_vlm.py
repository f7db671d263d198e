"""A model behind an OpenAI-compatible server: vLLM, SGLang, transformers serve and others.

Turns are only ever added to a conversation, and what was sent once is sent
again byte for byte, so that a server's prefix cache computes only what is new.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mm.errors import CannotScore, ModelError
from mm.families.registry import Family
from mm.geometry import Size
from mm.markup import parse_parts, render_parts
from mm.trace import unread
from mm.types import (
    Conversation,
    Cost,
    Generation,
    ImageKind,
    Message,
    Part,
    Sampling,
    Scores,
    assistant,
)
from mm.vlm import Cancelled, OnToken, Traits, check_on_token

from .http_client import Client
from .openai_format import MessageFormat
from .prompt_logprobs import Token, continuation, tokens_of
from .request_fields import BEGUN, GO_ON, LOST, refused_fields, sampling_fields
from .responses import Json, Refused, without
from .streamed_reply import StreamedReply, whole

if TYPE_CHECKING:
    from mm.tokens.builder import TokenBuilder

log = logging.getLogger(__name__)

_CHAT = "chat/completions"
_REMEMBERED = 4096  # replies whose exact text is known, where their parts render as another
_refusing = threading.Lock()


class RemoteVLM:
    """A conversation goes in, a generation comes out; any number of threads may ask.

    Replies have no tokens, because servers send text. Whether seeds are honoured, and whether
    greedy replies are the same alone and in a batch, depends on the server.

    Args:
        message_format: how conversations are written for the model.
        family: the model's family, where it is known.
        builder: of the same checkpoint, for the sizes of images and their visual tokens.
        extra: fields for every request.
        deadline: seconds after which a request fails with `DeadlineExceeded`; None waits as long
            as `client` does.
    """

    def __init__(
        self,
        name: str,
        client: Client,
        *,
        traits: Traits = Traits(calls_tools=False),
        message_format: MessageFormat = MessageFormat(),
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
        self._format = replace(message_format, spoken=self._said.text)
        self._extra = dict(extra or {})
        self._refused: frozenset[str] = frozenset()

    def asking(self, *, priority: int = 0, deadline: float | None = None) -> RemoteVLM:
        """The same model, whose requests have this deadline, in seconds.

        Whose requests go first is the server's business: `priority` is not sent.
        """
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
        check_on_token(on_token, conversations)
        left_out = self._refused  # by these requests; others may find out more at the same time
        while True:
            bodies = [self._request(c, sampling, left_out) for c in conversations]
            try:
                made = self._generate(conversations, bodies, sampling, on_token, cancel)
            except Refused as error:
                more = self._named_by(error, sampling, bodies) - left_out
                if not more:
                    raise
                # last, and alone: without it, replies are others
                left_out |= more - {"temperature"} or more
                continue
            if any(each.finish != "cancelled" for each in made):
                self._leave_out(left_out)
            return made

    def score(self, conversation: Conversation, continuations: Sequence[str]) -> Scores:
        """Log-probabilities of each continuation's tokens as the next words, end token included.

        Raises:
            CannotScore: the server gives no log-probabilities of prompts (vLLM does), or its
                template writes the past anew once it has been answered.
            ModelError: the server failed.
        """
        began = time.perf_counter()
        asked = self._read(conversation)
        logprobs = tuple(tuple(self._score(asked, conversation, text)) for text in continuations)
        calls, seconds = 1 + len(continuations), time.perf_counter() - began
        return Scores(logprobs, Cost(calls=calls, seconds=seconds))

    def seen_size(self, size: Size, kind: ImageKind = "overview") -> Size:
        """What the processor makes of an image; `size` itself where boxes do not depend on it.

        Raises:
            ModelError: they do, and no processor was given.
        """
        if self.builder:
            return self.builder.seen_size(size, kind)
        if self.traits.box_format.frame is None:
            raise ModelError(
                f"{self.name} writes boxes in pixels of the image as it saw it, and its server "
                "does not tell: give its `processor`, a folder or hub id"
            )
        return size

    def visual_tokens(self, size: Size, kind: ImageKind = "overview") -> int:
        """What an image of `size` costs in the context.

        Raises:
            ModelError: no processor was given.
        """
        if self.builder is None:
            raise ModelError(
                f"the server of {self.name} does not tell what an image costs: give its "
                "`processor`, a folder or hub id"
            )
        return self.builder.visual_tokens(size, kind)

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
            self._generation(c, body, reply, s, whole)
            for c, body, reply, s in zip(conversations, bodies, replies, seconds, strict=True)
        ]

    def _generation(
        self,
        conversation: Conversation,
        body: Json,
        reply: StreamedReply,
        seconds: float,
        whole: bool,
    ) -> Generation:
        if whole and reply.finish is None:
            raise ModelError(f"{self.client.base_url} ended its reply in the middle")
        reply.end()
        parts = self._parts(body, reply)
        visual = sum(self._cost(m) for m in unread(conversation, self._wrote))
        self._said.remember(render_parts(parts), reply.text)
        return Generation(
            Message("assistant", parts),
            tuple(reply.logprobs),
            _cost(reply, visual, seconds),
            reply.finish or "cancelled",
        )

    def _parts(self, body: Json, reply: StreamedReply) -> tuple[Part, ...]:
        """The parts of a reply. A thought that the template opened comes without its <think>: where
        the reply was cut before </think> too, all of it is that thought."""
        begins = not body.get("continue_final_message")  # a turn that goes on is past its opening
        opens = self.builder is not None and self.builder.template.opens_thought
        tagged = "<think>" in reply.text or "</think>" in reply.text
        thinks = opens and begins and reply.finish == "length" and not tagged
        return parse_parts("<think>" + reply.text if thinks else reply.text)

    def _request(
        self, conversation: Conversation, sampling: Sampling, left_out: frozenset[str]
    ) -> Json:
        body = self._body(conversation)
        if BEGUN & left_out & body.keys():
            body["messages"] = [*body["messages"], GO_ON]
        body = {k: v for k, v in body.items() if k not in left_out}
        return body | sampling_fields(sampling, left_out) | self._extra

    def _named_by(
        self, refusal: Refused, sampling: Sampling, bodies: Sequence[Json]
    ) -> frozenset[str]:
        """The fields that the server refuses, as far as it can be asked without them.

        Where it names none and the model was to go on with its own turn, it may be that.
        """
        reason = without(str(refusal).replace(self.client.base_url, ""), self.name)
        begun = frozenset(k for body in bodies for k in BEGUN & body.keys())
        return refused_fields(reason, sampling) or begun

    def _leave_out(self, fields: frozenset[str]) -> None:
        """Ask without `fields` from now on: the server has answered without them."""
        with _refusing:
            for field in sorted(fields - self._refused):
                if field in LOST:
                    log.warning("%s: %s", self.name, LOST[field])
            self._refused |= fields

    def _body(self, conversation: Conversation) -> Json:
        """Model, messages and tools; what the assistant has begun at the end is left open."""
        try:
            messages = self._format.messages(conversation)
        except ValueError as error:
            raise ModelError(f"{self.name} is behind a server: {error}") from error
        body: Json = {"model": self.name, "messages": messages}
        if tools := self._format.offered(conversation):
            body["tools"] = tools
        if conversation and conversation[-1].role == "assistant":
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        return body

    def _score(self, asked: Sequence[Token], conversation: Conversation, text: str) -> list[float]:
        answered = self._read((*conversation, assistant(text)), closed=True)
        logprobs = continuation(asked, answered)
        if logprobs is None:
            raise CannotScore(
                f"{self.name} cannot score {text!r}: its server renders the prompt "
                "differently once an answer follows"
            )
        return logprobs

    def _read(self, conversation: Conversation, *, closed: bool = False) -> list[Token]:
        """The tokens that the server makes of a conversation, with their log-probabilities."""
        body = self._body(conversation) | self._extra
        body |= {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
        if closed:
            body |= {"continue_final_message": False, "add_generation_prompt": False}
        try:
            tokens, why = tokens_of(self.client.post(_CHAT, body, deadline=self.deadline)), ""
        except Refused as error:
            tokens, why = None, f" ({error})"
        if tokens is None:
            raise CannotScore(
                f"{self.name} cannot score: it needs a server that gives log-probabilities of "
                f"prompts, as vLLM does{why}"
            )
        return tokens

    def _wrote(self, message: Message) -> bool:
        return message.role == "assistant" and self._said.knows(render_parts(message.parts))

    def _cost(self, message: Message) -> int:
        if self.builder is None:
            return 0
        return sum(self.builder.visual_tokens(i.size, i.kind) for i in message.images)


class _Said:
    """The exact text of the model's replies, by what their parts render as."""

    def __init__(self) -> None:
        self._texts: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def remember(self, rendered: str, text: str) -> None:
        with self._lock:
            self._texts[rendered] = text
            self._texts.move_to_end(rendered)
            while len(self._texts) > _REMEMBERED:
                self._texts.popitem(last=False)

    def text(self, rendered: str) -> str:
        return self._texts.get(rendered, rendered)

    def knows(self, rendered: str) -> bool:
        return rendered in self._texts


def _cost(reply: StreamedReply, visual_tokens: int, seconds: float) -> Cost:
    details = reply.usage.get("prompt_tokens_details")
    prompt = whole(reply.usage.get("prompt_tokens"))
    cached = whole(details.get("cached_tokens")) if isinstance(details, dict) else 0
    return Cost(
        visual_tokens=visual_tokens,
        computed_tokens=max(prompt - cached, 0),
        reused_tokens=cached,
        generated_tokens=reply.tokens,
        calls=1,
        seconds=seconds,
    )
