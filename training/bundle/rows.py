"""Training rows of the language stage: one picture, many questions, none of which sees another.

A row is a prefix (the picture, after what the system says) and branches that go on from it, each a
question with its looks and answer. A branch attends to the prefix and to itself, and its positions
start where the prefix ends, so that it is trained exactly as if it stood alone, while the picture
is read once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image as Pil
from torch import Tensor

from mm.strategies import THINK
from mm.tokens import TokenBuilder
from mm.types import Image, Message, assistant, message, user
from training.bundle.shards import BOX_GRID, VIEW, Views
from training.bundle.vocabulary import CAPTION
from training.tabletop.questions import ask
from training.tabletop.traces import answered, caption, solved, thought
from vision.call import ZOOM_TOOL

ROW_TOKENS = 256
SIDE_TOKENS = 4
"""A view has this many visual tokens along each side."""

_BLANK = Image(Pil.new("RGB", (VIEW, VIEW)))
_SYSTEM: dict[str, tuple[Message, ...]] = {
    "direct": (),
    "zoom": (message("system", ZOOM_TOOL),),
    "think": (message("system", THINK),),
}

MIX: dict[str, tuple[tuple[str, float], ...]] = {
    "direct": (
        ("caption", 0.2),
        ("colour", 0.18),
        ("count", 0.34),
        ("locate", 0.22),
        ("read", 0.03),
        ("same", 0.03),
    ),
    "zoom": (
        ("read", 0.3),
        ("same", 0.33),
        ("search", 0.08),
        ("colour", 0.07),
        ("count", 0.14),
        ("locate", 0.08),
    ),
    "think": (("colour", 0.25), ("count", 0.35), ("locate", 0.2), ("read", 0.1), ("same", 0.1)),
}
"""What is asked under each system message, with its share of the questions."""

MODES = (("direct", 0.4), ("zoom", 0.52), ("think", 0.08))


@dataclass(frozen=True)
class Segment:
    """A piece of a row: ids, which of them train, and where views begin (offset, view)."""

    ids: tuple[int, ...]
    trained: tuple[bool, ...]
    views: tuple[tuple[int, np.ndarray], ...]


class Batch(NamedTuple):
    """B rows of T tokens and N views.

    Attributes:
        ids: (B, T).
        positions: (3, B, T), of time, height and width.
        segments: (B, T): 0 for the prefix, then a number per branch, -1 for padding.
        trained: (B, T).
        views: (N, VIEW, VIEW, 3) uint8.
        slots: (N * 16,) where each visual token goes, as an index into the B * T tokens; B * T for
            no place.
        kinds: (B, T): the index in KINDS of what the token's branch asks.
    """

    ids: Tensor
    positions: Tensor
    segments: Tensor
    trained: Tensor
    views: Tensor
    slots: Tensor
    kinds: Tensor


KINDS = ("caption", "colour", "count", "locate", "read", "same", "search")


class RowMaker:
    """Makes rows for one vocabulary."""

    def __init__(self, builder: TokenBuilder) -> None:
        self._builder = builder
        self._prefixes = {
            mode: builder.build((*system, user(_BLANK)), open_turn=False)
            for mode, system in _SYSTEM.items()
        }

    def prefix(self, mode: str, views: Views) -> Segment:
        """What the system says, and the picture."""
        tokens = self._prefixes[mode]
        (span,) = tokens.images
        end = span.stop + 1
        return Segment(tokens.ids[:end], tokens.trained[:end], ((span.start, views.overview),))

    def branch(self, mode: str, kind: str, views: Views, rng: random.Random) -> Segment | None:
        """A question of `kind` about the scene; None when the scene admits none."""
        conversation = _conversation(mode, kind, views, rng)
        if conversation is None:
            return None
        messages, crops = conversation
        tokens = self._builder.build((*_SYSTEM[mode], *messages), open_turn=False)
        start = self._prefixes[mode].images[0].stop + 1
        stop = max(i for i, t in enumerate(tokens.trained) if t) + 1
        shown = zip(tokens.images[1:], crops, strict=True)
        return Segment(
            tokens.ids[start:stop],
            tokens.trained[start:stop],
            tuple((span.start - start, crop) for span, crop in shown),
        )

    def row(
        self, views: Views, mode: str, rng: random.Random, room: int
    ) -> tuple[list[Segment], list[str]]:
        """Prefix and branches that fit into ROW_TOKENS tokens and `room` views, and what each
        asks."""
        prefix = self.prefix(mode, views)
        segments = [prefix]
        kinds, used, room = [""], len(prefix.ids), room - 1
        names, shares = [name for name, _ in MIX[mode]], [share for _, share in MIX[mode]]
        misses = 0
        while misses < 3:
            (kind,) = rng.choices(names, shares)
            segment = self.branch(mode, kind, views, rng)
            if segment and used + len(segment.ids) <= ROW_TOKENS and len(segment.views) <= room:
                segments.append(segment)
                kinds.append(kind)
                used, room = used + len(segment.ids), room - len(segment.views)
            else:
                misses += 1
        return segments, kinds


def _conversation(
    mode: str, kind: str, views: Views, rng: random.Random
) -> tuple[Sequence[Message], Sequence[np.ndarray]] | None:
    scene = views.scene
    if kind == "caption":
        return (user(_BLANK, CAPTION), assistant(caption(scene, BOX_GRID))), ()
    question = ask(kind, scene, rng)
    if question is None:
        return None
    if mode == "think":
        return thought(scene, question, _BLANK, step=BOX_GRID), ()
    if mode == "zoom" and question.looks:
        blanks = [_BLANK] * len(scene.things)
        messages = solved(scene, question, _BLANK, blanks, step=BOX_GRID)
        return messages, [views.crops[i] for i in question.looks]
    return answered(scene, question, _BLANK, step=BOX_GRID), ()


def make_batch(
    maker: RowMaker, pick: Callable[[], Views], rng: random.Random, rows: int, views: int
) -> Batch:
    """`rows` rows with at most `views` views in all; the missing ones are black and go nowhere."""
    modes, shares = [mode for mode, _ in MODES], [share for _, share in MODES]
    made: list[tuple[list[Segment], list[str]]] = []
    left = views
    for k in range(rows):
        room = left - (rows - k - 1)
        (mode,) = rng.choices(modes, shares) if room >= 3 else ("direct",)
        row = maker.row(pick(), mode, rng, room)
        left -= sum(len(s.views) for s in row[0])
        made.append(row)
    return _collate(made, views)


def _collate(rows: Sequence[tuple[list[Segment], list[str]]], views: int) -> Batch:
    count = len(rows)
    ids = np.zeros((count, ROW_TOKENS), np.int64)
    positions = np.zeros((3, count, ROW_TOKENS), np.int64)
    segments = np.full((count, ROW_TOKENS), -1, np.int64)
    trained = np.zeros((count, ROW_TOKENS), bool)
    kinds = np.full((count, ROW_TOKENS), -1, np.int64)
    pictures = np.zeros((views, VIEW, VIEW, 3), np.uint8)
    slots = np.full((views, SIDE_TOKENS**2), count * ROW_TOKENS, np.int64)
    shown = 0
    for b, (row, asked) in enumerate(rows):
        at, prefix_end = 0, 0
        for number, (segment, kind) in enumerate(zip(row, asked, strict=True)):
            where = slice(at, at + len(segment.ids))
            ids[b, where], trained[b, where], segments[b, where] = (
                segment.ids,
                segment.trained,
                number,
            )
            kinds[b, where] = KINDS.index(kind) if kind else -1
            starts = [start for start, _ in segment.views]
            positions[:, b, where], end = _positions(len(segment.ids), starts, prefix_end)
            prefix_end = end if number == 0 else prefix_end
            for start, view in segment.views:
                pictures[shown] = view
                slots[shown] = b * ROW_TOKENS + at + start + np.arange(SIDE_TOKENS**2)
                shown += 1
            at += len(segment.ids)
    arrays = (ids, positions, segments, trained, pictures, slots.reshape(-1), kinds)
    return Batch(*(torch.from_numpy(a) for a in arrays))


def _positions(length: int, views: Sequence[int], first: int) -> tuple[np.ndarray, int]:
    """Positions (3, length) from `first` on, and the next one: a view of n x n tokens advances them
    by n."""
    positions = np.zeros((3, length), np.int64)
    at, value = 0, first
    for start in [*views, length]:
        positions[:, at:start] = value + np.arange(start - at)
        value += start - at
        if start == length:
            break
        rows, columns = np.divmod(np.arange(SIDE_TOKENS**2), SIDE_TOKENS)
        positions[:, start : start + SIDE_TOKENS**2] = value + np.stack([rows * 0, rows, columns])
        at, value = start + SIDE_TOKENS**2, value + SIDE_TOKENS
    return positions, value
