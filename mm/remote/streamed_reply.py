"""A reply as it comes back in chunks: all of it as the text that a model writes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mm.errors import ModelError
from mm.types import Finish
from mm.vlm import OnToken

from .responses import DONE, Json

_HALVES = re.compile("[\ud800-\udfff]")
_LENGTH = ("length", "max_tokens")
_FAILED = ("error", "abort", "content_filter", "insufficient_system_resource")
"""Reasons to finish that leave no whole reply."""


class StreamedReply:
    """What a server has sent of one reply.

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
        self._half = ""  # of a character that was cut between two chunks
        self._calls = CallDeltas()

    @property
    def tokens(self) -> int:
        """How many tokens the model wrote, by the server's count where it gave one."""
        return whole(self.usage.get("completion_tokens")) or len(self.logprobs) or self._pieces

    def hear(self, chunk: Json) -> bool:
        """Take the next chunk; True where a stop string has ended the reply.

        Raises:
            ModelError: the server ended the reply for a reason that leaves it in pieces.
        """
        if chunk is DONE:  # not every server gives a reason
            self.finish = self.finish or "stop"
            return False
        self.usage = _object(chunk.get("usage")) or self.usage
        for choice in map(_object, _list(chunk.get("choices"))[:1]):
            delta = _object(choice.get("delta")) or _object(choice.get("message"))
            if self._hear_delta(delta, _logprobs(choice)):
                self.finish = "stop"
                return True
            self._hear_reason(choice.get("finish_reason"))
        return False

    def end(self) -> None:
        """Nothing more comes: close what is open."""
        if self._thinks and self.finish == "stop":
            self._think(False)
        for name, arguments in self._calls.take():
            body = f'{{"name": {json.dumps(name)}, "arguments": {arguments or "{}"}}}'
            self._write(f"{chr(10) if self.text else ''}<tool_call>\n{body}\n</tool_call>")

    def _hear_reason(self, reason: object) -> None:
        if not reason or not isinstance(reason, str):
            return
        if reason.lower() in _FAILED:
            raise ModelError(f"the server ended its reply early: {reason}")
        self.finish = "length" if reason.lower() in _LENGTH else "stop"

    def _hear_delta(self, delta: Json, logprobs: list[tuple[str, float]]) -> bool:
        """Add a piece of the reply; True where a stop string ended it."""
        before = len(self.text)
        ended = wrote = False
        for thinks, piece in _pieces(delta):
            self._think(thinks)
            wrote = True
            if ended := self._write(piece):
                break
        for call in _list(delta.get("tool_calls")):
            self._calls.add(_object(call))
        self._pieces += wrote
        self._count(logprobs, len(self.text) - before if ended else None)
        return ended

    def _think(self, thinks: bool) -> None:
        if thinks != self._thinks:
            self._thinks = thinks
            self._write("<think>" if thinks else "</think>")

    def _write(self, piece: str) -> bool:
        """Add `piece`, up to the end of the first stop string; True where there is one."""
        piece = self._joined(piece)
        begin = max(0, len(self.text) - max(map(len, self._stop), default=0))
        written = self.text + piece
        found = [at + len(s) for s in self._stop if (at := written.find(s, begin)) >= 0]
        piece = written[len(self.text) : min(found, default=len(written))]
        self.text += piece
        if piece and self._on_token:
            self._on_token(piece)
        return bool(found)

    def _joined(self, piece: str) -> str:
        """`piece` with the half of a character that came before it, without one at its end."""
        piece, self._half = self._half + piece, ""
        if not _HALVES.search(piece):
            return piece
        if _HALVES.fullmatch(piece[-1]) and piece[-1] < "\udc00":
            piece, self._half = piece[:-1], piece[-1]
        return piece.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _count(self, logprobs: list[tuple[str, float]], letters: int | None) -> None:
        """Keep the log-probabilities of a chunk's tokens, or of those that make its `letters`."""
        for token, value in logprobs:
            if letters is not None and letters <= 0:
                break
            self.logprobs.append(value)
            letters = None if letters is None else letters - len(token)


@dataclass
class _Call:
    index: int | None
    id: str = ""
    name: str = ""
    arguments: str = ""

    @property
    def whole(self) -> bool:
        try:
            return isinstance(json.loads(self.arguments), dict)
        except (ValueError, RecursionError):
            return False


class CallDeltas:
    """Tool calls assembled from their deltas, in the order they began.

    By OpenAI's rule a delta belongs to the call with its `index`. Other servers leave the index
    out, or number every call 0; there a call begins with a name or an id that the last one has not.
    """

    def __init__(self) -> None:
        self._calls: list[_Call] = []

    def add(self, delta: Json) -> None:
        """Take the next delta of some call."""
        function = _object(delta.get("function"))
        arguments = function.get("arguments")
        if not isinstance(arguments, str | None):  # themselves, in place of their JSON
            arguments = json.dumps(arguments, ensure_ascii=False)
        index = delta.get("index")
        new = _Call(
            index if isinstance(index, int) else None,
            _string(delta.get("id")),
            _string(function.get("name")),
            arguments or "",
        )
        call = self._continued(new)
        if call is None:
            self._calls.append(new)
            return
        call.id = call.id or new.id
        call.name = call.name or new.name  # some servers repeat it in each delta
        call.arguments += new.arguments

    def take(self) -> Iterator[tuple[str, str]]:
        """The name and the arguments, as JSON, of each call; they are forgotten."""
        calls, self._calls = self._calls, []
        return ((call.name, call.arguments) for call in calls)

    def _continued(self, new: _Call) -> _Call | None:
        """The call that `new` is a piece of; None where it begins one."""
        begun = [call for call in reversed(self._calls) if call.index == new.index]
        named = next((call for call in begun if new.id and call.id == new.id), None)
        last = named or next(iter(begun), None)
        return None if last is None or _begins(last, new) else last


def _begins(last: _Call, new: _Call) -> bool:
    """Whether `new` begins another call than `last`."""
    if new.id and new.id == last.id:  # for some servers a call's id is its function's name
        return last.whole and bool(new.name and new.arguments)
    if new.id and last.id and (last.whole or (new.name and last.name)):
        return True
    return bool(new.name and last.name) and (new.name != last.name or last.whole)


def _pieces(delta: Json) -> Iterator[tuple[bool, str]]:
    """What a delta says, each piece with whether it is a thought."""
    if thought := _text(delta.get("reasoning")) or _text(delta.get("reasoning_content")):
        yield True, thought
    content = delta.get("content") or delta.get("refusal")
    for part in content if isinstance(content, list) else [content]:
        inner = _object(part)
        if thought := _text(inner.get("thinking")):  # Mistral's
            yield True, thought
        elif said := _text(part):
            yield False, said


def _text(value: object) -> str:
    """The text of a string, of a part {"text": ...} or of several of them."""
    if isinstance(value, list):
        return "".join(map(_text, value))
    return _string(_object(value).get("text", value))


def _logprobs(choice: Json) -> list[tuple[str, float]]:
    """Tokens and their log-probabilities, where the server gives them."""
    entries = map(_object, _list(_object(choice.get("logprobs")).get("content")))
    found = [(_string(e.get("token")), e.get("logprob")) for e in entries]
    return [(t, float(v)) for t, v in found if isinstance(v, int | float) and not math.isnan(v)]


def whole(value: object) -> int:
    """A count that a server gave; 0 where it is none."""
    return value if isinstance(value, int) and value > 0 else 0


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""
