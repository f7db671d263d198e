"""A model that learns more is held to what it answered, and only where it knew how to."""

from __future__ import annotations

import random
from copy import deepcopy

import numpy as np
import pytest
import torch

from mm.tokens.builder import TokenBuilder
from training.bundle.assemble import parts
from training.bundle.extend_rows import DEPTH_TOKENS, depth_row
from training.bundle.keeping import KNOWN, distance
from training.bundle.language_stage import decode, trained_logits
from training.bundle.packing import KINDS, Batch, collate
from training.bundle.rows import RowMaker, make_batch
from training.bundle.shards import VIEW, Views, training_scene

NOTHING = np.zeros((0, VIEW, VIEW, 3), np.uint8)


@pytest.fixture(scope="module")
def tiny():
    model, builder = parts()
    return model.eval(), builder


def known(builder: TokenBuilder) -> Batch:
    def views() -> Views:
        return Views(training_scene(1), np.zeros((VIEW, VIEW, 3), np.uint8), NOTHING, NOTHING)

    return make_batch(RowMaker(builder), views, random.Random(1), 1, 1, modes=(("direct", 1.0),))


def new(builder: TokenBuilder) -> Batch:
    return collate([depth_row(builder, random.Random(1))], 4, DEPTH_TOKENS)


@pytest.mark.parametrize(
    ("made", "moved", "held"),
    [
        pytest.param(known, 0.0, False, id="a model that has not changed"),
        pytest.param(known, 0.1, True, id="one that has"),
        pytest.param(new, 0.1, False, id="one that has, where it knew nothing"),
    ],
)
def test_it_is_held_to_what_it_knew(tiny, made, moved: float, held: bool) -> None:
    model, builder = tiny
    batch = made(builder)
    before = deepcopy(model)
    changed = deepcopy(model)
    with torch.no_grad():
        changed.lm_head.weight[7] += moved
        logits, wanted, kinds = trained_logits(changed, decode(changed, batch), batch)
        found = distance(before, batch, logits, kinds)
    assert found.shape == wanted.shape
    assert bool(found.mean() > 1e-5) is held
    assert held or float(found.abs().max()) < 1e-6


def test_what_was_known_comes_first() -> None:
    assert KINDS[: len(KNOWN)] == KNOWN
    assert {"count", "replay read"} <= set(KNOWN)
    assert not any(kind.startswith(("depth", "watch", "verdict", "full")) for kind in KNOWN)
