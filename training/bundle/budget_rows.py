"""Training rows of the extend stage: one look at an image of more visual tokens, and questions."""

from __future__ import annotations

import random

import numpy as np

from mm.tokens.builder import TokenBuilder
from mm.types import user

from .branches import Row, fits
from .enlarged import SIDES, Enlarged
from .packing import Segment
from .rows import BLANK, RowMaker
from .shards import Shards

MIX = (("read", 0.45), ("same", 0.2), ("colour", 0.1), ("count", 0.15), ("locate", 0.1))
"""What is asked, with its share."""

ROOM = 240
"""Tokens of the questions of a row."""

ROWS = {8: 24, 12: 20, 24: 9}
"""Rows of a batch, by visual tokens along a side."""


def budget_row(
    maker: RowMaker,
    builder: TokenBuilder,
    shards: Shards,
    enlarged: Enlarged,
    side: int,
    rng: random.Random,
) -> Row:
    """A scene in `side` x `side` visual tokens, and questions that are answered at once."""
    index = rng.randrange(min(len(enlarged), len(shards)))
    row: Row = ([_prefix(builder, enlarged.seen(side, index))], [""])
    names, shares = [name for name, _ in MIX], [share for _, share in MIX]
    misses = 0
    while misses < 3:
        (kind,) = rng.choices(names, shares)
        branch = maker.branch("direct", kind, shards[index], rng)
        kinds = [f"{side * side} {kind}"]
        added = branch and fits(row, [branch], kinds, tokens=length(side), views=0)
        misses += not added
    return row


def length(side: int) -> int:
    """Tokens of a row whose image has `side` x `side` visual tokens."""
    return side * side + ROOM


def any_side(rng: random.Random) -> int:
    """One of the budgets."""
    return rng.choice(SIDES)


def _prefix(builder: TokenBuilder, seen: np.ndarray) -> Segment:
    """What stands before a question about an image that is encoded as `seen`."""
    tokens = builder.build((user(BLANK),), open_turn=False)
    (image,) = tokens.images
    before, behind = tokens.ids[: image.start], tokens.ids[image.stop : image.stop + 1]
    ids = (*before, *(builder.placeholder_id,) * (len(seen) * len(seen)), *behind)
    return Segment(ids, (False,) * len(ids), (), ((image.start, seen),))
