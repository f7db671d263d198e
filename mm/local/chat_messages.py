"""Conversations as a checkpoint's own chat template takes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from mm.markup import render_parts
from mm.tokens.escaping import spelt_apart
from mm.tokens.turn_grouping import grouped, observed, system_text
from mm.types import Conversation, Image, Message, Part, Role, Text, ToolCall, ToolSpec

Json = dict[str, Any]

FORMS: tuple[frozenset[Role], ...] = (
    frozenset({"system", "user", "assistant", "tool"}),
    frozenset({"system", "assistant"}),
    frozenset({"system"}),
    frozenset({"assistant"}),
    frozenset(),
    frozenset({"system", "user", "tool"}),
    frozenset({"user", "assistant", "tool"}),
    frozenset({"user", "tool"}),
)
"""Roles whose words are given as a string and not as blocks, in the order tried: templates differ
in what they take. The first in which no words are lost is taken."""

_SHOWN = "{'type': 'text'"  # a list of blocks that a template took for a string


def calls_tools(template: str | None) -> bool:
    """Whether a chat template offers tools and writes calls that `parse_parts` reads.

    Those are the calls inside <tool_call>, with a JSON object or with Qwen3.5's XML; GLM-4.5V's
    <arg_key> is not read.
    """
    text = template or ""
    return "<tool_call>" in text and "tools" in text and "<arg_key>" not in text


@dataclass(frozen=True)
class ChatMessages:
    """How conversations are put to one chat template.

    Attributes:
        controls: spellings that the tokenizer would take for special tokens.
        native_tools: whether the template itself writes tools, calls and answers; else they stand
            in the text, as Qwen3-VL's template writes them.
    """

    controls: re.Pattern[str]
    native_tools: bool = False

    def messages(self, conversation: Conversation) -> list[Json]:
        """The template's `messages`, of blocks; user and assistant take turns."""
        turns = grouped(conversation, alternates=True)
        return [m for role, numbered in turns for m in self._turn(role, [m for _, m in numbered])]

    def tools(self, conversation: Conversation) -> list[Json] | None:
        """The template's `tools`; None where there are none, or they stand in the text."""
        offered = [p.json for m in conversation for p in m.parts if isinstance(p, ToolSpec)]
        return offered if offered and self.native_tools else None

    def folded(self, conversation: Conversation) -> Conversation:
        """The conversation with its system text at the head of the first user's message."""
        system = [m for m in conversation if m.role == "system"]
        others = [m for m in conversation if m.role != "system"]
        if not (text := self._system_text(system)):
            return conversation
        return (Message("user", (Text(text + "\n\n"),)), *others)

    def spelt(self, parts: Sequence[Part]) -> str:
        """The text of `parts`, in which no special token is spelt."""
        return spelt_apart(render_parts(parts), self.controls)

    def _turn(self, role: Role, messages: Sequence[Message]) -> list[Json]:
        if role == "system":
            text = self._system_text(messages)
            return [{"role": role, "content": self._content([Text(text)])}] if text else []
        if not self.native_tools:
            parts = [part for message in messages for part in observed(message).parts]
            return [{"role": role, "content": self._content(parts)}]
        if role == "assistant":
            return [self._assistant([part for message in messages for part in message.parts])]
        said: list[Json] = []
        for whose, run in groupby(messages, key=lambda message: message.role):
            answers = [list(message.parts) for message in run]
            joined = answers if whose == "tool" else [[p for parts in answers for p in parts]]
            said += [{"role": whose, "content": self._content(parts)} for parts in joined]
        return said

    def _system_text(self, messages: Sequence[Message]) -> str:
        if self.native_tools:
            return "\n\n".join(m.text for m in messages if m.text)
        return system_text(messages)

    def _assistant(self, parts: Sequence[Part]) -> Json:
        calls = [part for part in parts if isinstance(part, ToolCall)]
        content = self._content([part for part in parts if not isinstance(part, ToolCall)])
        made = [
            {"type": "function", "function": {"name": c.name, "arguments": dict(c.arguments)}}
            for c in calls
        ]
        return {"role": "assistant", "content": content, **({"tool_calls": made} if made else {})}

    def _content(self, parts: Sequence[Part]) -> list[Json]:
        """Blocks of images and of text; texts that touch are one, since some templates read only
        the first."""
        blocks: list[Json] = []
        for seen, run in groupby(parts, key=lambda part: isinstance(part, Image)):
            if seen:
                images = [part for part in run if isinstance(part, Image)]
                blocks += [{"type": "image", "image": image.pixels} for image in images]
            else:
                blocks.append({"type": "text", "text": self.spelt(tuple(run))})
        return blocks


def bared(messages: Sequence[Json], roles: Collection[Role]) -> list[Json]:
    """`messages` where the words of `roles` stand as a string, but for those beside images."""
    return [_bare(message) if message["role"] in roles else message for message in messages]


def shape(messages: Sequence[Json]) -> str:
    """All that `lost` depends on: whatever the words, a template loses the same of a shape."""
    blocks = [
        [(block["type"], bool(block.get("text"))) for block in message["content"]]
        for message in messages
    ]
    return repr(
        [(m["role"], b, m.get("tool_calls")) for m, b in zip(messages, blocks, strict=True)]
    )


def lost(messages: Sequence[Json], render: Callable[[list[Json]], str]) -> int:
    """How many texts of `messages` do not stand in what a template makes of them.

    Found out with a word of its own for each, since a short text stands anywhere by chance, and a
    thought may be left out on purpose.
    """
    words: list[str] = []

    def word(text: str) -> str:
        words.extend([f"mm{len(words)}mm"] if text else [])
        return words[-1] if text else ""

    rendered = render([_with_texts(message, word) for message in messages])
    return sum(each not in rendered for each in words) + rendered.count(_SHOWN)


def _with_texts(message: Json, change: Callable[[str], str]) -> Json:
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": change(content)}
    blocks = [{**b, "text": change(b["text"])} if "text" in b else b for b in content]
    return {**message, "content": blocks}


def _bare(message: Json) -> Json:
    """A message whose content is a string, where it has no image."""
    if any(block["type"] != "text" for block in message["content"]):
        return message
    return {**message, "content": "".join(block["text"] for block in message["content"])}
