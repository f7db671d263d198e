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

CHOOSERS: Mapping[str, Verifier] = {"asked": asked, **RANKED}
"""Verdicts that choose among branches in the place of the strategy's own verifier."""


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


def choice_controls(strategy: Strategy, *, shown: bool) -> list[str]:
    """The names of the controls of a strategy whose verifier chooses among branches.

    Those that would be its own verifier are left out.

    Args:
        shown: whether there are other images to show.
    """
    own = own_verifier(strategy)
    names = [name for name, verifier in CHOOSERS.items() if verifier is not own]
    majority = ["majority"] if "vote" in inspect.signature(strategy).parameters else []
    sees = own not in RANKED.values()
    return [*names, *majority, *(["shuffled"] if shown and sees else [])]


def verdict_of(
    control: str,
    strategy: Strategy,
    *,
    regions: Sequence[Region] = (),
    other: Callable[[], Image] | None = None,
    matched: Mapping[str, float] = {},
) -> Bound:
    """What `control` binds to `strategy`: a verifier, and what goes with it.

    Under all but "shuffled" that is a threshold, in the place of the strategy's own rule (`eps`);
    a strategy whose verifier chooses among branches has none.

    Args:
        regions: what must have been shown before the answer can be known, for "oracle".
        other: another question's image, for "shuffled".
        matched: how the controls stop as often as a trained verifier: a threshold for each of
            `RANKED`, a rate for "random-stop".

    Raises:
        ValueError: no such control, or one without what it needs.
    """
    options = inspect.signature(strategy).parameters
    if control == "shuffled" and other:
        return {"verifier": partial(shuffled, verifier=own_verifier(strategy), other=other)}
    if "threshold" not in options:
        return _choosing(control, votes="vote" in options)
    verifier, threshold = _stopping(control, regions, matched)
    rule: Bound = {"eps": None} if "eps" in options else {}
    return {"verifier": verifier, "threshold": threshold, **rule}


def _stopping(
    control: str, regions: Sequence[Region], matched: Mapping[str, float]
) -> tuple[Verifier, float]:
    """The verifier that stops in the own one's place, and from which score on."""
    if control == "oracle":
        return partial(oracle, regions), 0.5
    if control == "random-stop" and control in matched:
        return partial(random_stop, rate=matched[control]), 0.5
    if control in VERDICTS:
        return VERDICTS[control], 0.5
    if control in RANKED and control in matched:
        return RANKED[control], matched[control]
    raise ValueError(f"no control {control!r}")


def _choosing(control: str, *, votes: bool) -> Bound:
    """What chooses among branches in the own verifier's place; under "majority" each counts 1."""
    if control == "majority" and votes:
        return {"verifier": always, "vote": True}
    if control not in CHOOSERS:
        raise ValueError(f"no control {control!r}")
    single: Bound = {"vote": False} if votes and control in RANKED else {}
    return {"verifier": CHOOSERS[control], **single}


def own_verifier(strategy: Strategy) -> Verifier:
    """The verifier that `strategy` would ask."""
    return inspect.signature(strategy).parameters["verifier"].default


def oracle(regions: Sequence[Region], branch: Branch) -> float:
    """1 once all of `regions` were shown."""
    return float(found(branch, regions) == len(regions))


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
