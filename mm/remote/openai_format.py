"""Conversations as OpenAI-compatible servers take them."""

from __future__ import annotations

import base64
import json
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import count
from typing import Literal

from mm.markup import render_parts
from mm.tokens.escaping import spelt_apart
from mm.tokens.turn_grouping import grouped, observed, system_text
from mm.types import Conversation, Image, Message, Part, Text, Thinking, ToolCall, ToolSpec

from .responses import Json

Tools = Literal["text", "openai"]
"""How tools are offered and called: as text, in the form of Qwen's template, which works on any
server for a model trained on that form; or in OpenAI's own fields, for which a server may need
options (vLLM: --enable-auto-tool-choice and --tool-call-parser)."""

Show = Callable[[Image], str]
"""The address where the server finds an image; the same whenever it is asked."""

_uris: weakref.WeakKeyDictionary[Image, str] = weakref.WeakKeyDictionary()


def data_uri(image: Image) -> str:
    """The image itself as an address, in PNG: the server sees its exact pixels.

    It is made once for as long as the image lives.
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
        spoken: from the text that the assistant's parts render as to what it really wrote.
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
        """The `tools` of a request; none where they are offered as text."""
        if self.tools == "text":
            return []
        return [p.json for m in conversation for p in m.parts if isinstance(p, ToolSpec)]

    def text(self, message: Message) -> str:
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
            return {"role": "assistant", "content": "".join(map(self.text, messages))}
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
        """Text in one piece between images; alone, as a string, which every template takes."""
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
        return spelt_apart(text, self.controls)


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
                raise ValueError(f"it takes images and text, no {type(part).__name__}")
            if part.second is not None:
                raise ValueError("it takes no two frames in the visual tokens of one: leave pack")
            if message.role in ("system", "assistant"):
                raise ValueError(f"it takes no image in what the {message.role} says")
