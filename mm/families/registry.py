"""What is particular about each model family: one small record of facts each.

What its processor makes of an image is in image_layouts.py, the text around its turns in
chat_templates.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

from mm.geometry import BoxFormat, Size
from mm.vlm import Aim, CropRule, Memory, Traits

from . import chat_templates, image_budgets, image_layouts, visual_memory
from .chat_templates import ChatTemplate
from .image_budgets import Fits
from .image_layouts import Layout
from .visual_memory import Recall


@dataclass(frozen=True)
class Family:
    """One family's facts.

    Attributes:
        model_types: the `model_type` of the configs that belong to it.
        layout: from (config, image processor, image's size) to its `Layout`.
        templates: the chat templates its checkpoints come with; the first is the usual one.
        placeholder: the token that each visual token replaces.
        markers: other tokens that only an image or a clip may bring into the context.
        tensors: what of the image processor's output the encoder takes.
        calls_tools: whether its checkpoints were taught to write tool calls.
        mrope: positions have three axes; pass them, and never trust the model's own `rope_deltas`.
        slides: some layers attend to a sliding window only.
        bidirectional_images: the visual tokens of one image attend to each other in both
            directions, so a forward needs `token_type_ids`, 1 on placeholders, and a whole image at
            once.
        options: what the family's own processor passes to its image processor.
        recall: how its images are remembered; None where its features are no grid.
        fits: what its processor can do for a budget of pixels or visual tokens.
        packs_frames: its patches are two frames deep, and an image is shown as both of them.
    """

    name: str
    model_types: tuple[str, ...]
    layout: Callable[[Any, Any, Size], Layout]
    templates: tuple[ChatTemplate, ...]
    placeholder: str
    markers: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ("pixel_values",)
    box_format: BoxFormat = BoxFormat()
    calls_tools: bool = False
    mrope: bool = False
    slides: bool = False
    bidirectional_images: bool = False
    options: tuple[tuple[str, Any], ...] = ()
    recall: Recall | None = None
    fits: Fits = image_budgets.fixed
    packs_frames: bool = False


def family_of(model_type: str) -> Family | None:
    """The family that a config's `model_type` belongs to; None for one that no family lists."""
    return next((f for f in FAMILIES if model_type in f.model_types), None)


_QWEN_MARKERS = ("<|vision_start|>", "<|vision_end|>", "<|video_pad|>")
_PIXELS = BoxFormat(frame=None)  # of the resized image
_UNIT = BoxFormat(frame=(1, 1), decimals=3)

# Boxes: Qwen's cookbooks and InternVL's documentation give 0 to 1000 and, for Qwen2.5-VL, pixels.
# LLaVA was trained on 0 to 1 (and VGR, on LLaVA-NeXT, keeps that). Nothing is documented for
# Idefics3, SmolVLM and Gemma 3: they get 0 to 1000, which a prompt has to ask for.
FAMILIES: tuple[Family, ...] = (
    Family(
        name="Qwen3-VL",
        model_types=("qwen3_vl", "qwen3_vl_moe"),
        layout=image_layouts.qwen,
        fits=image_budgets.qwen,
        templates=(chat_templates.QWEN3, chat_templates.QWEN3_THINKING),
        placeholder="<|image_pad|>",
        markers=_QWEN_MARKERS,
        tensors=("pixel_values", "image_grid_thw"),
        packs_frames=True,
        calls_tools=True,
        mrope=True,
        recall=visual_memory.QWEN,
    ),
    Family(
        name="Qwen2.5-VL",
        model_types=("qwen2_5_vl",),
        layout=image_layouts.qwen,
        fits=image_budgets.qwen,
        templates=(chat_templates.QWEN2, chat_templates.QWEN3),
        placeholder="<|image_pad|>",
        markers=_QWEN_MARKERS,
        tensors=("pixel_values", "image_grid_thw"),
        packs_frames=True,
        box_format=_PIXELS,
        mrope=True,
    ),
    Family(
        name="Qwen2-VL",
        model_types=("qwen2_vl",),
        layout=image_layouts.qwen,
        fits=image_budgets.qwen,
        templates=(chat_templates.QWEN2, chat_templates.QWEN3),
        placeholder="<|image_pad|>",
        markers=_QWEN_MARKERS,
        tensors=("pixel_values", "image_grid_thw"),
        packs_frames=True,
        mrope=True,
    ),
    Family(
        name="LLaVA-NeXT",
        model_types=("llava_next",),
        layout=image_layouts.llava_next,
        fits=image_budgets.anyres,
        templates=(
            chat_templates.MISTRAL,
            chat_templates.VICUNA,
            chat_templates.LLAVA_CHATML,
            chat_templates.LLAMA3,
        ),
        placeholder="<image>",
        tensors=("pixel_values", "image_sizes"),
        box_format=_UNIT,
        recall=visual_memory.LLAVA_NEXT,
    ),
    Family(
        name="LLaVA-OneVision",
        model_types=("llava_onevision",),
        layout=image_layouts.llava_onevision,
        fits=image_budgets.anyres,
        templates=(chat_templates.ONEVISION,),
        placeholder="<image>",
        markers=("<video>",),
        tensors=("pixel_values", "image_sizes"),
        box_format=_UNIT,
    ),
    Family(
        name="Idefics3",
        model_types=("idefics3", "smolvlm"),
        layout=image_layouts.idefics3,
        fits=image_budgets.idefics3,
        templates=(chat_templates.IDEFICS3, chat_templates.SMOLVLM),
        placeholder="<image>",
        markers=("<fake_token_around_image>", "<global-img>"),
        tensors=("pixel_values", "pixel_attention_mask"),
    ),
    Family(
        name="InternVL",
        model_types=("internvl",),
        layout=image_layouts.internvl,
        fits=image_budgets.internvl,
        templates=(chat_templates.INTERNVL,),
        placeholder="<IMG_CONTEXT>",
        markers=("<img>", "</img>"),
        options=(("crop_to_patches", True),),
    ),
    Family(
        name="Gemma 3",
        model_types=("gemma3",),
        layout=image_layouts.gemma3,
        templates=(chat_templates.GEMMA3,),
        placeholder="<image_soft_token>",
        markers=("<start_of_image>", "<end_of_image>"),
        slides=True,
        bidirectional_images=True,
        options=(("do_pan_and_scan", False),),
    ),
)

AT_ONCE = 16
"""How many draws of one question the engine is given at a time; it batches them."""

RECALLING = tuple(family.name for family in FAMILIES if family.recall)
"""The families whose images can be replayed from memory."""


def traits_of(family: Family, config: Any) -> Traits:
    """Family defaults, overridden by the checkpoint's config."""
    return Traits(
        family.box_format,
        crop_rule=crop_rule_of(config),
        calls_tools=getattr(config, "calls_tools", family.calls_tools),
        aim=_aim(config),
        memory=_memory(family, config),
        tools=tuple(getattr(config, "tools", None) or ()),
        packs_frames=family.packs_frames,
        at_once=AT_ONCE,
    )


def crop_rule_of(config: Any) -> CropRule:
    """How crops were cut where the checkpoint was trained, as its config says.

    Raises:
        ValueError: the config names no such rule.
    """
    rule: Any = getattr(config, "crop_rule", Traits.crop_rule)
    if rule not in get_args(CropRule):
        known = " or ".join(get_args(CropRule))
        raise ValueError(f"crop_rule in config.json must be {known}, got {rule!r}")
    return rule


def _aim(config: Any) -> Aim:
    """What the checkpoint's config names, else three fifths of the way up, where ViCrop looks.

    It took layer 14 of 24 and more of LLaVA-1.5, and 22 of 36 of Qwen2.5-VL-3B.
    """
    named = getattr(config, "attend", None)
    if named:
        return Aim(**named)
    return Aim(round(0.6 * config.get_text_config().num_hidden_layers))


def _memory(family: Family, config: Any) -> Memory | None:
    """What the checkpoint's config names, else its family's usual; None where there is none."""
    if family.recall is None:
        return None
    named = getattr(config, "memory", None)
    return Memory(**named) if named else family.recall.usual(config)
