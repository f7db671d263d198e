"""Packed rows that replay memories equal the conversations alone, and memories what an engine
remembers."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from mm.engine.kv_slots import dynamic_cache
from mm.engine.model_runner import ModelRunner
from mm.types import Features, Image
from training.bundle.language_stage import decode
from training.bundle.memories import GRID, _encoded, _tiles
from training.bundle.packing import collate
from training.bundle.rows import _SYSTEM, FULL_TOKENS, RowMaker, _conversation
from training.bundle.shards import VIEW, Views, overview, training_scene
from training.tabletop.render import render

INDEX = 3


@pytest.fixture(scope="module")
def tiny():
    from training.bundle.assemble import parts

    model, builder = parts()
    model.eval()
    model.model.language_model.set_attn_implementation("eager")
    return model, builder


@pytest.fixture(scope="module")
def views() -> Views:
    scene = training_scene(INDEX)
    nothing = np.zeros((len(scene.things), VIEW, VIEW, 3), np.uint8)
    return Views(scene, np.asarray(overview(render(scene))), nothing, nothing)


def remembered(model, builder, picture) -> np.ndarray:
    """The whole memory as an engine encodes it: (GRID, GRID, layers, D)."""
    from mm.types import user

    (span,) = builder.build((user(Features(picture)),)).images
    with torch.no_grad():
        seen = ModelRunner(model, builder).encode_images([span])[0]
    return torch.stack([seen.embeds, *seen.deep], 1).view(GRID, GRID, 2, -1).numpy()


def test_memories_are_what_an_engine_remembers(tiny):
    model, builder = tiny
    theirs = remembered(model, builder, Image(render(training_scene(INDEX))))
    ours = _encoded(model.model.visual, _tiles(INDEX)).numpy()
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).mean() < 0.02 * np.abs(theirs).mean()  # bf16 against float32


@pytest.mark.parametrize(
    ("mode", "kinds"),
    [
        pytest.param("replay", ["read", "same"], id="regions"),
        pytest.param("full", ["read", "same"], id="the whole memory"),
    ],
)
def test_a_branch_that_replays_equals_the_conversation_alone(tiny, views, mode, kinds):
    model, builder = tiny
    picture = Image(render(views.scene))
    memory = remembered(model, builder, picture)
    views = replace(views, memory=memory)
    maker = RowMaker(builder)
    seeds = [
        next(s for s in range(50) if maker.branch(mode, kind, views, random.Random(s)))
        for kind in kinds
    ]
    segments = [maker.prefix(mode, views)]
    for kind, seed in zip(kinds, seeds, strict=True):
        segment = maker.branch(mode, kind, views, random.Random(seed))
        assert segment
        assert segment.replayed > 0 or mode == "full"
        segments.append(segment)
    labels = ["", *(f"{mode} {kind}" for kind in kinds)]
    batch = collate([(segments, labels)], 4, FULL_TOKENS, blocks=700)
    batch = batch._replace(blocks=_exactly(segments, 700))
    with torch.no_grad():
        packed = decode(model, batch)[0]
    at = len(segments[0].ids)
    for kind, seed, segment in zip(kinds, seeds, segments[1:], strict=True):
        alone = _alone(model, builder, mode, kind, views, picture, seed)
        prefix = len(segments[0].ids)
        torch.testing.assert_close(
            packed[at : at + len(segment.ids)],
            alone[prefix : prefix + len(segment.ids)],
            atol=3e-5,
            rtol=0,
        )
        at += len(segment.ids)


def _exactly(segments, room: int) -> torch.Tensor:
    """The replayed tokens in float32; training keeps them in float16."""
    blocks = [b.reshape(-1, *b.shape[2:]) for s in segments for _, b in s.blocks]
    joined = torch.from_numpy(np.concatenate(blocks))
    return torch.cat([joined, joined.new_zeros(room - len(joined), *joined.shape[1:])])


def _alone(model, builder, mode, kind, views, picture, seed) -> torch.Tensor:
    """Hidden states of the same conversation about the real picture, as an engine computes them."""
    conversation = _conversation(mode, kind, views, random.Random(seed))
    assert conversation
    messages = [
        replace(m, parts=tuple(_real(part, views, picture) for part in m.parts))
        for m in conversation[0]
    ]
    tokens = builder.build((*_SYSTEM[mode], *messages), open_turn=False)
    weights = ModelRunner(model, builder)
    with torch.no_grad():
        seen = weights.encode_images(tokens.images)
        parts = [
            s.block(span.block) if span.block else s
            for s, span in zip(seen, tokens.images, strict=True)
        ]
        embeds, extra = weights.inputs(tokens.ids, 0, parts)
        return weights.forward(embeds, weights.positions(tokens), dynamic_cache(()), **extra)[0]


def _real(part, views, picture):
    from PIL import Image as Pil

    if isinstance(part, Image):
        return Image(Pil.fromarray(views.overview))
    return replace(part, image=picture) if isinstance(part, Features) else part
