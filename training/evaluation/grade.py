"""Grades a branch as a row of a table: boxes by their overlap, all else by `mm.answers.judge`.

Held-out accuracy and the reward `accuracy` call `mm.answers.judge` themselves.
"""

from __future__ import annotations

from mm.answers.matching import MIN_IOU, judge, parse_box
from mm.geometry import Region, iou
from mm.trace import Branch
from mm.vlm import VLM

from .tasks import Item


def grade(branch: Branch, item: Item, vlm: VLM) -> bool | None:
    """Whether `branch` answers `item` rightly; None when it gives nothing that could be right.

    A box must be one box, as the family of `vlm` writes it; a closed question wants one of its
    choices.
    """
    sample = item.sample
    if item.box is not None:
        box = read_box(branch.answer, item, vlm)
        return None if box is None else iou(box, item.box) >= MIN_IOU
    if sample.target is None:
        return None
    return judge(branch.text, sample.target, choices=sample.choices)


def correct(branch: Branch, item: Item, vlm: VLM) -> bool:
    """Whether `branch` answers `item` rightly; no answer is wrong."""
    return grade(branch, item, vlm) is True


def read_box(answer: str | None, item: Item, vlm: VLM) -> Region | None:
    """The part of the first image that `answer` names; None when it names none, or several."""
    numbers = parse_box(answer or "")
    if numbers is None or not item.sample.images:
        return None
    image = item.sample.images[0]
    try:
        return vlm.traits.box_format.read(numbers, vlm.seen_size(image.size, image.kind))
    except ValueError:
        return None
