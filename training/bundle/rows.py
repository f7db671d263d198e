"""Training rows of the language stage: one image, many questions, none of which sees another.

A row is a prefix (the image, after what the system says) and branches that go on from it, each a
question with its looks and answer. A branch attends to the prefix and to itself, and its positions
start where the prefix ends, so that it is trained exactly as if it stood alone, while the image
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

from mm.geometry import Region
from mm.strategies.single import THINK
from mm.tokens.builder import TokenBuilder
from mm.tokens.sequence import ImageSpan
from mm.types import Features, Image, Message, Part, assistant, message, user
from training.tabletop.clip_questions import CLIP_TASKS
from training.tabletop.questions import ask
from training.tabletop.scene import SIDE
from training.tabletop.traces import answered, caption, solved, thought
from vision.zoom_tool import ZOOM_TOOL

from .shards import BOX_GRID, VIEW, Views, asked_box
from .vocabulary import CAPTION

ROW_TOKENS = 256
FULL_TOKENS = 832
"""The length of rows that hold a whole memory."""

SIDE_TOKENS = 4
"""A view has this many visual tokens along each side."""

_BLANK = Image(Pil.new("RGB", (VIEW, VIEW)))
_WHOLE = Image(Pil.new("RGB", (SIDE, SIDE)))
_SYSTEM: dict[str, tuple[Message, ...]] = {
    "direct": (),
    "zoom": (message("system", ZOOM_TOOL),),
    "think": (message("system", THINK),),
    "replay": (message("system", ZOOM_TOOL),),
    "full": (),
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
    "replay": (("read", 0.4), ("same", 0.45), ("search", 0.15)),
    "full": (("read", 0.6), ("same", 0.3), ("colour", 0.1)),
}
"""What is asked under each system message, with its share of the questions."""

Modes = Sequence[tuple[str, float]]
MODES: Modes = (("direct", 0.4), ("zoom", 0.52), ("think", 0.08))


@dataclass(frozen=True)
class Segment:
    """A piece of a row: ids, and which of them train.

    Attributes:
        views: (offset, pixels) of each view.
        blocks: (offset, part of the memory: (rows, columns, layers, D)) of each replayed region.
    """

    ids: tuple[int, ...]
    trained: tuple[bool, ...]
    views: tuple[tuple[int, np.ndarray], ...]
    blocks: tuple[tuple[int, np.ndarray], ...] = ()

    @property
    def replayed(self) -> int:
        """How many visual tokens its blocks are."""
        return sum(block.shape[0] * block.shape[1] for _, block in self.blocks)


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
        blocks: (M, layers, D) float16, the visual tokens of replayed regions.
        block_slots: (M,) where they go.
        kinds: (B, T): the index in KINDS of what the token's branch asks.
    """

    ids: Tensor
    positions: Tensor
    segments: Tensor
    trained: Tensor
    views: Tensor
    slots: Tensor
    blocks: Tensor
    block_slots: Tensor
    kinds: Tensor


KINDS = (
    *("caption", "colour", "count", "locate", "read", "same", "search"),
    *(f"{mode} {kind}" for mode in ("replay", "full") for kind, _ in MIX[mode]),
    *(f"depth {kind}" for kind in ("where", "nearer", "read_nearest")),
    *(f"depth {kind}" for kind in ("colour", "count", "read", "same")),
    *(f"{strategy} {task}" for strategy in ("uniform", "watch") for task in CLIP_TASKS),
    "uniform track",
)
"""What a branch may ask, under the names that logs have."""


class RowMaker:
    """Makes rows for one vocabulary."""

    def __init__(self, builder: TokenBuilder) -> None:
        self._builder = builder
        self._prefixes = {
            mode: builder.build((*system, user(*_shown(mode))), open_turn=False)
            for mode, system in _SYSTEM.items()
        }

    def prefix(self, mode: str, views: Views) -> Segment:
        """What the system says, and the image."""
        tokens = self._prefixes[mode]
        first, *whole = tokens.images
        end = tokens.images[-1].stop + 1
        shown, blocks = ((first.start, views.overview),), _blocks(whole, views, 0)
        return Segment(tokens.ids[:end], tokens.trained[:end], shown, blocks)

    def branch(self, mode: str, kind: str, views: Views, rng: random.Random) -> Segment | None:
        """A question of `kind` about the scene; None when the scene admits none."""
        conversation = _conversation(mode, kind, views, rng)
        if conversation is None:
            return None
        messages, crops = conversation
        tokens = self._builder.build((*_SYSTEM[mode], *messages), open_turn=False)
        before = self._prefixes[mode].images
        start = before[-1].stop + 1
        stop = max(i for i, t in enumerate(tokens.trained) if t) + 1
        spans = tokens.images[len(before) :]
        shown = zip([s for s in spans if not s.block], crops, strict=True)
        return Segment(
            tokens.ids[start:stop],
            tokens.trained[start:stop],
            tuple((span.start - start, crop) for span, crop in shown),
            _blocks([s for s in spans if s.block], views, start),
        )

    def row(
        self, views: Views, mode: str, rng: random.Random, room: int, tokens: int = ROW_TOKENS
    ) -> tuple[list[Segment], list[str]]:
        """Prefix and branches that fit into so many tokens and `room` views, and what each asks."""
        prefix = self.prefix(mode, views)
        segments = [prefix]
        kinds, used, room = [""], len(prefix.ids), room - 1
        names, shares = [name for name, _ in MIX[mode]], [share for _, share in MIX[mode]]
        misses = 0
        while misses < 3:
            (kind,) = rng.choices(names, shares)
            segment = self.branch(mode, kind, views, rng)
            if segment and used + len(segment.ids) <= tokens and len(segment.views) <= room:
                segments.append(segment)
                kinds.append(f"{mode} {kind}" if mode in ("replay", "full") else kind)
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
    if mode == "replay":
        blocks = [Features(_WHOLE, asked_region(rng, thing.region)) for thing in scene.things]
        return solved(scene, question, _BLANK, blocks, step=BOX_GRID), ()
    if mode == "full":
        _, reply = answered(scene, question, _BLANK, step=BOX_GRID)
        return (user(*_shown(mode), question.text), reply), ()
    if mode == "zoom" and question.looks:
        blanks = [_BLANK] * len(scene.things)
        messages = solved(scene, question, _BLANK, blanks, step=BOX_GRID)
        return messages, [views.crops[i] for i in question.looks]
    return answered(scene, question, _BLANK, step=BOX_GRID), ()


def _shown(mode: str) -> tuple[Part, ...]:
    """What a question under `mode` begins with."""
    return (_BLANK, Features(_WHOLE)) if mode == "full" else (_BLANK,)


def asked_region(rng: random.Random, region: Region) -> Region:
    """The region that a trained policy asks for when it means `region`."""
    return Region.from_pixels(asked_box(rng, region), (SIDE, SIDE))


def _blocks(
    spans: Sequence[ImageSpan], views: Views, start: int
) -> tuple[tuple[int, np.ndarray], ...]:
    """What the memory of `views` holds for each of `spans`, offsets counted from `start`."""
    found = []
    for span in spans:
        assert span.block
        assert views.memory is not None
        x0, y0, x1, y1 = span.block.box
        found.append((span.start - start, views.memory[y0:y1, x0:x1]))
    return tuple(found)


def make_batch(
    maker: RowMaker,
    pick: Callable[[], Views],
    rng: random.Random,
    rows: int,
    views: int,
    *,
    modes: Modes = MODES,
    tokens: int = ROW_TOKENS,
    blocks: int = 0,
) -> Batch:
    """`rows` rows of `tokens` tokens with at most `views` views and `blocks` replayed visual tokens
    in all; the missing ones are black and go nowhere."""
    names, shares = [mode for mode, _ in modes], [share for _, share in modes]
    made: list[tuple[list[Segment], list[str]]] = []
    left = views
    for k in range(rows):
        room = left - (rows - k - 1)
        (mode,) = rng.choices(names, shares) if room >= 3 or len(names) == 1 else ("direct",)
        row = maker.row(pick(), mode, rng, room, tokens)
        left -= sum(len(s.views) for s in row[0])
        made.append(row)
    return collate(made, views, tokens, blocks)


def collate(
    rows: Sequence[tuple[list[Segment], list[str]]],
    views: int,
    length: int = ROW_TOKENS,
    blocks: int = 0,
) -> Batch:
    count = len(rows)
    ids = np.zeros((count, length), np.int64)
    positions = np.zeros((3, count, length), np.int64)
    segments = np.full((count, length), -1, np.int64)
    trained = np.zeros((count, length), bool)
    kinds = np.full((count, length), -1, np.int64)
    images = np.zeros((views, VIEW, VIEW, 3), np.uint8)
    slots = np.full((views, SIDE_TOKENS**2), count * length, np.int64)
    replayed: list[tuple[int, np.ndarray]] = []
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
            shapes = [(start, (SIDE_TOKENS, SIDE_TOKENS)) for start, _ in segment.views]
            shapes += [(start, block.shape[:2]) for start, block in segment.blocks]
            positions[:, b, where], end = _positions(len(segment.ids), shapes, prefix_end)
            prefix_end = end if number == 0 else prefix_end
            for start, view in segment.views:
                images[shown] = view
                slots[shown] = b * length + at + start + np.arange(SIDE_TOKENS**2)
                shown += 1
            replayed += [(b * length + at + start, block) for start, block in segment.blocks]
            at += len(segment.ids)
    remembered = _remembered(replayed, blocks, count * length)
    arrays = (ids, positions, segments, trained, images, slots.reshape(-1), *remembered, kinds)
    return Batch(*(torch.from_numpy(a) for a in arrays))


def _remembered(
    replayed: Sequence[tuple[int, np.ndarray]], room: int, nowhere: int
) -> tuple[np.ndarray, np.ndarray]:
    """The visual tokens of all blocks, padded to `room`, and where they go; nothing for none."""
    if not replayed:
        return np.zeros((0, 1, 1), np.float16), np.zeros(0, np.int64)
    layers = replayed[0][1].shape[2:]
    tokens = np.zeros((room, *layers), np.float16)
    slots = np.full(room, nowhere, np.int64)
    at = 0
    for start, block in replayed:
        flat = block.reshape(-1, *layers)
        tokens[at : at + len(flat)] = flat
        slots[at : at + len(flat)] = start + np.arange(len(flat))
        at += len(flat)
    return tokens, slots


def _positions(
    length: int, shown: Sequence[tuple[int, tuple[int, ...]]], first: int
) -> tuple[np.ndarray, int]:
    """Positions (3, length) from `first` on, and the next one.

    What is `shown` of m x n tokens advances them by the larger of the two.
    """
    positions = np.zeros((3, length), np.int64)
    at, value = 0, first
    for start, (m, n) in sorted(shown):
        positions[:, at:start] = value + np.arange(start - at)
        value += start - at
        rows, columns = np.divmod(np.arange(m * n), n)
        positions[:, start : start + m * n] = value + np.stack([rows * 0, rows, columns])
        at, value = start + m * n, value + max(m, n)
    positions[:, at:] = value + np.arange(length - at)
    return positions, value + length - at
