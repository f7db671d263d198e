"""The depth model: what it begins with, what it learns from, the folder that ships."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from mm.types import Image
from training.bundle import depth_stage
from training.bundle.depth_network import PATCH, PERIODS, TURNS, make_depth_model, waves
from training.bundle.depth_stage import PIXELS, SIZES, export_depth, train_depth
from training.bundle.stage import load_checkpoint
from vision.depth_source import estimated


@pytest.fixture(scope="module")
def model():
    return make_depth_model().eval()


def test_filters_have_no_mean_and_length_one() -> None:
    filters = waves(PATCH)
    assert filters.shape == (2 * TURNS * len(PERIODS), PATCH, PATCH)
    assert filters.mean((1, 2)).abs().max() < 1e-6
    assert filters.flatten(1).norm(dim=1) == pytest.approx(torch.ones(len(filters)), abs=1e-5)


@pytest.mark.parametrize("number", [0, 3, 7], ids=lambda number: f"{PERIODS[number]:.1f} pixels")
def test_it_begins_by_seeing_which_wave_is_there(model, number: int) -> None:
    """Of whatever phase."""
    at = torch.arange(PATCH) * 2 * torch.pi / PERIODS[number]
    for phase in (0.0, 1.0, 2.0):
        shown = 0.1 * (at + phase).sin().expand(1, 3, PATCH, PATCH)
        with torch.no_grad():
            embedded = model.backbone.embeddings(shown)
            seen = model.backbone.encoder.layer[0](embedded)
        strengths = seen[0, 1, len(waves(PATCH)) :][: len(waves(PATCH))]
        pairs = strengths.view(len(PERIODS), TURNS, 2).sum(-1)
        assert int(pairs.argmax()) // TURNS == number


@pytest.mark.parametrize("side", sorted(set(SIZES)))
def test_a_batch_shows_things_of_its_size(side: int) -> None:
    batch = depth_stage._batch(side, random.Random(1))
    assert batch.pixels.shape[2:] == (side, side)
    assert batch.pixels.shape[0] * side**2 <= max(PIXELS, side**2)
    assert batch.pixels.abs().max() <= 1
    things = batch.metres[batch.weights > 1]
    assert len(things)
    assert things.max() < batch.metres.max()


def test_it_goes_on_from_where_it_stopped(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(depth_stage, "PIXELS", 128 * 128)
    monkeypatch.setattr(depth_stage, "CHECKPOINT_EVERY", 1)
    whole, halves = make_depth_model(), make_depth_model()
    train_depth(whole, tmp_path / "whole", steps=2)
    made = depth_stage.batches
    monkeypatch.setattr(depth_stage, "batches", lambda first, _: made(first, 1))  # killed after one
    train_depth(halves, tmp_path / "halves", steps=2)
    state = load_checkpoint(tmp_path / "halves" / "depth.pt")
    assert state is not None
    assert state["step"] == 1
    monkeypatch.setattr(depth_stage, "batches", made)
    halves = make_depth_model()
    train_depth(halves, tmp_path / "halves", steps=2)
    for ours, theirs in zip(halves.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_what_ships_gives_metres_for_any_image(model, tmp_path: Path) -> None:
    export_depth(model, tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (90, 130, 3), np.uint8)
    depth = estimated(str(tmp_path), Image(PIL.Image.fromarray(pixels)))
    assert depth.kind == "metric"
    assert depth.size == (130, 90)
