"""`mm info`: what a report of a problem should begin with, and what a model makes of pictures."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import mm
from mm.checkpoints import find, inspect

PACKAGES = [
    "multimodal-reasoning",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "pillow",
    "av",
    "decord",
    "gradio",
    "trl",
    "datasets",
]
SIZES: tuple[mm.Size, ...] = ((224, 224), (768, 768), (1280, 720), (1024, 1536), (3840, 2160))
"""Common picture sizes, (width, height)."""


def print_info(model: str) -> None:
    """Print versions, the device, and the facts of `model`, whose weights are not loaded.

    Raises:
        ModelUnavailable: there is no such model.
    """
    facts = model_facts(model)
    print(table({"python": platform.python_version(), **versions()}))
    print(table(machine()), end="\n\n")
    print(table(facts))


def versions() -> dict[str, str]:
    """Of the packages that matter, installed or not."""
    return {name: _version(name) for name in PACKAGES}


def machine() -> dict[str, str]:
    """What a model would run on."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "system": platform.platform(),
        "device": ", ".join(gpus) or "cpu",
        "threads": str(torch.get_num_threads()),
    }


def model_facts(name: str) -> dict[str, str]:
    """How big the model is, how it writes boxes, and what pictures cost.

    Raises:
        ModelUnavailable: there is no such model.
    """
    from mm.tokens import load_builder

    checkpoint = inspect(find(name))
    try:
        builder = load_builder(str(checkpoint.folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise mm.ModelUnavailable(f"{name}: {error}") from error
    crop_rule = checkpoint.config.get("crop_rule", builder.traits.crop_rule)
    facts = {
        "model": name,
        "architecture": ", ".join(checkpoint.config.get("architectures") or ["unknown"]),
        "parameters": f"{checkpoint.parameters:,}",
        "boxes": box_line(builder.traits.box_format),
        "crop rule": crop_rule,
        "tool calls": "yes" if builder.traits.calls_tools else "no: asked where, then cropped",
    }
    pictures = {}
    for size in SIZES:
        seen, cost = builder.seen_size(size), builder.visual_tokens(size)
        pictures[_by(size)] = f"seen as {_by(seen)}, {cost} visual tokens"
    return {**facts, **pictures}


def box_line(box_format: mm.BoxFormat) -> str:
    """How a family writes a box, in words."""
    frame = (
        "pixels as the model saw it"
        if box_format.frame is None
        else f"0 to {_by(box_format.frame)}"
    )
    return f'"{box_format.key}": {box_format.order}, {frame}'


def table(rows: dict[str, str]) -> str:
    """Names and values in two columns."""
    width = max(map(len, rows)) + 2
    return "\n".join(f"{name:<{width}}{value}" for name, value in rows.items())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _by(size: mm.Size) -> str:
    return f"{size[0]}x{size[1]}"
