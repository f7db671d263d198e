"""The bundle's fast paths are the library's arithmetic: packed rows equal conversations that stand
alone."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image as Pil

from mm.types import Image
from training.bundle.encoder import encode_views, patches
from training.bundle.language_stage import decode
from training.bundle.packing import collate
from training.bundle.rows import _SYSTEM, RowMaker, _conversation, make_batch
from training.bundle.shards import VIEW, Views, crop_windows, overview, tile_windows, training_scene
from training.tabletop.render import render
from vision.crop import square_view


@pytest.fixture(scope="module")
def tiny():
    from training.bundle.assemble import parts

    model, builder = parts()
    model.eval()
    model.model.language_model.set_attn_implementation("eager")
    return model, builder


def views_of(index: int) -> Views:
    scene = training_scene(index)
    picture = render(scene)
    crops = [np.asarray(square_view(picture, w, VIEW)) for w in crop_windows(scene)]
    tiles = [np.asarray(picture.crop(w)) for w in tile_windows(scene)]
    return Views(scene, np.asarray(overview(picture)), np.stack(crops), np.stack(tiles))


def posable(maker: RowMaker, mode: str, kind: str, views: Views) -> int:
    return next(s for s in range(50) if maker.branch(mode, kind, views, random.Random(s)))


def test_views_are_encoded_as_the_library_encodes_pictures(tiny):
    model, _ = tiny
    visual = model.model.visual
    views = torch.randint(0, 256, (3, VIEW, VIEW, 3), dtype=torch.uint8)
    config = visual.config
    flat = patches(views, config.patch_size, config.spatial_merge_size)
    both_slots = flat.view(-1, 3, 1, config.patch_size**2).expand(-1, 3, 2, -1).reshape(-1, 1536)
    with torch.no_grad():
        ours = encode_views(visual, views)
        theirs = visual(both_slots, torch.tensor([[1, 8, 8]] * 3))
    torch.testing.assert_close(ours.tokens.flatten(0, 1), theirs.pooler_output, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        ours.deepstack[0].flatten(0, 1), theirs.deepstack_features[0], atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    ("mode", "kinds"),
    [
        pytest.param("direct", ["caption", "count", "locate"], id="one look"),
        pytest.param("zoom", ["read", "count", "read"], id="looking again"),
        pytest.param("think", ["count"], id="thinking"),
    ],
)
def test_a_branch_of_a_packed_row_equals_the_conversation_alone(tiny, mode, kinds):
    model, builder = tiny
    maker, views = RowMaker(builder), views_of(3)
    states = [posable(maker, mode, kind, views) for kind in kinds]
    segments = [maker.prefix(mode, views)]
    for kind, seed in zip(kinds, states, strict=True):
        segment = maker.branch(mode, kind, views, random.Random(seed))
        assert segment
        segments.append(segment)
    batch = collate([(segments, ["", *kinds])], views=16)
    with torch.no_grad():
        packed = decode(model, batch)[0]
    at = len(segments[0].ids)
    for kind, seed, segment in zip(kinds, states, segments[1:], strict=True):
        conversation = _conversation(mode, kind, views, random.Random(seed))
        assert conversation
        messages, crops = conversation
        pictures = iter([views.overview, *crops])
        shown = [
            type(m)(
                m.role,
                tuple(
                    Image(Pil.fromarray(next(pictures))) if isinstance(p, Image) else p
                    for p in m.parts
                ),
            )
            for m in messages
        ]
        tokens = builder.build((*_SYSTEM[mode], *shown), open_turn=False)
        ids = torch.tensor([tokens.ids])
        with torch.no_grad():
            alone = model.model(
                input_ids=ids,
                mm_token_type_ids=(ids == builder.placeholder_id).int(),
                pixel_values=torch.cat([s.tensors["pixel_values"] for s in tokens.images]),
                image_grid_thw=torch.cat([s.tensors["image_grid_thw"] for s in tokens.images]),
            ).last_hidden_state[0]
        prefix = len(segments[0].ids)
        mine = packed[at : at + len(segment.ids)]
        torch.testing.assert_close(
            mine, alone[prefix : prefix + len(segment.ids)], atol=2e-5, rtol=0
        )
        at += len(segment.ids)


def test_only_what_the_assistant_wrote_trains(tiny):
    _, builder = tiny
    views = views_of(5)
    batch = make_batch(RowMaker(builder), lambda: views, random.Random(0), rows=4, views=20)
    trained = batch.ids[batch.trained].tolist()
    assert builder.placeholder_id not in trained
    for row in range(4):
        words = builder.tokenizer.decode(batch.ids[row][batch.trained[row]].tolist())
        assert "<|im_start|>" not in words
        assert "<tool_response>" not in words
