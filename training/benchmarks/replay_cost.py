"""What a look costs: replay from memory against zoom's crops, at the same places of one image.

Both conversations are given, look by look, so that both sides look equally often; after each look
the model reads what is new and writes one token.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mm.errors import ModelError
from mm.geometry import Region
from mm.local.hf_vlm import HFVLM
from mm.types import (
    Conversation,
    Features,
    Image,
    Message,
    Sampling,
    ToolCall,
    assistant,
    message,
    user,
)
from training.tabletop.render import render
from training.tabletop.scene import Level, make_scene
from vision.crop import crop
from vision.replay import remembered
from vision.zoom_tool import ZOOM, ZOOM_TOOL

from .engine_speed import FIRST_SCENE, QUESTION
from .measure import Measured

PLACE = 96
"""Side of each place looked at, in pixels: that of an object."""


@dataclass(frozen=True)
class Spent:
    """What a conversation has cost up to some look."""

    patches: int
    prefill: int
    seconds: float


KINDS = (("patches", "patches"), ("prefill", "tokens"), ("seconds", "s"))


def replay_against_zoom(
    vlm: HFVLM, side: int, counts: Sequence[int], rounds: int
) -> Iterator[Measured]:
    """The whole cost of a conversation with so many looks at an image of `side` pixels; then from
    which look on replay is the cheaper one, where it ever is.

    Raises:
        ModelError: the model keeps no memory of images.
    """
    if vlm.traits.memory is None:
        raise ModelError(f"{vlm.name or 'this model'} cannot replay: its features are no grid")
    most = max(counts)
    pairs = [
        [_spent(vlm, side, most, 2 * n + replays, replays=bool(replays)) for replays in (1, 0)]
        for n in range(rounds + 1)
    ][1:]
    for kind, unit in KINDS:
        ours, theirs = ([[getattr(s, kind) for s in pair[k]] for pair in pairs] for k in (0, 1))
        for count in counts:
            name = f"{side} px, {count} look{'s'[: count > 1]}, {kind}"
            yield Measured(name, unit, _after(ours, count), _after(theirs, count))
        if won := wins_from(_median(ours), _median(theirs)):
            yield Measured(f"{side} px, replay wins in {kind} from", "looks", (float(won),))


def wins_from(replay: Sequence[float], zoom: Sequence[float]) -> int | None:
    """The number of looks from which replay costs less; None where it never does.

    Both are costs after 0, 1, ... looks; all looks after the first are taken to cost the same.
    """
    dear = replay[1] - zoom[1]
    saved = ((zoom[-1] - zoom[1]) - (replay[-1] - replay[1])) / (len(zoom) - 2)
    if dear < 0:
        return 1
    return 1 + math.floor(dear / saved) + 1 if saved > 0 else None


def _after(curves: Sequence[Sequence[float]], count: int) -> tuple[float, ...]:
    return tuple(float(curve[count]) for curve in curves)


def _median(curves: Sequence[Sequence[float]]) -> list[float]:
    return [statistics.median(values) for values in zip(*curves, strict=True)]


def _spent(vlm: HFVLM, side: int, looks: int, number: int, *, replays: bool) -> list[Spent]:
    """The costs so far after each of 0 to `looks` looks, with empty caches."""
    vlm.engine.clear_caches()
    image = _image(side, number)
    costs, patches, prefill, seconds = [], 0, 0, 0.0
    said: Conversation = (message("system", ZOOM_TOOL), user(image, QUESTION))
    if replays and vlm.traits.memory:
        said = remembered(said, vlm.traits.memory)
    for region in (None, *_places(side, looks)):
        began = time.perf_counter()
        if region:
            said = (*said, _call(vlm, image, region), _shown(vlm, image, region, replays))
        reply = vlm.engine.generate(vlm.builder.build(said), Sampling(max_tokens=1))
        seconds += time.perf_counter() - began
        patches += reply.cost.patches
        prefill += reply.cost.computed_tokens
        costs.append(Spent(patches, prefill, seconds))
    return costs


def _shown(vlm: HFVLM, image: Image, region: Region, replays: bool) -> Message:
    if replays and vlm.traits.memory:
        return message("tool", Features(image, region, vlm.traits.memory.replay))
    return message("tool", crop(image, region, rule=vlm.traits.crop_rule))


def _call(vlm: HFVLM, image: Image, region: Region) -> Message:
    box_format = vlm.traits.box_format
    box = box_format.write(region, vlm.seen_size(image.size, image.kind))
    return assistant(ToolCall(ZOOM, {"label": "object", box_format.key: box}))


def _image(side: int, number: int) -> Image:
    """A new image each time, of the scenes that belong to no stream; no two places of it are
    alike, so that none is encoded for another."""
    scene = make_scene(FIRST_SCENE + (number << 20) + side, Level.PERSPECTIVE)
    return Image(render(scene).resize((side, side)))


def _places(side: int, count: int) -> list[Region]:
    rng = random.Random(f"places {side}")
    share = min(PLACE / side, 1.0)
    corners = [(rng.uniform(0, 1 - share), rng.uniform(0, 1 - share)) for _ in range(count)]
    return [Region(x, y, min(x + share, 1.0), min(y + share, 1.0)) for x, y in corners]
