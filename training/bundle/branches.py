"""Rows made of whole conversations: what they share stands once, and what follows it branches off.

A row is a prefix and segments that go on from it, or from each other (`Segment.parent`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from PIL import Image as Pil

from mm.tokens.builder import TokenBuilder
from mm.types import Conversation, Image, Message

from .packing import Segment
from .shards import overview

Row = tuple[list[Segment], list[str]]
"""Segments, and what each asks; "" for what asks nothing."""


def segment_of(
    builder: TokenBuilder, talk: Conversation, views: Sequence[Pil.Image] | None = None
) -> Segment:
    """The tokens of a conversation up to the last that trains, or the last image of a prefix.

    `views` are what its images look like; None for themselves, made small.
    """
    tokens = builder.build(talk, open_turn=False)
    trains = [i for i, trained in enumerate(tokens.trained) if trained]
    stop = trains[-1] + 1 if trains else tokens.images[-1].stop + 1
    seen = _views(talk) if views is None else views
    shown = zip([span.start for span in tokens.images], map(np.asarray, seen), strict=True)
    return Segment(tokens.ids[:stop], tokens.trained[:stop], tuple(shown))


def branched(
    builder: TokenBuilder,
    talk: Conversation,
    asides: Sequence[Conversation],
    *,
    prefix: Segment,
    number: int,
    silent: int | None = None,
) -> tuple[list[Segment], list[Segment]]:
    """What follows `prefix` in `talk`, cut where `asides` part from it, and what follows in those.

    Args:
        talk: a conversation that begins with the prefix.
        asides: conversations that begin as `talk` does, and end otherwise.
        number: that of the first of the segments in its row.
        silent: until the aside of this index parts from it, nothing in `talk` trains.
    """
    whole = segment_of(builder, talk)
    ends = [segment_of(builder, aside) for aside in asides]
    parts_at = [_shared(whole.ids, end.ids) for end in ends]
    cuts = sorted({len(prefix.ids), *parts_at, len(whole.ids)})
    quiet = 0 if silent is None else parts_at[silent]
    pieces = [
        replace(_between(whole, start, stop, quiet=stop <= quiet), parent=number + k - 1)
        for k, (start, stop) in enumerate(pairwise(cuts))
    ]
    pieces[0] = replace(pieces[0], parent=0)
    parents = {len(prefix.ids): 0, **{cut: number + k for k, cut in enumerate(cuts[1:])}}
    others = [
        replace(_between(end, at, len(end.ids)), parent=parents[at])
        for end, at in zip(ends, parts_at, strict=True)
    ]
    return pieces, others


def _shared(ids: Sequence[int], others: Sequence[int]) -> int:
    """How many tokens two conversations begin with in common."""
    pairs = zip(ids, others, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ids), len(others)))


def _between(whole: Segment, start: int, stop: int, *, quiet: bool = False) -> Segment:
    trained = (False,) * (stop - start) if quiet else whole.trained[start:stop]
    views = tuple((at - start, view) for at, view in whole.views if start <= at < stop)
    return Segment(whole.ids[start:stop], trained, views)


def fits(
    row: Row, segments: Sequence[Segment], kinds: Sequence[str], *, tokens: int, views: int
) -> bool:
    """Whether the segments, and what each asks, still fit into the row; if so they are added."""
    every = [*row[0], *segments]
    if sum(len(s.ids) for s in every) > tokens or sum(len(s.views) for s in every) > views:
        return False
    row[0].extend(segments)
    row[1].extend(kinds)
    return True


def _views(talk: Conversation) -> list[Pil.Image]:
    return [view for said in talk for view in _seen_in(said)]


def _seen_in(said: Message) -> list[Pil.Image]:
    return [overview(part.pixels) for part in said.parts if isinstance(part, Image)]
