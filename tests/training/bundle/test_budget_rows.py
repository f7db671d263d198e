"""Rows of larger images: what is trained on is what the library makes of such an image."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from mm.local.precision import fast_dtype
from training.bundle.assemble import image_processor, parts
from training.bundle.budget_rows import budget_row, length
from training.bundle.enlarged import SIDES, Enlarged, write_enlarged
from training.bundle.language_stage import decode
from training.bundle.packing import KINDS, collate
from training.bundle.rows import RowMaker
from training.bundle.shards import VIEW, Shards, Views, training_scene
from training.tabletop.render import render


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    model, builder = parts()
    model.eval()
    folder = tmp_path_factory.mktemp("enlarged")
    written = list(write_enlarged(model.model.visual, folder, scenes=2))
    return model, builder, Enlarged(folder), written


class FirstScenes(Shards):
    """Shards of the first scenes, whose views are not needed."""

    def __init__(self) -> None:
        pass

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int):
        nothing = np.zeros((0, VIEW, VIEW, 3), np.uint8)
        return Views(training_scene(index), np.zeros((VIEW, VIEW, 3), np.uint8), nothing, nothing)


def test_each_budget_is_encoded_once(made) -> None:
    _, _, enlarged, written = made
    assert tuple(written) == SIDES
    assert len(enlarged) == 2
    assert all(enlarged.seen(side, 1).shape[:2] == (side, side) for side in SIDES)


@pytest.mark.parametrize("side", SIDES[:2])
def test_a_row_is_the_librarys_own_reading_of_a_larger_image(made, side) -> None:
    model, builder, enlarged, _ = made
    segments, kinds = budget_row(
        RowMaker(builder), builder, FirstScenes(), enlarged, side, random.Random(3)
    )
    assert set(kinds[1:]) <= set(KINDS)
    index = next(
        i for i in range(2) if np.array_equal(segments[0].blocks[0][1], enlarged.seen(side, i))
    )
    pixels = side * VIEW // 4
    edge = {"shortest_edge": pixels * pixels, "longest_edge": pixels * pixels}
    image = render(training_scene(index))
    seen = image_processor()(images=[image], size=edge, return_tensors="pt")
    ids = torch.tensor([segments[0].ids + segments[1].ids])
    batch = collate([(segments, kinds)], 1, length(side), side * side)
    with torch.no_grad():
        packed = decode(model, batch)[0, : ids.shape[1]]
        alone = model.model(
            input_ids=ids,
            mm_token_type_ids=(ids == builder.placeholder_id).int(),
            pixel_values=seen["pixel_values"],
            image_grid_thw=seen["image_grid_thw"],
        ).last_hidden_state[0]
    torch.testing.assert_close(packed, alone, atol=5e-2, rtol=0)
    close = (packed - alone).abs().mean() / alone.abs().mean()
    seen_in = fast_dtype(torch.device("cpu"))  # and kept in half precision
    assert close < (1e-2 if seen_in == torch.bfloat16 else 2e-3)
