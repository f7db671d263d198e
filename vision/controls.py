"""What looking is worth: the same loop with another region, or a region nobody asked for.

Bind them with `partial`: `partial(zoom, choose_region=random_region)`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from mm.geometry import Region, iou
from mm.session import Session
from mm.trace import Branch, Sample
from mm.types import ToolCall, assistant, message
from mm.vlm import CropRule

from .call import ZOOM, Target, tool_calls
from .crop import crop
from .grounding import format_box
from .look import Limits, look
from .where import show, where
from .zoom import Camera, Cut, answer_call, offer_zoom

RegionOf = Callable[[Sample], Region]
"""Where to look in a sample's first picture."""

_TRIES = 64


def random_region(sample: Sample, asked: Region, *, seed: int = 0) -> Region:
    """A region of the size of `asked` elsewhere, the same each time for the same sample and region.

    It does not overlap `asked` where there is room; else it overlaps as little as 64 tries find.
    """
    rng = random.Random(f"{seed} {sample.id} {asked}")
    width, height = asked.x1 - asked.x0, asked.y1 - asked.y0
    best = asked
    for _ in range(_TRIES):
        x0, y0 = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
        drawn = Region(x0, y0, min(x0 + width, 1.0), min(y0 + height, 1.0))
        best = min(best, drawn, key=lambda region: iou(region, asked))
        if iou(best, asked) == 0:
            break
    return best


def true_region(sample: Sample, asked: Region, *, region_of: RegionOf) -> Region:
    """Where the sample says one must look, whatever was `asked`."""
    return region_of(sample)


def shown(
    session: Session,
    *,
    region_of: RegionOf,
    rule: CropRule | None = None,
    cut: Cut = crop,
) -> Branch:
    """Show the region that `region_of` names as if the model had asked for it; it answers at once.

    Neither the call nor the crop counts as the policy's. A model that calls again gets no answer.

    Raises:
        ValueError: the sample has no picture.
        ModelError: the model failed.
    """
    if not session.images:
        raise ValueError(f"sample {session.sample.id!r} has no picture to look at again")
    region = region_of(session.sample)
    made = Camera(rule, cut).shoot(session, Target(0, region))
    box_format = session.vlm.traits.box_format
    seen = session.vlm.seen_size(session.images[0].size)
    if not session.vlm.traits.calls_tools:
        session.say(where(box_format, len(session.images)))
        session.say(assistant(format_box(region, box_format, seen)))
        session.say(show(made))
        session.generate()
        return session.branch
    offer_zoom(session)
    arguments: Mapping[str, object] = {box_format.key: box_format.write(region, seen)}
    session.say(assistant(ToolCall(ZOOM, arguments)))
    session.say(message("tool", made))
    return look(session, parse=tool_calls, observe=answer_call, limits=Limits(looks=0))
