"""Rows that point at regions with VGR's signals, as a model with a visual memory reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby

from mm.families.registry import RECALLING
from mm.markup import render_parts
from mm.tokens.builder import TokenBuilder
from mm.types import Conversation, Features, Image, Message, Part, Text, Visual, user
from mm.vlm import Memory
from training.data import BadData, Row
from vision.replay import EOT, INSTRUCTION, MAX_TOKENS, SOT, read_signal, remembered, within

_PIECE = re.compile(f"(?<={re.escape(EOT)})")


def memory_of(builder: TokenBuilder) -> Memory:
    """The visual memory of the builder's model.

    Raises:
        BadData: it has none.
    """
    if builder.traits.memory is None:
        families = " and ".join(RECALLING)
        raise BadData(f"looks: {builder.family.name} cannot replay what it saw; {families} can")
    return builder.traits.memory


def replayed(builder: TokenBuilder, row: Row) -> Row:
    """`row` as the model meets it when it answers by `vision.replay`'s own protocol.

    An overview stands for each image of the prompt; each `<sot>[x0, y0, x1, y1]<eot>` of a
    completion, or of either side of a pair, is followed by that region of the first image, from
    memory. A signal that cannot be read, or whose region was shown before, is followed by nothing.
    The prompt gets the instruction how to point, unless the row has one.
    """
    shown = [image for message in row.messages for image in message.images]
    points = [_points(message) for message in row.messages]
    pointing = any(points) or any(map(_points, (*row.chosen, *row.rejected)))
    if not (shown and pointing):
        return row
    known: list[Features] = []
    meets = partial(_met, builder, shown[0])
    messages = meets(row.messages, known)
    chosen, rejected = (meets(side, list(known)) for side in (row.chosen, row.rejected))
    found = replace(row, messages=messages, chosen=chosen, rejected=rejected)
    if any(SOT in message.text for message in row.messages if message.role == "user"):
        return found
    return _told(found, [*points, True].index(True))


def _met(
    builder: TokenBuilder, image: Image, messages: Conversation, known: list[Features]
) -> Conversation:
    """`messages` with what `image` shows where they point; adds that to `known`."""
    met: list[Message] = []
    for message in messages:
        if message.role == "user":
            met += remembered((message,), memory_of(builder))
        elif _points(message):
            met.append(_answered(builder, message, image, known))
        else:
            met.append(message)
    return tuple(met)


def _told(row: Row, at: int) -> Row:
    """`row` with the instruction how to point before its message `at`."""
    messages = (*row.messages[:at], user(INSTRUCTION), *row.messages[at:])
    untrained = frozenset(i + (i >= at) for i in row.untrained)
    return replace(row, messages=messages, untrained=untrained)


def _points(message: Message) -> bool:
    text = [part for part in message.parts if not isinstance(part, Visual)]
    return message.role == "assistant" and EOT in render_parts(text)


def _answered(
    builder: TokenBuilder, message: Message, image: Image, known: list[Features]
) -> Message:
    """`message` with each region that it points at after its signal; adds them to `known`."""
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
