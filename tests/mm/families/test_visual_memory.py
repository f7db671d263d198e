"""Pictures in memory: their tiles, the paper's budgets, and that looking at them again is free."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from images import noise
from tiny_models import FAMILIES

from mm.engine.engine import Engine
from mm.errors import ModelError
from mm.families.registry import RECALLING
from mm.families.visual_memory import TileGrid, block, fitting, tile_grid
from mm.geometry import WHOLE, Region
from mm.local.hf_vlm import HFVLM
from mm.types import Features, Message, Sampling, assistant, message, user
from mm.vlm import Memory

SHORT = Sampling(max_tokens=4)
PLACE = Region(0.3, 0.1, 0.6, 0.7)
image = partial(noise, size=(150, 100))


def model(family: str) -> HFVLM:
    tiny = FAMILIES[family]()
    vlm = HFVLM(Engine(tiny.model, tiny.builder))
    vlm.engine.clear_caches()
    return vlm


@pytest.mark.parametrize(
    ("size", "most", "tiles"),
    [
        pytest.param((768, 768), 36, (6, 6), id="tiny's own"),
        pytest.param((20, 20), 36, (1, 1), id="smaller than a tile"),
        pytest.param((128, 1024), 36, (1, 8), id="1:8"),
        pytest.param((1024, 128), 36, (8, 1), id="8:1"),
        pytest.param((8000, 6000), 36, (7, 5), id="too large, made smaller"),
        pytest.param((40000, 300), 20, (20, 1), id="a strip"),
    ],
)
def test_tiles_keep_a_pictures_shape(size, most, tiles) -> None:
    assert fitting(size, 128, most) == tiles


@given(st.integers(1, 9000), st.integers(1, 9000), st.integers(1, 64))
def test_no_picture_takes_more_tiles_than_allowed(width: int, height: int, most: int) -> None:
    columns, rows = fitting((width, height), 336, most)
    assert columns >= 1
    assert rows >= 1
    assert columns * rows <= most


@pytest.mark.parametrize(
    ("tiles", "tokens"),
    [
        pytest.param((2, 2), 288, id="4 crops"),
        pytest.param((4, 4), 720, id="16 crops"),
        pytest.param((5, 4), 864, id="20 crops"),
        pytest.param((8, 8), 2448, id="64 crops"),
    ],
)
def test_the_overview_has_the_papers_budget(tiles: tuple[int, int], tokens: int) -> None:
    memory = Memory(tile=336, max_tiles=64, snapshot=2, local=4)
    size = (336 * tiles[0], 336 * tiles[1])
    shapes = [
        block(WHOLE, tile_grid(memory, size, lambda _: (24, 24), snapshot=snapshot), pool).shape
        for snapshot, pool in ((True, 2), (False, 4))
    ]
    assert sum(columns * rows for columns, rows in shapes) == tokens


@pytest.mark.parametrize(
    ("region", "pool", "box", "shape"),
    [
        pytest.param(Region(0.25, 0.5, 0.5, 1), 1, (6, 12, 12, 24), (6, 12), id="on the grid"),
        pytest.param(Region(0.26, 0.51, 0.49, 0.99), 1, (6, 12, 12, 24), (6, 12), id="touched"),
        pytest.param(Region(0.5, 0.5, 0.501, 0.501), 1, (12, 12, 14, 14), (2, 2), id="at least 2"),
        pytest.param(Region(0.99, 0.99, 1, 1), 1, (22, 22, 24, 24), (2, 2), id="in the corner"),
        pytest.param(Region(0, 0, 5 / 24, 3 / 24), 2, (0, 0, 5, 3), (3, 2), id="odd, pooled"),
    ],
)
def test_a_block_is_what_its_region_touches(region, pool, box, shape) -> None:
    found = block(region, TileGrid((128, 128), (6, 6), (4, 4)), pool)
    assert (found.box, found.shape) == (box, shape)


def test_pooling_averages_what_is_there() -> None:
    found = block(Region(0, 0, 3 / 4, 1 / 2), TileGrid((64, 64), (1, 1), (4, 4)), 2)
    tokens = torch.arange(16.0)[:, None]
    assert found.of(tokens).flatten().tolist() == [2.5, 4.0]  # of 0 1 4 5, and of 2 6


def test_tiles_are_put_together_row_by_row() -> None:
    grid = TileGrid((64, 64), (2, 1), (2, 2))
    tiles = torch.tensor([0.0, 1, 2, 3, 10, 11, 12, 13])[:, None]
    assert grid.join(tiles).flatten().tolist() == [0, 1, 10, 11, 2, 3, 12, 13]


@pytest.mark.parametrize("family", ["qwen3_vl", "llava_next"])
def test_a_replayed_region_is_the_slice_of_what_the_whole_is(family: str) -> None:
    vlm = model(family)
    whole, part = (
        vlm.builder.build((user(Features(image(1), region)),)).images[0]
        for region in (WHOLE, PLACE)
    )
    assert part.block
    assert whole.block
    seen = vlm.engine.on_thread(vlm.engine.runner.encode_images, [part])[0]
    columns, rows = whole.shape
    x0, y0, x1, y1 = part.block.box
    grid = seen.embeds.view(rows, columns, -1)
    torch.testing.assert_close(seen.block(part.block).embeds, grid[y0:y1, x0:x1].flatten(0, 1))


def test_a_whole_memory_in_one_tile_is_the_picture_itself() -> None:
    vlm = model("qwen3_vl")
    shown, remembered = (
        vlm.engine.next_logits(vlm.builder.build((user(seen, "what?"),)))
        for seen in (image(1), Features(image(1)))
    )
    torch.testing.assert_close(shown, remembered, atol=1e-5, rtol=0)


def test_llava_next_remembers_a_tile_as_it_sees_one() -> None:
    vlm = model("llava_next")
    tile = image(1, size=(56, 56))
    (span,) = vlm.builder.build((user(Features(tile)),)).images
    (whole,) = vlm.builder.build((user(tile),)).images
    ours, theirs = vlm.engine.on_thread(vlm.engine.runner.encode_images, (span, whole))
    torch.testing.assert_close(ours.embeds, theirs.embeds[: len(ours.embeds)])


@pytest.mark.parametrize("family", ["qwen3_vl", "llava_next"])
def test_a_second_look_from_memory_has_the_logits_of_a_fresh_run(family: str) -> None:
    vlm = model(family)
    first = (user(Features(image(1), pool=2), "what letter?"),)
    second = (*first, assistant("I look"), message("tool", Features(image(1), PLACE)))
    vlm.generate([first], SHORT)
    vlm.generate([(user(image(2), Features(image(2), PLACE), "and here?"),)], SHORT)
    tokens = vlm.builder.build(second)
    continued = vlm.engine.next_logits(tokens)
    vlm.engine.clear_caches()
    torch.testing.assert_close(continued, vlm.engine.next_logits(tokens), atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["qwen3_vl", "llava_next"])
def test_a_replay_encodes_nothing(family: str) -> None:
    vlm = model(family)
    passes: list[object] = []
    tower = FAMILIES[family]().model.model
    tower = getattr(tower, "visual", None) or tower.vision_tower
    hook = tower.register_forward_hook(lambda *made: passes.append(made))
    try:
        conversation = (user(Features(image(3), pool=2), "what letter?"),)
        for region in (PLACE, Region(0, 0, 0.5, 0.5), Region(0.5, 0.5, 1, 1)):
            (reply,) = vlm.generate([conversation], SHORT)
            shown = message("tool", Features(image(3), region))
            conversation = (*conversation, reply.message, shown)
        assert len(passes) == 1
        assert vlm.generate([conversation], SHORT)[0].cost.patches == 0
    finally:
        hook.remove()


@pytest.mark.parametrize("family", ["qwen3_vl", "llava_next"])
def test_what_a_block_costs_is_what_enters_the_context(family: str) -> None:
    vlm = model(family)
    for features in (Features(image(1), PLACE), Features(image(1), snapshot=True, pool=2)):
        tokens = vlm.builder.build((user(features),))
        assert tokens.ids.count(vlm.builder.placeholder_id) == vlm.feature_tokens(features)
        assert not any(tokens.trained)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"qwen3_vl", "llava_next"}))
def test_other_families_refuse_by_name(family: str) -> None:
    vlm = model(family)
    assert vlm.traits.memory is None
    with pytest.raises(ModelError, match=f"cannot replay .* {' and '.join(RECALLING)} can"):
        vlm.generate([(user(Features(image(1)), "what?"),)], SHORT)


def test_a_memory_of_another_picture_is_another_context() -> None:
    vlm = model("qwen3_vl")
    said: list[Message] = [user(Features(image(n), PLACE), "what?") for n in (1, 2)]
    first, second = (vlm.engine.next_logits(vlm.builder.build((m,))) for m in said)
    assert not torch.allclose(first, second, atol=1e-4)
    moved = Features(image(1), replace(PLACE, x0=0.0, x1=0.31))
    assert vlm.feature_tokens(moved) == vlm.feature_tokens(Features(image(1), PLACE))
    third = vlm.engine.next_logits(vlm.builder.build((user(moved, "what?"),)))
    assert not torch.allclose(first, third, atol=1e-4)
