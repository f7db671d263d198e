"""Controls of strategies under a verifier: other verdicts in the place of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from mm.geometry import Region
from mm.origins import Cropped
from mm.session import Strategy, Verifier
from mm.strategies import length, likelihood
from mm.strategies.verdict import for_model
from mm.trace import Branch
from mm.types import Image, Message
from mm.vlm import VLM
from vision.look_stats import found
from vision.verifier import always, asked, never, random_stop

Bound = dict[str, object]
"""Options bound to a strategy."""


def leave_it(branch: Branch) -> None:
    """Cannot tell: the model decides alone whether it looks on."""


VERDICTS: Mapping[str, Verifier] = {
    "self": leave_it,
    "asked": asked,
    "always": always,
    "never": never,
    "random-stop": random_stop,
}
"""Verdicts that stand in for the strategy's own verifier, by the names of their controls."""

RANKED: Mapping[str, Verifier] = {"length": length, "likelihood": likelihood}
"""Those that need a threshold that says "enough" as often as the trained verifier's does."""


def verdict_controls(*, located: bool, shown: bool, matched: Mapping[str, float]) -> list[str]:
    """The names of the controls there are.

    Args:
        located: whether it is known what must be looked at.
        shown: whether there are other images to show.
        matched: thresholds of `RANKED`, of a trained verifier's folder.
    """
    ranked = [name for name in RANKED if name in matched]
    oracle = ["oracle"] if located else []
    return [*VERDICTS, *ranked, *oracle, *(["shuffled"] if shown else [])]


def verdict_of(
    control: str,
    strategy: Strategy,
    *,
    regions: Sequence[Region] = (),
    other: Callable[[], Image] | None = None,
    matched: Mapping[str, float] = {},
) -> Bound:
    """The verifier and threshold that `control` binds to `strategy`.

    Args:
        regions: what a perfect reasoner looks at, for "oracle".
        other: another question's image, for "shuffled".
        matched: how the controls stop as often as a trained verifier: a threshold for each of
            `RANKED`, a rate for "random-stop".

    Raises:
        ValueError: no such control, or one without what it needs.
    """
    if control == "oracle":
        return {"verifier": partial(oracle, regions), "threshold": 0.5}
    if control == "shuffled" and other:
        return {"verifier": partial(shuffled, verifier=own_verifier(strategy), other=other)}
    if control == "random-stop" and control in matched:
        return {"verifier": partial(random_stop, rate=matched[control]), "threshold": 0.5}
    if control in VERDICTS:
        return {"verifier": VERDICTS[control], "threshold": 0.5}
    if control in RANKED and control in matched:
        return {"verifier": RANKED[control], "threshold": matched[control]}
    raise ValueError(f"no control {control!r}")


def own_verifier(strategy: Strategy) -> Verifier:
    """The verifier that `strategy` would ask."""
    return inspect.signature(strategy).parameters["verifier"].default


def oracle(regions: Sequence[Region], branch: Branch) -> float:
    """1 once the object that answers, the last that a perfect reasoner looks at, was shown."""
    return float(found(branch, regions[-1:]) == len(regions[-1:]))


def shuffled(
    branch: Branch, *, verifier: Verifier, other: Callable[[], Image], vlm: VLM | None = None
) -> float | None:
    """What `verifier` says where the same regions of another question's image were shown."""
    swap = partial(_instead, other=other())
    prompt = tuple(_swapped(message, swap) for message in branch.sample.prompt)
    steps = tuple(replace(s, message=_swapped(s.message, swap)) for s in branch.steps)
    seen = Branch(replace(branch.sample, prompt=prompt), steps, branch.leaf)
    return (for_model(verifier, vlm) if vlm else verifier)(seen)


def _swapped(message: Message, swap: Callable[[Image], Image]) -> Message:
    if not message.images:
        return message
    parts: Any = tuple(swap(p) if isinstance(p, Image) else p for p in message.parts)
    return Message(message.role, parts)


def _instead(image: Image, *, other: Image) -> Image:
    """What `other` shows where `image` was cut from its own."""
    pixels = other.pixels
    if isinstance(image.origin, Cropped):
        pixels = pixels.crop(image.origin.region.to_pixels(pixels.size))
    return Image(pixels.resize(image.size))
