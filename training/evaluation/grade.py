"""Right or wrong: the one judge for tables and rewards."""

from __future__ import annotations

from mm.answers.matching import match_choice, parse_box, same_answer
from mm.geometry import Region, iou
from mm.trace import Branch
from mm.vlm import VLM

from .tasks import Item

MIN_IOU = 0.5
"""From this intersection over union on, a box is right."""


def grade(branch: Branch, item: Item, vlm: VLM) -> bool | None:
    """Whether `branch` answers `item` rightly; None when it gives nothing that could be right.

    A box must be one box, as the family of `vlm` writes it; a closed question wants one of its
    choices.
    """
    answer, sample = branch.answer, item.sample
    if answer is None:
        return None
    if item.box is not None:
        box = read_box(answer, item, vlm)
        return None if box is None else iou(box, item.box) >= MIN_IOU
    if sample.choices and match_choice(answer, sample.choices) is None:
        return None
    return same_answer(answer, sample.target, choices=sample.choices)


def correct(branch: Branch, item: Item, vlm: VLM) -> bool:
    """Whether `branch` answers `item` rightly; no answer is wrong."""
    return grade(branch, item, vlm) is True


def read_box(answer: str | None, item: Item, vlm: VLM) -> Region | None:
    """The part of the first picture that `answer` names; None when it names none, or several."""
    numbers = parse_box(answer or "")
    if numbers is None or not item.sample.images:
        return None
    try:
        return vlm.traits.box_format.read(numbers, vlm.seen_size(item.sample.images[0].size))
    except ValueError:
        return None
