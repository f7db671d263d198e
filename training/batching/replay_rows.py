"""Rows that point at regions with VGR's signals, as a model reads them that replays what it saw."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from mm.families.registry import RECALLING
from mm.markup import render_parts
from mm.tokens.builder import TokenBuilder
from mm.types import Features, Image, Message, Part, Text, Visual, user
from mm.vlm import Memory
from training.data import BadData, Row
from vision.replay import EOT, INSTRUCTION, MAX_TOKENS, SOT, read_signal, remembered, within

_PIECE = re.compile(f"(?<={re.escape(EOT)})")


def memory_of(builder: TokenBuilder) -> Memory:
    """How the builder's model remembers pictures.

    Raises:
        BadData: it does not.
    """
    if builder.traits.memory is None:
        families = " and ".join(RECALLING)
        raise BadData(f"looks: {builder.family.name} cannot replay what it saw; {families} can")
    return builder.traits.memory


def replayed(builder: TokenBuilder, row: Row) -> Row:
    """`row` as the model meets it when it answers by `vision.replay`'s own protocol.

    An overview stands for each picture that is asked about; after each `<sot>[x0, y0, x1, y1]<eot>`
    of a reply stands that region of the first one, from memory. A signal that cannot be read, or
    was shown before, is followed by nothing. Who asks says how to point, unless the row does.
    """
    shown = [image for message in row.messages for image in message.images]
    points = [_points(message) for message in row.messages]
    if not (shown and any(points)):
        return row
    known: list[Features] = []
    messages: list[Message] = []
    for message in row.messages:
        if message.role == "user":
            messages += remembered((message,), memory_of(builder))
        elif _points(message):
            messages.append(_answered(builder, message, shown[0], known))
        else:
            messages.append(message)
    if any(SOT in message.text for message in row.messages if message.role == "user"):
        return replace(row, messages=tuple(messages))
    at = points.index(True)
    messages.insert(at, user(INSTRUCTION))
    untrained = frozenset(i + (i >= at) for i in row.untrained)
    return replace(row, messages=tuple(messages), untrained=untrained)


def _points(message: Message) -> bool:
    words = [part for part in message.parts if not isinstance(part, Visual)]
    return message.role == "assistant" and EOT in render_parts(words)


def _answered(
    builder: TokenBuilder, message: Message, image: Image, known: list[Features]
) -> Message:
    """`message` with each region that it points at behind its signal; adds them to `known`."""
    parts: list[Part] = []
    for seen, run in groupby(message.parts, key=lambda part: isinstance(part, Visual)):
        if seen:
            parts += run
            continue
        for piece in _PIECE.split(render_parts(tuple(run))):
            parts += [Text(piece)] if piece else []
            parts += _recalled(builder, piece, image, known)
    return Message(message.role, tuple(parts))


def _recalled(
    builder: TokenBuilder, piece: str, image: Image, known: list[Features]
) -> Sequence[Features]:
    region = read_signal(piece.rstrip()) if piece.endswith(EOT) else None
    if region is None:
        return ()
    found = Features(image, region, memory_of(builder).replay)
    found = within(found, MAX_TOKENS, builder.feature_tokens)
    if found in known:
        return ()
    known.append(found)
    return (found,)
