"""Budgets of images for classes that no family lists: the options of their own image processors.

One setting holds for all images of a model, looks too, since these processors read the images of a
conversation together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from mm.families.image_budgets import ImageBudget, ImageBudgets

Options = Mapping[str, Any]

_SOFT_TOKENS = (70, 140, 280, 560, 1120)  # the numbers that Gemma 4 was trained with
_SLICE = 64  # visual tokens of a slice of MiniCPM-V, the overview one of them


def set_budgets(processor: Any, budgets: ImageBudgets) -> list[str]:
    """Set the options of `processor` that come nearest to `budgets`; a line for what it lacks."""
    lines = []
    budget = budgets.of("overview")
    if budget != ImageBudget():
        options = _options(processor, budget)
        for name, value in options.items():
            setattr(processor.image_processor, name, value)
        if not options:
            lines.append("its image processor has no option for " + " and ".join(budgets.given))
    if budgets.look_visual_tokens:
        lines.append("look_visual_tokens: its looks are shown as its other images are")
    return lines


def _options(processor: Any, budget: ImageBudget) -> Options:
    """The options of whichever kind of image processor it is; {} for one that has none."""
    images = processor.image_processor
    for mark, options in _KINDS.items():
        if hasattr(images, mark):
            return options(processor, images, budget)
    return {}


def _soft_tokens(_: Any, images: Any, budget: ImageBudget) -> Options:
    if budget.visual_tokens is None:
        return {}
    asked = budget.visual_tokens
    return {"max_soft_tokens": min(_SOFT_TOKENS, key=lambda count: abs(count - asked))}


def _image_tokens(_: Any, images: Any, budget: ImageBudget) -> Options:
    """Without tiles: a smaller bound would split images earlier, and cost more."""
    if budget.visual_tokens is None:
        return {}
    least = min(images.min_image_tokens, budget.visual_tokens)
    return {
        "do_image_splitting": False,
        "max_image_tokens": budget.visual_tokens,
        "min_image_tokens": least,
    }


def _slices(_: Any, images: Any, budget: ImageBudget) -> Options:
    if budget.visual_tokens is None:
        return {}
    return {"max_slice_nums": max(1, round(budget.visual_tokens / _SLICE) - 1)}


def _area(_: Any, images: Any, budget: ImageBudget) -> Options:
    """Bounds on the area, as Qwen's and GLM's have them; GLM's count both frames of a patch."""
    frames = images.temporal_patch_size if type(images).__name__.startswith("Glm") else 1
    low, high = images.size["shortest_edge"], images.size["longest_edge"]
    if budget.visual_tokens:
        area = budget.visual_tokens * (images.patch_size * images.merge_size) ** 2 * frames
        low, high = round(0.9 * area), round(1.1 * area)  # whole patches need room between them
    elif budget.max_pixels:
        high = budget.max_pixels * frames
        low = min(low, high) if budget.min_pixels is None else budget.min_pixels * frames
    elif budget.min_pixels:
        low = budget.min_pixels * frames
        high = max(2 * low, high)
    return {"size": type(images.size)(shortest_edge=low, longest_edge=high)}


def _side(processor: Any, images: Any, budget: ImageBudget) -> Options:
    """A longest side, as Pixtral's has it; it enlarges no image."""
    if "longest_edge" not in images.size or budget.min_pixels:
        return {}
    patch = images.patch_size["height"] * getattr(processor, "spatial_merge_size", 1)
    if budget.visual_tokens:
        side = patch * math.sqrt(budget.visual_tokens)
    else:
        side = math.sqrt(budget.max_pixels or 0)
    return {"size": type(images.size)(longest_edge=max(1, round(side)))}


_KINDS: Mapping[str, Callable[[Any, Any, ImageBudget], Options]] = {
    "max_soft_tokens": _soft_tokens,
    "max_image_tokens": _image_tokens,
    "max_slice_nums": _slices,
    "merge_size": _area,
    "patch_size": _side,
}
"""What tells the kinds apart: the first attribute that an image processor has."""
