"""What is particular about each model family: one small record of facts each.

A family's `layout` says, from a picture's size alone, what its processor makes of it: the size the encoder
sees, how many patches it computes, and the placeholders that stand for the picture in the context.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .geometry import BoxFormat, Size


@dataclass(frozen=True)
class Layout:
    """A picture in the context.

    Attributes:
        seen: the size the picture has for the model, in pixels.
        patches: vision patches the encoder computes for it.
        marks: the placeholders that stand for it, with the markers between and around them.
    """

    seen: Size
    patches: int
    marks: str


@dataclass(frozen=True)
class Turns:
    """The words around each turn, as one chat template writes them; (before, after) for each role.

    Attributes:
        begin: before the first turn.
        system: None where there is no such turn; its words then go before the next user's.
        lead: what the assistant's own words begin with (a space after "Assistant:").
        default_system: what stands as system text in a conversation that brings none.
        gap: after the opening of a turn that does not begin with a picture.
        picture: around a picture's placeholders.
        before_text: before each text of a user's message.
        pictures_first: whether a message's pictures stand before its words.
        alternates: whether user and assistant must take turns; messages in a row then share one.
        strips: whether a user's text loses the whitespace around it.
    """

    begin: str = ""
    system: tuple[str, str] | None = ("<|im_start|>system\n", "<|im_end|>\n")
    user: tuple[str, str] = ("<|im_start|>user\n", "<|im_end|>\n")
    assistant: tuple[str, str] = ("<|im_start|>assistant\n", "<|im_end|>\n")
    lead: str = ""
    default_system: str = ""
    gap: str = ""
    picture: tuple[str, str] = ("", "")
    before_text: str = ""
    pictures_first: bool = False
    alternates: bool = False
    strips: bool = False


@dataclass(frozen=True)
class Family:
    """One family's facts.

    Attributes:
        model_types: the `model_type` of the configs that belong to it.
        layout: from (config, image processor, picture's size) to its `Layout`.
        turns: the chat templates its checkpoints come with; the first is the usual one.
        placeholder: the token that each visual token replaces.
        markers: other tokens that only a picture or a clip may bring into the context.
        tensors: what of the image processor's output the encoder takes.
        calls_tools: whether its checkpoints were taught to write tool calls.
        mrope: positions have three axes; pass what `positions` gives, never the model's own `rope_deltas`.
        slides: some layers attend to a sliding window only.
        joined_pictures: the visual tokens of one picture attend to each other in both directions, so a
            forward pass with pictures needs `token_type_ids`, 1 on placeholders, and a whole picture at once.
        options: what the family's own processor passes to its image processor.
    """

    name: str
    model_types: tuple[str, ...]
    layout: Callable[[Any, Any, Size], Layout]
    turns: tuple[Turns, ...]
    placeholder: str
    markers: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ("pixel_values",)
    box_format: BoxFormat = BoxFormat()
    calls_tools: bool = False
    mrope: bool = False
    slides: bool = False
    joined_pictures: bool = False
    options: tuple[tuple[str, Any], ...] = ()


def family_of(model_type: str) -> Family | None:
    """The family that a config's `model_type` belongs to; None for one that nobody listed."""
    return next((f for f in FAMILIES if model_type in f.model_types), None)


def encode(model: Any, tensors: Mapping[str, Any]) -> Any:
    """The vision features of one picture, as `mm_encoder_outputs["image"]` takes them.

    `tensors` are an `ImageSpan`'s. Join those of several pictures with `join`.
    """
    takes = {k: v.to(model.device) for k, v in tensors.items()}
    return model.model.get_image_features(**takes, return_dict=True)


def join(outputs: list[Any]) -> Any:
    """The features of several pictures as one `mm_encoder_outputs["image"]`, in order."""
    from copy import copy

    joined = copy(outputs[0])
    joined.pooler_output = _chain([o.pooler_output for o in outputs])
    if getattr(joined, "deepstack_features", None) is not None:
        layers = zip(*(o.deepstack_features for o in outputs), strict=True)
        joined.deepstack_features = [_chain(list(layer)) for layer in layers]
    return joined


def _chain(values: list[Any]) -> Any:
    import torch

    if torch.is_tensor(values[0]):
        return torch.cat(values)
    return tuple(feature for value in values for feature in value)


def _qwen_layout(config: Any, processor: Any, size: Size) -> Layout:
    width, height = size
    merge, patch = processor.merge_size, processor.patch_size
    edge = processor.size
    seen = _smart_resize(size, patch * merge, edge["shortest_edge"], edge["longest_edge"])
    patches = (seen[0] // patch) * (seen[1] // patch)
    return Layout(seen, patches, "<|image_pad|>" * (patches // merge**2))


def _smart_resize(size: Size, factor: int, low: int, high: int) -> Size:
    """`size` on a grid of `factor` pixels, its area between `low` and `high`, its shape kept."""
    width, height = size
    if max(size) > 200 * min(size):
        raise ValueError(f"a picture's sides may differ 200-fold at most, got {width}x{height}")
    w, h = (round(v / factor) * factor for v in size)
    if w * h > high:
        shrink = math.sqrt(width * height / high)
        w, h = (max(factor, math.floor(v / shrink / factor) * factor) for v in size)
    elif w * h < low:
        grow = math.sqrt(low / (width * height))
        w, h = (math.ceil(v * grow / factor) * factor for v in size)
    return w, h


_QWEN_PICTURE = ("<|vision_start|>", "<|vision_end|>")
_QWEN_MARKERS = (*_QWEN_PICTURE, "<|video_pad|>")

_QWEN3_VL = Family(
    name="Qwen3-VL",
    model_types=("qwen3_vl", "qwen3_vl_moe"),
    layout=_qwen_layout,
    turns=(Turns(picture=_QWEN_PICTURE),),
    placeholder="<|image_pad|>",
    markers=_QWEN_MARKERS,
    tensors=("pixel_values", "image_grid_thw"),
    calls_tools=True,
    mrope=True,
)

FAMILIES: tuple[Family, ...] = (_QWEN3_VL,)
