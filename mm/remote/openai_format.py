"""Conversations as OpenAI-compatible servers take them, and replies as they come back in chunks."""

from __future__ import annotations

import base64
import json
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import count
from typing import Any, Literal

from mm.markup import render_parts
from mm.tokens.turn_grouping import grouped, observed, system_text
from mm.types import Conversation, Finish, Image, Message, Part, Text, Thinking, ToolCall, ToolSpec
from mm.vlm import OnToken

Json = dict[str, Any]

Tools = Literal["text", "openai"]
"""How tools are offered and called: in words, as Qwen's template writes them, which works on any
server for a model that was taught so; or in OpenAI's own fields, which a server may have to be
started for (vLLM: --enable-auto-tool-choice and --tool-call-parser)."""

Show = Callable[[Image], str]
"""The address where the server finds a picture; the same whenever it is asked."""

_uris: weakref.WeakKeyDictionary[Image, str] = weakref.WeakKeyDictionary()


def data_uri(image: Image) -> str:
    """The picture itself as an address, in PNG: the server sees its exact pixels.

    It is made once for as long as the picture lives.
    """
    uri = _uris.get(image)
    if uri is None:
        file = BytesIO()
        image.pixels.save(file, "PNG", compress_level=1)
        uri = _uris[image] = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return uri


@dataclass(frozen=True)
class MessageFormat:
    """How conversations are written for one model on one server.

    Attributes:
        alternates: user and assistant must take turns; messages in a row then share one.
        controls: spellings that the server would take for tokens; in what others than the model
            say, a word joiner is put into each.
        spoken: from the words that the assistant's parts render as to those it really wrote.
    """

    tools: Tools = "text"
    alternates: bool = True
    controls: re.Pattern[str] = re.compile(r"<\|[\w-]+\|>")
    spoken: Callable[[str], str] = str
    show: Show = data_uri

    def messages(self, conversation: Conversation) -> list[Json]:
        """The `messages` of a request.

        Raises:
            ValueError: it holds what no server takes.
        """
        _refuse(conversation)
        system = [m for m in conversation if m.role == "system"]
        written = []
        if text := self._system(system):
            written.append({"role": "system", "content": self._apart(text)})
        names = (f"call{number:05}" for number in count())
        open_calls: list[str] = []
        others = [m for m in conversation if m.role != "system"]
        for whose, numbered in grouped(others, alternates=self.alternates):
            messages = [m for _, m in numbered]
            if whose == "assistant":
                written.append(self._assistant(messages, names, open_calls))
            else:
                written.extend(self._others(messages, open_calls))
        return written

    def offered(self, conversation: Conversation) -> list[Json]:
        """The `tools` of a request; none where they are offered in words."""
        if self.tools == "text":
            return []
        return [p.json for m in conversation for p in m.parts if isinstance(p, ToolSpec)]

    def words(self, message: Message) -> str:
        """What the assistant said, as it wrote it."""
        return self.spoken(render_parts(message.parts))

    def _system(self, messages: Sequence[Message]) -> str:
        if self.tools == "text":
            return system_text(messages)
        return "\n\n".join(m.text for m in messages if m.text)

    def _assistant(
        self, messages: Sequence[Message], names: Iterator[str], open_calls: list[str]
    ) -> Json:
        if self.tools == "text":
            return {"role": "assistant", "content": "".join(map(self.words, messages))}
        parts = [p for m in messages for p in m.parts]
        said = render_parts([p for p in parts if not isinstance(p, ToolCall)])
        made = [_call(p, next(names)) for p in parts if isinstance(p, ToolCall)]
        open_calls[:] = [call["id"] for call in made]
        return {"role": "assistant", "content": said, **({"tool_calls": made} if made else {})}

    def _others(self, messages: Sequence[Message], open_calls: list[str]) -> Iterator[Json]:
        """What the user and the tools said, messages of one turn apart by a line."""
        parts: list[Part] = []
        for message in messages:
            if message.role == "tool" and open_calls:
                name = open_calls.pop(0)
                content = self._content(message.parts)
                yield {"role": "tool", "tool_call_id": name, "content": content}
            else:
                parts += [Text("\n")] if parts else []
                parts += observed(message).parts
        if parts:
            yield {"role": "user", "content": self._content(parts)}

    def _content(self, parts: Sequence[Part]) -> str | list[Json]:
        """Text in one piece between pictures; alone, as a string, which every template takes."""
        content: list[Json] = []
        for part in parts:
            if isinstance(part, Image):
                content.append({"type": "image_url", "image_url": {"url": self.show(part)}})
                continue
            text = self._apart(render_parts([part]))
            if content and content[-1]["type"] == "text":
                content[-1]["text"] += text
            elif text:
                content.append({"type": "text", "text": text})
        if not any(piece["type"] == "image_url" for piece in content):
            return "".join(piece["text"] for piece in content)
        return content

    def _apart(self, text: str) -> str:
        return self.controls.sub(lambda found: f"{found[0][0]}\u2060{found[0][1:]}", text)


class StreamedReply:
    """What a server has sent of one reply: all of it as the text that a model writes.

    Thoughts and calls that come in fields of their own are put into their tags again, so that there
    is one form to read and to search for stop strings.
    """

    def __init__(self, stop: Sequence[str], on_token: OnToken | None = None) -> None:
        self.text = ""
        self.logprobs: list[float] = []
        self.finish: Finish | None = None
        self.usage: Json = {}
        self._stop, self._on_token = stop, on_token
        self._pieces = 0
        self._thinks = False
        self._calls: dict[int, list[str]] = {}

    @property
    def tokens(self) -> int:
        """How many tokens the model wrote, by the server's count where it gave one."""
        return self.usage.get("completion_tokens") or len(self.logprobs) or self._pieces

    def hear(self, chunk: Json) -> bool:
        """Take the next chunk; True where a stop string has ended the reply."""
        self.usage = chunk.get("usage") or self.usage
        for choice in (chunk.get("choices") or [])[:1]:
            if self._hear_delta(choice.get("delta") or {}, _logprobs(choice)):
                self.finish = "stop"
                return True
            if reason := choice.get("finish_reason"):
                self.finish = "length" if reason == "length" else "stop"
        return False

    def end(self) -> None:
        """Nothing more comes: close what is open."""
        if self._thinks and self.finish == "stop":
            self._think(False)
        for name, arguments in self._calls.values():
            body = f'{{"name": {json.dumps(name)}, "arguments": {arguments or "{}"}}}'
            self._write(f"{chr(10) if self.text else ''}<tool_call>\n{body}\n</tool_call>")
        self._calls = {}

    def _hear_delta(self, delta: Json, logprobs: list[tuple[str, float]]) -> bool:
        thought, said = (
            delta.get("reasoning") or delta.get("reasoning_content"),
            delta.get("content"),
        )
        before = len(self.text)
        ended = False
        if thought:
            self._think(True)
            ended = self._write(thought)
        if said and not ended:
            self._think(False)
            ended = self._write(said)
        for call in delta.get("tool_calls") or ():
            self._hear_call(call)
        self._pieces += bool(thought or said)
        self._count(logprobs, len(self.text) - before if ended else None)
        return ended

    def _hear_call(self, call: Json) -> None:
        parts = self._calls.setdefault(call.get("index") or 0, ["", ""])
        function = call.get("function") or {}
        parts[0] += function.get("name") or ""
        parts[1] += function.get("arguments") or ""

    def _think(self, thinks: bool) -> None:
        if thinks != self._thinks:
            self._thinks = thinks
            self._write("<think>" if thinks else "</think>")

    def _write(self, piece: str) -> bool:
        """Add `piece`, up to the end of the first stop string; True where there is one."""
        begin = max(0, len(self.text) - max(map(len, self._stop), default=0))
        whole = self.text + piece
        found = [at + len(s) for s in self._stop if (at := whole.find(s, begin)) >= 0]
        piece = whole[len(self.text) : min(found, default=len(whole))]
        self.text += piece
        if piece and self._on_token:
            self._on_token(piece)
        return bool(found)

    def _count(self, logprobs: list[tuple[str, float]], letters: int | None) -> None:
        """Keep the log-probabilities of a chunk's tokens, or of those that make its `letters`."""
        for token, value in logprobs:
            if letters is not None and letters <= 0:
                break
            self.logprobs.append(value)
            letters = None if letters is None else letters - len(token)


def _logprobs(choice: Json) -> list[tuple[str, float]]:
    """Tokens and their log-probabilities, where the server gives them."""
    given = (choice.get("logprobs") or {}).get("content") or ()
    return [(entry.get("token", ""), float(entry["logprob"])) for entry in given]


def _call(call: ToolCall, name: str) -> Json:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {
        "id": name,
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }


def _refuse(conversation: Conversation) -> None:
    for message in conversation:
        for part in message.parts:
            if isinstance(part, Text | Thinking | ToolCall | ToolSpec):
                continue
            if not isinstance(part, Image):
                raise ValueError(f"it takes pictures and words, no {type(part).__name__}")
            if message.role in ("system", "assistant"):
                raise ValueError(f"it takes no picture in what the {message.role} says")
