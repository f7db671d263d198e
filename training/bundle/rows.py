"""Training rows of the language stage: one image, many questions, none of which sees another.

A row is a prefix (the image, after what the system says) and branches that go on from it, each a
question with its looks and answer, so that the image is read once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image as Pil

from mm.geometry import Region
from mm.strategies.single import THINK
from mm.tokens.builder import TokenBuilder
from mm.tokens.sequence import ImageSpan
from mm.types import Features, Image, Message, Part, assistant, message, user
from training.tabletop.questions import ask
from training.tabletop.scene import SIDE
from training.tabletop.traces import answered, caption, solved, thought
from vision.zoom_tool import ZOOM_TOOL

from .packing import ROW_TOKENS, Batch, Segment, collate
from .shards import BOX_GRID, VIEW, Views, asked_box
from .vocabulary import CAPTION

FULL_TOKENS = 832
"""The length of rows that hold a whole memory."""

BLANK = Image(Pil.new("RGB", (VIEW, VIEW)))
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
        return (user(BLANK, CAPTION), assistant(caption(scene, BOX_GRID))), ()
    question = ask(kind, scene, rng)
    if question is None:
        return None
    if mode == "think":
        return thought(scene, question, BLANK, step=BOX_GRID), ()
    if mode == "replay":
        blocks = [Features(_WHOLE, asked_region(rng, thing.region)) for thing in scene.things]
        return solved(scene, question, BLANK, blocks, step=BOX_GRID), ()
    if mode == "full":
        _, reply = answered(scene, question, BLANK, step=BOX_GRID)
        return (user(*_shown(mode), question.text), reply), ()
    if mode == "zoom" and question.looks:
        blanks = [BLANK] * len(scene.things)
        messages = solved(scene, question, BLANK, blanks, step=BOX_GRID)
        return messages, [views.crops[i] for i in question.looks]
    return answered(scene, question, BLANK, step=BOX_GRID), ()


def _shown(mode: str) -> tuple[Part, ...]:
    """What a question under `mode` begins with."""
    return (BLANK, Features(_WHOLE)) if mode == "full" else (BLANK,)


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
