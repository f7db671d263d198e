"""What a training of latents begins with: the model, the module, and the adapter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from PIL import Image as Pil

import mm
from mm.errors import ModelUnavailable, UserError
from mm.local.adapters import is_adapter, with_adapter
from mm.local.checkpoints import find
from mm.local.hf_vlm import HFVLM
from training.data import BadData
from training.trainers.lora import adapted, let_learn
from vision.latent_reader import features_of
from vision.midi import READER, Midi, MidiConfig, is_marked, load_midi, mark_of

from .recipe import LATENTS, LatentsRecipe


def check_whole(recipe: LatentsRecipe) -> None:
    """Refuse to train an adapter on an adapter.

    Raises:
        BadData: so it is.
    """
    trains = recipe.stage == 2 or recipe.reads == "model"
    if trains and is_adapter(find(recipe.model)):
        raise BadData(
            f"--model {recipe.model} is an adapter, and this trains another: give a whole model"
        )


def loaded(recipe: LatentsRecipe) -> HFVLM:
    """The model.

    Raises:
        ModelUnavailable: it cannot be loaded, or is of no listed family.
    """
    vlm = mm.load(
        recipe.model,
        device=recipe.device,
        max_pixels=recipe.max_pixels,
        min_pixels=recipe.min_pixels,
        visual_tokens=recipe.visual_tokens,
    )
    if not isinstance(vlm, HFVLM):
        raise ModelUnavailable(f"{recipe.model}: only families that `mm info` lists can be trained")
    return vlm


def module_for(recipe: LatentsRecipe, vlm: HFVLM) -> Midi:
    """The module as the training begins with it: of a stage 1, or of random weights.

    Raises:
        ModelUnavailable: the stage 1 cannot be loaded.
        UserError: it is a control, or of another model, kind of maps, way of reading or number of
            latents.
    """
    torch.manual_seed(recipe.seed)
    if recipe.start:
        return _begun(recipe, recipe.start, vlm)
    table = vlm.engine.model.get_input_embeddings().weight
    width = table.shape[1]
    (seen,) = features_of(vlm.engine, [_grey()])
    config = MidiConfig(
        vision_width=seen.shape[-1],
        model_width=width,
        vocabulary=table.shape[0],
        hidden=recipe.hidden or min(width, 768),
        layers=recipe.layers or _layers(recipe, width),
        latents=recipe.latents,
        base=vlm.engine.on_thread(mark_of, vlm.engine.model),
        kind=recipe.learned,
        depth_kind=recipe.depth_kind if recipe.learned == "midi" else "",
        reads=recipe.reads,
        stage=recipe.stage,
    )
    midi = Midi(config)
    if config.reads == "model":  # latents begin as long as words are
        midi.size.data.fill_(table.float().square().mean().sqrt())
    return midi


def _begun(recipe: LatentsRecipe, start: str, vlm: HFVLM) -> Midi:
    """The module in the folder `start`, of which nothing may differ from what was asked for."""
    midi = load_midi(start)
    known = midi.config
    if known.kind != "midi":
        raise UserError(f"{start} is a control, --learned {known.kind}: nothing begins with it")
    if not vlm.engine.on_thread(is_marked, vlm.engine.model, known.base):
        raise UserError(f"{start} was trained for other weights than {recipe.model}")
    if known.depth_kind not in ("", recipe.depth_kind):
        raise UserError(
            f"{start} was trained on {known.depth_kind} depth, not on {recipe.depth_kind}: give "
            "maps of the same kind"
        )
    if known.reads != recipe.reads:
        raise UserError(
            f"{start} was trained with --reads {known.reads}, not {recipe.reads}: give the same"
        )
    if recipe.latents not in (known.latents, LATENTS):
        raise UserError(
            f"{start} has {known.latents} latents, not {recipe.latents}: leave --latents out"
        )
    midi.config = replace(known, depth_kind=recipe.depth_kind, stage=recipe.stage)
    return midi


def _layers(recipe: LatentsRecipe, width: int) -> int:
    """Of the Mamba: few where the language model reads for it."""
    if recipe.reads == "model":
        return 2
    return 24 if width >= 1024 else 4


def _grey() -> mm.Image:
    return mm.Image(Pil.new("RGB", (64, 64), (128, 128, 128)))


def coupled(recipe: LatentsRecipe, midi: Midi, vlm: HFVLM) -> Any:
    """The model as it is trained with: frozen, with an adapter that reads for the module, and in
    stage 2 another one that answers."""
    model = vlm.engine.model.requires_grad_(False)
    before = find(recipe.start) / READER if recipe.start else None
    if before is not None and is_adapter(before):
        model = with_adapter(model, str(before), READER)
    elif midi.config.reads == "model" and midi.config.kind == "midi":
        model = adapted(model, recipe.lora_rank, READER)
    if recipe.stage == 2:
        model = adapted(model, recipe.lora_rank)
    return let_learn(model)
