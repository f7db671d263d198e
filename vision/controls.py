"""What looking is worth: the same loop with another region, or a region nobody asked for.

Bind them with `partial`: `partial(zoom, choose_region=random_region)`.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from mm.geometry import Region, iou
from mm.session import Session
from mm.trace import Branch, Sample
from mm.vlm import CropRule

from .crop import crop
from .show_region import answer, present
from .zoom import Camera, Cut
from .zoom_tool import RegionCall

RegionOf = Callable[[Sample], Region]
"""Where to look in a sample's first image."""

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

    Neither the call nor the crop counts as the policy's.

    Raises:
        ValueError: the sample has no image.
        ModelError: the model failed.
    """
    if not session.images:
        raise ValueError(f"sample {session.sample.id!r} has no image to look at again")
    region = region_of(session.sample)
    asked = RegionCall(0, region)
    present(session, asked, Camera(rule, cut).shoot(session, asked))
    return answer(session)
