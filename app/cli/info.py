"""`mm info`: what a report of a problem should begin with, and what a model makes of images."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from typing import TYPE_CHECKING

import mm
from app.model_choice import ModelChoice
from mm.families.image_budgets import ImageBudgets
from mm.families.registry import family_of
from mm.local.adapters import checkpoint_of
from mm.local.checkpoints import Checkpoint, inspect, read_json
from mm.local.precision import fast_line
from mm.remote.connect import BASE_URL, connect
from mm.vlm import sampling_of
from video.decode import open_video

if TYPE_CHECKING:
    from mm.tokens.builder import TokenBuilder

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
"""Common image sizes, (width, height)."""


def print_info(choice: ModelChoice) -> None:
    """Print versions, the device, and the facts of a model, whose weights are not loaded.

    Raises:
        UserError: flags that do not go together.
        ModelUnavailable: there is no such model.
    """
    choice.check()
    facts = (
        model_facts(choice.name, choice.budgets)
        if choice.backend == "local"
        else served_facts(choice)
    )
    print(table({"python": platform.python_version(), **versions()}))
    print(table(machine()), end="\n\n")
    print(table(facts))


def print_clip(source: str) -> None:
    """Print what is in a clip, without decoding it, and what reads it.

    Raises:
        BadVideo: it cannot be read.
    """
    video = open_video(source)
    info = video.info
    steps = sorted({round(b - a, 4) for a, b in pairwise(info.times_s)})
    rate = f"{info.fps:.3f} a second" + (", uneven" if len(steps) > 2 else "")
    facts = {
        "clip": info.source,
        "length": f"{info.duration_s:.3f} s",
        "frames": f"{len(info.times_s):,}, {rate}",
        "size": f"{info.size[0]} x {info.size[1]} as shown",
        "codec": info.codec or "none",
        "reader": video.reader,
    }
    print(table({**facts, **{f"note {n}": note for n, note in enumerate(info.notes, 1)}}))


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
        "fast precision": fast_line(torch.device("cuda" if gpus else "cpu")),
    }


def model_facts(name: str, budgets: ImageBudgets = ImageBudgets()) -> dict[str, str]:
    """How big the model is, how it writes boxes, and what images cost.

    Raises:
        ModelUnavailable: there is no such model.
    """
    from mm.tokens.loading import load_builder

    checkpoint = inspect(checkpoint_of(name))
    facts = {
        "model": name,
        "architecture": ", ".join(checkpoint.config.get("architectures") or ["unknown"]),
        "parameters": f"{checkpoint.parameters:,}",
    }
    if family_of(checkpoint.model_type) is None:
        return {**facts, **_unlisted(checkpoint, budgets)}
    try:
        builder = load_builder(str(checkpoint.folder), budgets=budgets, local_files_only=True)
    except (OSError, ValueError) as error:
        raise mm.ModelUnavailable(f"{name}: {error}") from error
    return {**facts, **_use(builder.traits), **_images(builder)}


def _unlisted(checkpoint: Checkpoint, budgets: ImageBudgets) -> dict[str, str]:
    """The sampling of a model of no listed family, and whether it takes the budgets; what its
    images cost is known only once its weights are loaded.

    Raises:
        ModelUnavailable: there are budgets, and its processor cannot be made.
    """
    from mm.local.generic_processor import read_processor
    from mm.local.generic_vlm import WITHOUT
    from mm.local.image_options import set_budgets
    from mm.tokens.processor_parts import sampling_of as recommended

    file = checkpoint.folder / "generation_config.json"
    said = read_json(file, f"{checkpoint.folder} is damaged") if file.is_file() else {}
    sampling = sampling_of(mm.Traits(sampling=recommended(said)))
    facts = {"family": f"not listed: {WITHOUT}", "sampling": sampling_line(sampling)}
    if not budgets.given:
        return facts
    lacks = set_budgets(read_processor(str(checkpoint.folder)), budgets)
    told = ", ".join(f"{name} {value}" for name, value in budgets.given.items())
    return {**facts, "budgets": "; ".join(lacks) or f"its image processor takes {told}"}


def served_facts(choice: ModelChoice) -> dict[str, str]:
    """What is known of a model behind a server: by its name, unless there is a processor.

    Raises:
        ModelUnavailable: the server cannot be reached, or has no such model.
    """
    base_url = choice.base_url or BASE_URL
    vlm = connect(choice.name, base_url=base_url, processor=choice.processor)
    family = vlm.family.name if vlm.family else "unknown: boxes are taken to be 0 to 1000"
    facts = {"model": vlm.name, "server": base_url, "family": family, **_use(vlm.traits)}
    if vlm.builder:
        return {**facts, **_images(vlm.builder)}
    return {**facts, "images": "sizes and costs are not known: give --processor"}


def _use(traits: mm.Traits) -> dict[str, str]:
    return {
        "boxes": box_line(traits.box_format),
        "crop rule": traits.crop_rule,
        "tool calls": "yes" if traits.calls_tools else "no: asked where, then cropped",
        "sampling": sampling_line(sampling_of(traits)),
    }


def _images(builder: TokenBuilder) -> dict[str, str]:
    images = {}
    for size in SIZES:
        seen, cost = builder.seen_size(size), builder.visual_tokens(size)
        images[_by(size)] = f"seen as {_by(seen)}, {cost} visual tokens"
    return images


def sampling_line(sampling: mm.Sampling) -> str:
    """What the checkpoint's authors sample with, where a person says nothing of it."""
    usual = mm.Sampling(temperature=sampling.temperature)
    said = {k: v for k, v in vars(sampling).items() if v != getattr(usual, k)}
    heat = {"temperature": sampling.temperature} if sampling.temperature else {}
    return ", ".join(f"{k} {v}" for k, v in {**heat, **said}.items()) or "greedy"


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
