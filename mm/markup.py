"""What a model writes, as parts, and back: thoughts, tool calls and the words between."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from .types import Clip, Part, Text, Thinking, ToolCall

_GAP = re.compile(r"[\s,]*")
_PIECE = re.compile(
    r"<think>(?P<thought>.*?)</think>"
    r"|<think>(?P<unfinished>.*?)(?=\n?<tool_call>|\Z)"
    r"|\n?<tool_call>(?P<call>.*?)(?:</tool_call>|\Z)",
    re.DOTALL,
)


_FUNCTION = re.compile(
    r"\s*+<function=(?P<name>[^<>\n]+)>"
    r"(?P<body>(?:\s*+<parameter=[^<>\n]+>(?:(?!<parameter=).)*?</parameter>)*)"
    r"\s*+(?:</function>\s*+)?",  # possessive: a long run of blanks is looked at once
    re.DOTALL,
)
_PARAMETER = re.compile(r"<parameter=([^<>\n]+)>\n?(.*?)\n?</parameter>", re.DOTALL)


def parse_parts(text: str, *, blanks: bool = False) -> tuple[Part, ...]:
    """The parts of an assistant's `text`, in order.

    A thought that nobody closed lasts until a tool call or the end. One that nobody opened (the
    template had) starts at the beginning. A call that is neither JSON, an object with a name and
    arguments or several of them, nor Qwen3.5's XML stays text, tags and all. Whitespace alone
    between tags is layout and is dropped, and so is the line break before a call.

    Args:
        blanks: what stands between a thought and a call, or the end, stays although it is blank.
    """
    opened, closed = text.find("<think>"), text.find("</think>")
    if closed >= 0 and not 0 <= opened < closed:
        text = "<think>" + text
    parts: list[Part] = []
    for part in _pieces(text):
        match parts[-1:], part:
            case [Text(before)], Text(after):
                parts[-1] = Text(before + after)
            case _:
                parts.append(part)
    if len(parts) > 1:
        around = zip([None, *parts], parts, [*parts[1:], None], strict=False)
        parts = [p for b, p, a in around if not _is_blank(p) or (blanks and _follows(b, a))]
    return tuple(parts)


def _is_blank(part: Part) -> bool:
    return isinstance(part, Text) and part.text.isspace()


def _follows(before: Part | None, after: Part | None) -> bool:
    """Whether what is between the two follows a thought, and nobody but a call follows it."""
    return isinstance(before, Thinking) and isinstance(after, ToolCall | None)


def render_parts(parts: Sequence[Part]) -> str:
    """The text that `parse_parts` reads as `parts`; a call begins a line, as in Qwen's templates.

    Raises:
        ValueError: one of them is not words (an image, a tool on offer).
    """
    breaks = ["\n" if at and isinstance(part, ToolCall) else "" for at, part in enumerate(parts)]
    return "".join(b + _render(part) for b, part in zip(breaks, parts, strict=True))


def render_call(call: ToolCall) -> str:
    """The call as the Qwen families write it."""
    body = json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def _render(part: Part) -> str:
    match part:
        case Text(text):
            return text
        case Thinking(text, closed):
            return f"<think>{text}{'</think>' if closed else ''}"
        case ToolCall():
            return render_call(part)
        case Clip(source):
            raise ValueError(
                f"the clip {source!r} goes to a model as frames: use the strategy uniform or watch"
            )
    raise ValueError(f"only words and calls render as text, got {type(part).__name__}")


def _pieces(text: str) -> Iterator[Part]:
    at = 0
    for found in _PIECE.finditer(text):
        if found.start() > at:
            yield Text(text[at : found.start()])
        at = found.end()
        if found["call"] is not None:
            yield from parse_calls(found["call"]) or (Text(found[0]),)
        elif found["thought"] is not None:
            yield Thinking(found["thought"])
        else:
            yield Thinking(found["unfinished"], closed=False)
    if at < len(text):
        yield Text(text[at:])


def parse_calls(body: str) -> tuple[ToolCall, ...]:
    """The calls that `body` makes, in JSON or in Qwen3.5's XML; () where it makes none.

    JSON objects may follow each other with or without commas, or stand in a list. A raw line break
    in a string is read as one.
    """
    if found := _FUNCTION.fullmatch(body):
        arguments = dict(map(_argument, _PARAMETER.finditer(found["body"])))
        return (ToolCall(found["name"], arguments),)
    try:
        values = read_values(body)
    except (ValueError, RecursionError):
        return ()
    objects = values[0] if len(values) == 1 and isinstance(values[0], list) else values
    calls = [call for each in objects if (call := read_call(each))]
    return tuple(calls) if len(calls) == len(objects) else ()


def read_values(text: str) -> list[Any]:
    """The JSON values in `text`, which follow each other with or without commas.

    Raises:
        ValueError: there is something else.
    """
    decoder, values, at = json.JSONDecoder(strict=False), [], 0
    while True:
        gap = _GAP.match(text, at)
        at = gap.end() if gap else at
        if at == len(text):
            return values
        value, at = decoder.raw_decode(text, at)
        values.append(value)


def _argument(found: re.Match[str]) -> tuple[str, Any]:
    """The name and value of an XML parameter: strings stand bare, all else is JSON."""
    name, text = found.groups()
    try:
        value = json.loads(text, parse_constant=_no_json)
    except (ValueError, RecursionError):
        return name, text
    return name, text if isinstance(value, str) else value


def _no_json(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def read_call(call: object) -> ToolCall | None:
    """The call in a JSON object, with its name and arguments; None where there is none."""
    if not isinstance(call, dict):
        return None
    name, arguments = call.get("name"), call.get("arguments", {})
    if isinstance(arguments, str):  # OpenAI servers send the arguments as a string of JSON
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return None
    if not (isinstance(name, str) and isinstance(arguments, dict)):
        return None
    return ToolCall(name, arguments)
