"""How a checkpoint wants to be used: as its family is, but for what its config says of its own."""

from __future__ import annotations

from typing import Any

from .families import Family
from .vlm import Aim, Memory, Traits


def traits_of(family: Family, config: Any) -> Traits:
    """The family's traits, with what the checkpoint's config says of its own."""
    return Traits(
        family.box_format,
        crop_rule=getattr(config, "crop_rule", Traits.crop_rule),
        calls_tools=getattr(config, "calls_tools", family.calls_tools),
        aim=_aim(config),
        memory=_memory(family, config),
    )


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
