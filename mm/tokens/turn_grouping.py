"""Messages as chat templates take them: tools as system text, a tool's answer as the user's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import groupby

from mm.types import Message, Role, Text, ToolSpec

_OFFER = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>",
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    'within <tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": '
    "<args-json-object>}\n</tool_call>",
)

Numbered = tuple[int, Message]
"""A message with its index in the conversation."""

Turn = tuple[Role, list[Numbered]]
"""Messages that share a turn, and whose turn it is."""


def system_text(messages: Iterable[Message], default: str = "") -> str:
    """The text of system messages together, then the tools they offer as Qwen3-VL lists them.

    `default` stands where they bring no text of their own.
    """
    parts = [part for message in messages for part in message.parts]
    blocks = [p.text for p in parts if isinstance(p, Text) and p.text] or [default]
    tools = [p.json for p in parts if isinstance(p, ToolSpec)]
    if tools:
        listed = "".join("\n" + json.dumps(tool, ensure_ascii=False) for tool in tools)
        blocks.append(listed.join(_OFFER))
    return "\n\n".join(block for block in blocks if block)


def observed(message: Message) -> Message:
    """A tool's answer as the user says it; anybody else's message as it is."""
    if message.role != "tool":
        return message
    begin, end = Text("<tool_response>\n"), Text("\n</tool_response>")
    return Message("user", (begin, *message.parts, end))


def grouped(conversation: Sequence[Message], *, alternates: bool) -> list[Turn]:
    """The turns of a conversation.

    Messages of the same role in a row share one, but a user's only where turns must alternate;
    there they share it with a tool's too.
    """
    turns: list[Turn] = []
    for _, run in groupby(enumerate(conversation), key=lambda numbered: numbered[1].role):
        messages = list(run)
        role = messages[0][1].role
        whose: Role = "user" if role == "tool" else role
        if alternates and turns and turns[-1][0] == whose == "user":
            turns[-1][1].extend(messages)
        elif role == "user" and not alternates:
            turns.extend((whose, [m]) for m in messages)
        else:
            turns.append((whose, messages))
    return turns
