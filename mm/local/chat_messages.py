"""Conversations as a checkpoint's own chat template takes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from mm.markup import render_parts
from mm.tokens.escaping import spelt_apart
from mm.tokens.turn_grouping import grouped, observed, system_text
from mm.types import Conversation, Image, Message, Part, Role, Text, ToolCall, ToolSpec

Json = dict[str, Any]


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
        """The template's `messages`; user and assistant take turns."""
        turns = grouped(conversation, alternates=True)
        said = [self._turn(role, [m for _, m in numbered]) for role, numbered in turns]
        return [message for messages in said for message in messages]

    def tools(self, conversation: Conversation) -> list[Json] | None:
        """The template's `tools`; None where there are none, or they stand in the text."""
        offered = [p.json for m in conversation for p in m.parts if isinstance(p, ToolSpec)]
        return offered if offered and self.native_tools else None

    def _turn(self, role: Role, messages: Sequence[Message]) -> list[Json]:
        if role == "system":
            return self._system(messages)
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

    def _system(self, messages: Sequence[Message]) -> list[Json]:
        text = system_text(messages)
        if self.native_tools:
            text = "\n\n".join(m.text for m in messages if m.text)
        return [{"role": "system", "content": self._content([Text(text)])}] if text else []

    def _assistant(self, parts: Sequence[Part]) -> Json:
        calls = [part for part in parts if isinstance(part, ToolCall)]
        content = self._content([part for part in parts if not isinstance(part, ToolCall)])
        made = [
            {"type": "function", "function": {"name": c.name, "arguments": dict(c.arguments)}}
            for c in calls
        ]
        return {"role": "assistant", "content": content, **({"tool_calls": made} if made else {})}

    def _content(self, parts: Sequence[Part]) -> list[Json]:
        return [self._part(part) for part in parts]

    def _part(self, part: Part) -> Json:
        if isinstance(part, Image):
            return {"type": "image", "image": part.pixels}
        return {"type": "text", "text": spelt_apart(render_parts([part]), self.controls)}


def system_folded(conversation: Conversation) -> Conversation:
    """The conversation with its system text at the head of the first user's message."""
    system = [m for m in conversation if m.role == "system"]
    others = [m for m in conversation if m.role != "system"]
    if not system:
        return conversation
    return (Message("user", (Text(system_text(system) + "\n\n"),)), *others)
