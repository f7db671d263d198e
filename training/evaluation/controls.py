"""What is compared: strategies, and the controls that show what their looking is worth."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from mm.geometry import Region, iou
from mm.origins import Drawn
from mm.session import Strategy
from mm.strategies.single import insist
from mm.trace import Sample
from mm.types import Conversation, Image, Message
from video.search import over_clips
from vision.controls import random_region
from vision.crop import GREY
from vision.depth import DepthMap, constant, flipped, noisy
from vision.depth_source import DEPTH, TAG, ChangedDepth, Estimate, bind_depth, untold

from .clip_controls import CONTROLS as CLIP_CONTROLS
from .clip_controls import changed_clips, chosen_span, over_changed
from .tasks import Item, Suite
from .verdict_controls import choice_controls, verdict_controls, verdict_of


@dataclass(frozen=True)
class Condition:
    """A strategy by name, as it is or under a control.

    `control` is "" for the real thing, "random" (another region of the same size is shown), "true"
    (the region one must look at is shown), "no-look" (every look is refused), "full" (the whole
    image at full resolution stands in the context), "flipped" (the depth map with near and far
    swapped), "constant" (its median everywhere), "noise" (random depths in its place), "shuffled"
    (another image's map; under "true" a strategy that uses depth gets the renderer's own), or
    "blind" (grey images, no depth).
    Strategies under a verifier have those of `verdict_controls`; clips have those of
    `clip_controls`, and "random" and "true" for the span that is looked at. `matched` is for the
    former: how they stop as often as a trained verifier does, "random-stop" as often as `measure`
    saw the strategy stop.
    """

    name: str
    strategy: Strategy = field(compare=False)
    control: str = ""
    matched: Mapping[str, float] = field(default_factory=dict, compare=False)

    @property
    def label(self) -> str:
        """The strategy's name, with the control in brackets."""
        return f"{self.name} ({self.control})" if self.control else self.name

    def meet(self, item: Item, *, seed: int = 0) -> tuple[Strategy, Sample]:
        """What to run for `item`. A question with choices gets one of them under every condition:
        what differs is then what a control changes, and not who was made to answer."""
        over = self._over_clips if item.sample.clips else self._over_images
        strategy, sample = over(item, seed)
        return (insist(strategy) if sample.choices else strategy), sample

    def _over_images(self, item: Item, seed: int) -> tuple[Strategy, Sample]:
        if self.control == "blind":
            return bind_depth(self.strategy, untold), blind(item.sample)
        if self.control:
            return partial(self.strategy, **_changed(self, item, seed)), item.sample
        return self.strategy, item.sample

    def _over_clips(self, item: Item, seed: int) -> tuple[Strategy, Sample]:
        strategy, sample = over_clips(self.strategy), item.sample
        if self.control == "blind":
            strategy = bind_depth(strategy, untold)
        if self.control in ("random", "true"):
            true = item.span if self.control == "true" else None
            chosen: Any = {"choose_span": partial(chosen_span, true=true, seed=seed)}
            return partial(strategy, **chosen), sample
        return over_changed(strategy, self.control) if self.control else strategy, sample


CHANGES: Mapping[str, Callable[[DepthMap], DepthMap]] = {
    "flipped": flipped,
    "constant": constant,
    "noise": noisy,
}
"""What a strategy's own depth map becomes."""

DEPTHS = (*CHANGES, "shuffled", "true")
"""What stands in the place of a depth map; the last two where the true depth is known."""


class TrueInTurn:
    """Shows the true region closest to the one asked for, each once; then the last of them again.

    It remembers what it has shown, so it serves one answer.
    """

    def __init__(self, regions: Sequence[Region]) -> None:
        self._left = list(regions)

    def __call__(self, sample: Sample, asked: Region) -> Region:
        nearest = max(self._left, key=lambda region: (iou(region, asked), -_apart(region, asked)))
        if len(self._left) > 1:
            self._left.remove(nearest)
        return nearest


def conditions_of(
    suite: Suite,
    strategies: Sequence[tuple[str, Strategy]],
    *,
    controls: bool,
    matched: Mapping[str, float] = {},
) -> list[Condition]:
    """Each strategy, followed by the controls that it has on `suite`; `matched` as a trained
    verifier's folder has it."""
    found = []
    for name, strategy in strategies:
        named = _controls(suite, strategy, matched) if controls else ()
        found += [Condition(name, strategy, control, matched) for control in ("", *named)]
    return found


def blind(sample: Sample) -> Sample:
    """The same question with grey images of the same sizes, and no map of the first."""
    tags = {name: value for name, value in sample.tags.items() if name != TAG}
    return replace(sample, prompt=greyed(sample.prompt), tags=tags)


def greyed(conversation: Conversation) -> Conversation:
    """The same text with grey images of the same sizes, and clips whose frames are grey.

    Raises:
        BadVideo: a clip cannot be opened.
    """
    return tuple(_grey(message) for message in changed_clips(conversation, "blind"))


def _controls(suite: Suite, strategy: Strategy, matched: Mapping[str, float]) -> tuple[str, ...]:
    if suite.clips:
        spans = "choose_span" in inspect.signature(strategy).parameters
        looks = ("random", "true") if suite.located else ("random",)
        return (*(looks if spans else ()), *CLIP_CONTROLS)
    options = inspect.signature(strategy).parameters
    controls = []
    if DEPTH in options:
        controls += DEPTHS if suite.deep else CHANGES
    if not suite.looking:
        return tuple(controls)
    if "choose_region" in options:
        controls += ["random", "true"] if suite.located else ["random"]
    if "max_looks" in options:
        controls.append("no-look")
    if "full" in options:
        controls.append("full")
    if {"verifier", "threshold"} <= options.keys():
        controls += verdict_controls(located=suite.located, shown=suite.deep, matched=matched)
    elif "verifier" in options:
        controls += choice_controls(strategy, shown=suite.deep)
    return (*controls, "blind")


def _changed(condition: Condition, item: Item, seed: int) -> dict[str, object]:
    control, strategy = condition.control, condition.strategy
    if control == "random":
        return {"choose_region": partial(random_region, seed=seed)}
    if control in DEPTHS and DEPTH in inspect.signature(strategy).parameters:
        return {DEPTH: _depth_under(control, item, seed, strategy)}
    if control == "true":
        return {"choose_region": TrueInTurn(item.regions)}
    if control == "no-look":
        return {"max_looks": 0}
    if control == "full":
        return {"full": True}
    needed, matched = item.needed or item.regions, condition.matched
    return verdict_of(control, strategy, regions=needed, other=item.other, matched=matched)


def _depth_under(control: str, item: Item, seed: int, strategy: Strategy) -> Estimate:
    if item.depths and control in ("true", "shuffled"):
        return partial(_known, item.depths, int(control == "shuffled"))
    given = inspect.signature(strategy).parameters[DEPTH].default
    change = partial(noisy, seed=seed) if control == "noise" else CHANGES[control]
    return ChangedDepth(given, change)


def _known(depths: Callable[[int], DepthMap], other: int, sample: Sample, image: Image) -> DepthMap:
    return depths(other)


def _grey(message: Message) -> Message:
    parts = tuple(_grey_image(p) if isinstance(p, Image) else p for p in message.parts)
    return replace(message, parts=parts)


def _grey_image(image: Image) -> Image:
    from PIL import Image as pil

    return Image(pil.new("RGB", image.size, GREY), Drawn(image.id, "grey"))


def _apart(a: Region, b: Region) -> float:
    across = (a.x0 + a.x1) - (b.x0 + b.x1)
    down = (a.y0 + a.y1) - (b.y0 + b.y1)
    return across**2 + down**2
