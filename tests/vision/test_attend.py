"""Attention-guided crops: whose attention, which window, for any model and any picture."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from images import noise
from tiny_models import FAMILIES

import mm
from mm.engine.engine import Engine
from mm.geometry import Region
from mm.local.hf_vlm import HFVLM
from mm.origins import Cropped
from mm.scripted import ScriptedVLM
from mm.strategies.forced_answer import opens_answer
from mm.types import Conversation, user
from mm.vlm import Aim
from vision.attend import attend, generic, window

families = pytest.mark.parametrize("family", FAMILIES)


def vlm(family: str = "qwen3_vl") -> HFVLM:
    tiny = FAMILIES[family]()
    return HFVLM(Engine(tiny.model, tiny.builder), name=family)


def eager_rows(model: HFVLM, conversation: Conversation, layer: int) -> torch.Tensor:
    """The library's own attention weights (T, T), mean over heads."""
    tokens, whole = model.builder.build(conversation), model.engine.model
    from mm.engine.attention_maps import _inputs

    decoder = whole.get_decoder()
    before = decoder.config._attn_implementation
    decoder.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            out = whole(**_inputs(whole, model.builder, tokens), output_attentions=True)
    finally:
        decoder.set_attn_implementation(before)
    return out.attentions[layer][0].mean(0)


@families
@pytest.mark.parametrize("layer", [0, 1])
def test_attention_is_the_librarys_own(family: str, layer: int) -> None:
    model = vlm(family)
    conversation = (user(noise(1), "what letter is on the red square?"),)
    seen = model.attention(conversation, [layer])
    ((found,),) = seen.maps
    tokens = model.builder.build(conversation)
    (span,) = tokens.images
    slots = [
        i for i in range(span.start, span.stop) if tokens.ids[i] == model.builder.placeholder_id
    ]
    grid = model.builder.grid(span.image.size)
    whole = eager_rows(model, conversation, layer)[-1][slots].numpy()
    wanted = whole[grid.first : grid.first + grid.rows * grid.columns]
    assert found.shape == (grid.rows, grid.columns)
    np.testing.assert_allclose(found.ravel(), wanted, atol=1e-6)
    assert seen.cost.computed_tokens == len(tokens.ids)
    assert seen.cost.patches == span.patches


def test_the_words_are_those_after_the_picture() -> None:
    model = vlm()
    conversation = (user(noise(1), "what letter is on the red square?"),)
    tokens = model.builder.build(conversation)
    begin = tokens.images[0].stop + 1  # the picture's closing marker is no word
    stop = next(i for i in range(begin, len(tokens.ids)) if tokens.ids[i] in model.builder.end_ids)
    ((found,),) = model.attention(conversation, [1], query="words").maps
    span = tokens.images[0]
    rows = eager_rows(model, conversation, 1)[begin:stop, span.start : span.stop].mean(0)
    np.testing.assert_allclose(found.ravel(), rows.numpy(), atol=1e-6)


def test_gradient_weighs_by_how_attention_moves_the_answer() -> None:
    """Moving attention along the gradient moves the likeliest token's log-probability by it."""
    model = vlm()
    conversation = (user(noise(1), "what letter?"),)
    plain = model.attention(conversation, [1]).maps[0][0]
    weighed = model.attention(conversation, [1], gradient=True).maps[0][0]
    assert (weighed >= 0).all()
    assert weighed.max() > 0
    assert not np.allclose(weighed / weighed.sum(), plain / plain.sum(), atol=1e-4)


@families
def test_the_model_is_left_as_it_was(family: str) -> None:
    model = vlm(family)
    tokens = model.builder.build((user(noise(2), "hello"),))
    before = model.engine.next_logits(tokens)
    model.attention((user(noise(3), "what?"),), [0, 1], gradient=True)
    model.engine.clear_caches()
    torch.testing.assert_close(model.engine.next_logits(tokens), before, rtol=0, atol=1e-6)
    assert torch.is_grad_enabled()


def test_a_layer_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"layers must lie in 0\.\.1, got 9"):
        vlm().attention((user(noise(1), "what?"),), [9])


@pytest.mark.parametrize(
    ("hot", "size", "base", "expected"),
    [
        pytest.param((2, 1), (800, 800), 100, (100, 200, 200, 300), id="centred on the hot cell"),
        pytest.param((0, 0), (800, 800), 300, (0, 0, 300, 300), id="shifted into the picture"),
        pytest.param((2, 1), (80, 80), 100, (0, 0, 80, 80), id="covers all: the whole picture"),
        pytest.param((7, 0), (100, 800), 100, (0, 700, 100, 800), id="portrait, one column wide"),
    ],
)
def test_window(hot: tuple[int, int], size: tuple[int, int], base: int, expected: tuple) -> None:
    attention = np.full((8, 8), 0.01, np.float32)
    attention[hot] = 1.0
    found = window(attention, size, base).region.to_pixels(size)
    assert found == pytest.approx(expected, abs=1)


def test_the_window_covers_what_is_hot() -> None:
    attention = np.full((8, 8), 0.01, np.float32)
    attention[2:4, 5:7] = 1.0
    assert window(attention, (800, 800), 200).region.to_pixels((800, 800)) == (500, 200, 700, 400)


def test_generic_keeps_the_pictures_and_drops_the_question() -> None:
    one, two = noise(1), noise(2)
    (only,) = generic((user(one, "what is this?", two),))
    assert only.images == (one, two)
    assert "what is this" not in only.text


SIZES = [
    pytest.param((40, 320), id="portrait 1:8"),
    pytest.param((320, 40), id="landscape 8:1"),
    pytest.param((20, 20), id="tiny"),
    pytest.param((900, 700), id="large"),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tile", [None, 128])
def test_every_shape_of_picture_gets_an_answer(size: tuple[int, int], tile: int | None) -> None:
    strategy = partial(attend, aim=Aim(1), tile=tile)
    trace = mm.run(
        strategy,
        mm.Sample("s", (user(noise(4, size), "what letter?"),)),
        vlm(),
        sampling=mm.Sampling(max_tokens=4),
    )
    assert trace.error is None
    assert trace.best.steps[-1].sampled


@families
def test_every_family_attends(family: str) -> None:
    trace = mm.run(
        partial(attend, aim=Aim(1)),
        mm.Sample("s", (user(noise(4, (120, 90)), "what letter?"),)),
        vlm(family),
        sampling=mm.Sampling(max_tokens=4),
    )
    assert trace.error is None
    assert len(trace.images) == 1  # the crop
    opened = sum(opens_answer(s.message) and not s.sampled for s in trace.best.steps)
    assert trace.cost.calls == 3 + opened  # the question, the generic request, the answer


def test_among_several_pictures_the_crop_says_which_it_shows() -> None:
    pictures = [noise(seed, (200, 160)) for seed in (5, 6)]
    for sample in (tuple(pictures), tuple(reversed(pictures))):
        trace = mm.run(
            partial(attend, aim=Aim(1)),
            mm.Sample("s", (user(*sample, "what letter?"),)),
            vlm(),
            sampling=mm.Sampling(max_tokens=4),
        )
        (call,) = [c for s in trace.best.steps for c in s.message.tool_calls if not s.sampled]
        origin = trace.images[-1].origin
        assert isinstance(origin, Cropped)
        index = call.arguments.get("img_idx", 0)
        assert origin.parent == sample[index].id


def test_a_control_replaces_the_region() -> None:
    elsewhere = Region(0.5, 0.5, 0.75, 0.75)
    trace = mm.run(
        partial(attend, aim=Aim(1), choose_region=lambda sample, asked: elsewhere),
        mm.Sample("s", (user(noise(4, (400, 400)), "what letter?"),)),
        vlm("llava_next"),
        sampling=mm.Sampling(max_tokens=4),
    )
    origin = trace.images[-1].origin
    assert isinstance(origin, Cropped)
    shown = origin.region
    assert (shown.x0, shown.y0) == pytest.approx((0.5, 0.5), abs=0.02)


def test_a_model_without_attention_refuses_by_name() -> None:
    trace = mm.run(attend, mm.Sample("s", (user(noise(4), "what?"),)), ScriptedVLM(["an answer"]))
    assert trace.error is not None
    assert "attention" in trace.error


def test_a_question_without_pictures_is_only_asked() -> None:
    trace = mm.run(attend, mm.Sample("s", (user("what?"),)), ScriptedVLM(["an answer"]))
    assert trace.answer == "an answer"
