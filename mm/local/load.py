"""Loads a model by name. Importing this loads neither torch nor transformers."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from mm.engine.resources import free_bytes
from mm.errors import ModelUnavailable
from mm.families.image_budgets import ImageBudgets
from mm.families.registry import FAMILIES, family_of
from mm.tokens.torchvision_compat import hide_broken_torchvision

from .adapters import ADAPTER, VERIFIER, base_of, is_adapter, with_adapter
from .checkpoints import Checkpoint, code_files, find, inspect, why
from .fingerprint import check_base
from .placement import LoadOptions, Placement, place, set_threads
from .torch_warmup import warm_up
from .weights import ANSWERING, answering_class, read_weights

if TYPE_CHECKING:
    import torch

    from .generic_vlm import GenericVLM
    from .hf_vlm import HFVLM


def load(
    name: str = "tiny",
    *,
    device: str | None = None,
    dtype: str | None = None,
    adapter: str | None = None,
    trust_remote_code: bool = False,
    threads: int | None = None,
    quantize: str | None = None,
    memory: int | None = None,
    max_pixels: int | None = None,
    min_pixels: int | None = None,
    visual_tokens: int | None = None,
    look_visual_tokens: int | None = None,
    verifier: str | None = None,
) -> HFVLM | GenericVLM:
    """The model called `name`, ready to answer.

    A checkpoint of a family that `mm.families` does not list runs through its own processor, with
    a warning that says what it does without.

    Args:
        name: a bundled model ("tiny"), a folder with a checkpoint or a peft adapter, or a hub id.
        device: as torch names it; None takes a GPU if there is one.
        dtype: "float32", "bfloat16" or "float16"; None takes float32 for small models on
            a CPU, else the precision that is fast there.
        adapter: the folder of a peft adapter to answer with.
        trust_remote_code: run code that comes with the checkpoint; of a hub id it is downloaded.
        threads: CPU threads of this process; None leaves torch's number, but takes 1 for a model so
            small that sharing its steps costs more than it saves.
        quantize: "4bit" or "8bit" weights of the language model, through bitsandbytes.
        memory: bytes that conversations in progress and caches may take together; None plans with
            what is free once the weights are loaded. Requests wait where they do not fit.
        max_pixels, min_pixels: bounds on the area in which the model sees an image; of every image
            for which no number of visual tokens is given. None leaves it to the checkpoint.
        visual_tokens: about so many for each image but looks; the family's nearest, with a warning
            where that is far off.
        look_visual_tokens: about so many for each look, an image cut from another.
        verifier: the folder of a trained verifier, an adapter beside the one that answers; for
            `vision.verifier.score` and `logratio`.

    Raises:
        ModelUnavailable: missing, gated, offline, too large, or of a kind that is not supported;
            the message says the remedy.
        ValueError: no such dtype, no such `quantize`, or a number that is not positive.
    """
    budgets = ImageBudgets(max_pixels, min_pixels, visual_tokens, look_visual_tokens)
    options = LoadOptions(
        device, dtype, adapter, trust_remote_code, threads, quantize, memory, budgets, verifier
    )
    with no_collecting():
        return _load(name, options)


def _load(name: str, options: LoadOptions) -> HFVLM | GenericVLM:
    folder = find(name, code=options.trust_remote_code)
    if is_adapter(folder):
        if options.adapter:
            raise ModelUnavailable(
                f"{name} is an adapter itself; give its base to use {options.adapter}"
            )
        options = replace(options, adapter=str(folder))
        folder = find(base_of(folder), code=options.trust_remote_code)
    checkpoint = inspect(folder)
    _check_supported(checkpoint, options)
    placement = place(checkpoint, options)
    warm_up()
    set_threads(options.threads, placement.device, checkpoint)
    with _quiet():
        if family_of(checkpoint.model_type) is None:
            return _unlisted(name, checkpoint, placement, options)
        return _listed(name, checkpoint, placement, options)


def _listed(name: str, checkpoint: Checkpoint, placement: Placement, options: LoadOptions) -> HFVLM:
    from mm.engine.engine import Engine, RequestOptions
    from mm.tokens.loading import load_builder

    from .fast_vision_tower import speed_up
    from .hf_vlm import HFVLM

    kw = {"local_files_only": True, "trust_remote_code": options.trust_remote_code}
    try:
        builder = load_builder(str(checkpoint.folder), budgets=options.budgets, **kw)
    except Exception as error:  # a tokenizer or a config from elsewhere can make it raise anything
        raise ModelUnavailable(f"{name}: {why(error)}") from error
    for adapter in filter(None, (options.adapter, options.verifier)):
        check_base(find(adapter), checkpoint.folder)
    model = read_weights(checkpoint, placement, trust_remote_code=options.trust_remote_code)
    model = speed_up(model).eval()
    if options.adapter:
        model = with_adapter(model, options.adapter).eval()
    if options.verifier:
        model = with_adapter(model, options.verifier, VERIFIER).eval()
    engine = Engine(model, builder, budget=options.memory, **_budgets(placement.device))
    requests = RequestOptions(adapter=ADAPTER if options.adapter else None)
    return HFVLM(engine, name=name, options=requests, folder=checkpoint.folder)


def _unlisted(
    name: str, checkpoint: Checkpoint, placement: Placement, options: LoadOptions
) -> GenericVLM:
    from .generic_processor import read_processor
    from .generic_vlm import load_generic

    code = options.trust_remote_code
    if options.adapter or options.verifier:
        raise ModelUnavailable(f"{name}: adapters need a listed family, and its is not")
    # before gigabytes are read, since it may be refused
    processor = read_processor(str(checkpoint.folder), name=name, trust_remote_code=code)
    model = read_weights(checkpoint, placement, trust_remote_code=code).eval()
    return load_generic(model, processor, name=name, budgets=options.budgets)


def _budgets(device: torch.device) -> dict[str, int]:
    """Bytes that the engine may cache: a quarter of a GPU's free memory, else half a GiB."""
    budget = max(free_bytes(device) // 4, 2**28) if device.type == "cuda" else 2**29
    return {"context_budget": budget, "feature_budget": budget // 4}


def _check_supported(checkpoint: Checkpoint, options: LoadOptions) -> None:
    model_type, brings_code = checkpoint.model_type, "auto_map" in checkpoint.config
    if family_of(model_type) or _reads_images(model_type):
        return
    if not brings_code:
        known = ", ".join(family.name for family in FAMILIES)
        raise ModelUnavailable(
            f"{checkpoint.folder}: model type {model_type!r} is not supported; use one of {known}"
        )
    if not options.trust_remote_code:
        raise ModelUnavailable(
            f"{checkpoint.folder}: model type {model_type!r} comes with code of its own: read it, "
            "then load with trust_remote_code=True"
        )
    missing = [f for f in code_files(checkpoint.config) if not (checkpoint.folder / f).is_file()]
    if missing:
        raise ModelUnavailable(f"{checkpoint.folder} lacks {min(missing)}, its model's code")
    if answering_class(checkpoint) is None:
        raise ModelUnavailable(
            f"{checkpoint.folder}: its code names no class that answers: auto_map in config.json "
            f"has none of {', '.join(ANSWERING)}"
        )


def _reads_images(model_type: str) -> bool:
    """Whether transformers has a model of this type that answers about images."""
    hide_broken_torchvision()
    from transformers.models.auto import modeling_auto

    return model_type in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


@contextmanager
def no_collecting() -> Iterator[None]:
    """Suspends garbage collection: imports make a million objects that stay, and collections
    would take a sixth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars or advice from transformers while it loads."""
    from transformers.utils import logging as theirs

    level, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(level)
        if bars:
            theirs.enable_progress_bar()
