"""Pictures encoded in one pass are those encoded one by one, whoever asked for them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from images import noise
from tiny_models import FAMILIES
from tiny_vlm import at_once, endless, question

from mm.engine.vision_encoder import encode, encode_all, encode_each, join
from mm.local.hf_vlm import HFVLM
from mm.tokens.sequence import ImageSpan
from mm.types import Conversation, Sampling, user

families = pytest.mark.parametrize("family", FAMILIES)


def flat(features: Any) -> torch.Tensor:
    return features if torch.is_tensor(features) else torch.cat(tuple(features))


@families
@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([(96, 80)], id="one"),
        pytest.param([(96, 80)] * 3, id="of one size"),
        pytest.param([(96, 80), (64, 160), (96, 80), (160, 64)], id="of several sizes"),
    ],
)
def test_pictures_encoded_together_are_those_encoded_alone(
    family: str, sizes: list[tuple[int, int]]
) -> None:
    tiny = FAMILIES[family]()
    seen = [noise(i, size) for i, size in enumerate(sizes)]
    pictures = [span.tensors for span in tiny.builder.build([user(*seen)]).images]
    with torch.inference_mode():
        alone = [encode(tiny.model, tensors) for tensors in pictures]
        each = encode_each(tiny.model, pictures)
        wanted, got = join(alone), encode_all(tiny.model, pictures)
    for one, other in zip([*alone, wanted], [*each, got], strict=True):
        torch.testing.assert_close(flat(other.pooler_output), flat(one.pooler_output))
        assert type(other.pooler_output) is type(one.pooler_output) or len(sizes) > 1
        for a, b in zip(
            getattr(one, "deepstack_features", None) or (),
            getattr(other, "deepstack_features", None) or (),
            strict=True,
        ):
            torch.testing.assert_close(flat(b), flat(a))


@families
def test_features_of_one_picture_hold_nothing_of_its_company(family: str) -> None:
    tiny = FAMILIES[family]()
    seen = [noise(i, (96, 80)) for i in range(4)]
    pictures = [span.tensors for span in tiny.builder.build([user(*seen)]).images]
    with torch.inference_mode():
        found = encode_each(tiny.model, pictures)
    assert {key for features in found for key in features} <= {
        "pooler_output",
        "deepstack_features",
    }


class Watched:
    """How many pictures each pass of a model's tower had; it may be held until `go` is set."""

    def __init__(self, model: HFVLM, *, held: bool = False) -> None:
        self.passes: list[int] = []
        self.go, self.begun = threading.Event(), threading.Event()
        if not held:
            self.go.set()
        self._see = model.engine.runner.encode_images
        model.engine.runner.encode_images = self  # type: ignore[method-assign]

    def __call__(self, spans: list[ImageSpan]) -> Any:
        self.begun.set()
        assert self.go.wait(10)
        self.passes.append(len(spans))
        return self._see(spans)


def waiting_together(model: HFVLM, asked: list[Conversation]) -> tuple[Watched, list[Any]]:
    """The replies to `asked`, of which all but the first wait when the first is encoded."""
    watched, length = Watched(model, held=True), Sampling(max_tokens=4)
    with ThreadPoolExecutor(len(asked)) as pool:
        first = pool.submit(model.generate, [asked[0]], length)
        assert watched.begun.wait(10)
        others = [pool.submit(model.generate, [a], length) for a in asked[1:]]
        while len(model.engine._loop.waiting) < len(others):
            threading.Event().wait(0.001)
        watched.go.set()
        return watched, [f.result()[0] for f in (first, *others)]


@families
def test_those_who_wait_are_encoded_together(family: str) -> None:
    asked = [question(s) for s in range(5)]
    watched, replies = waiting_together(endless(family), asked)
    assert watched.passes == [1, 4]
    for a, reply in zip(asked, replies, strict=True):
        one = endless(family).generate([a], Sampling(max_tokens=4))[0]
        assert reply.message.tokens == one.message.tokens
        assert reply.logprobs == pytest.approx(one.logprobs, abs=1e-4)
        assert reply.cost.patches == one.cost.patches


def test_a_picture_that_two_ask_about_is_encoded_once() -> None:
    asked = [question(0), question(1), (user(noise(1), "or here?"),), (user("hm", noise(1)),)]
    watched, replies = waiting_together(endless(), asked)
    assert watched.passes == [1, 1]
    assert [reply.cost.patches > 0 for reply in replies] == [True, True, False, False]


def test_what_waits_is_encoded_up_to_a_chunk() -> None:
    size = endless().visual_tokens(noise(1).size)
    model = endless("qwen3_vl", chunk=2 * size)
    watched, _ = waiting_together(model, [question(s) for s in range(5)])
    assert sum(watched.passes) == 5
    assert max(watched.passes) == 2


def test_features_that_are_not_kept_serve_the_prompt_they_were_made_for() -> None:
    model = endless("qwen3_vl", feature_budget=0)
    watched, _ = waiting_together(model, [question(s) for s in range(4)])
    assert watched.passes == [1, 3]


def test_a_picture_that_cannot_be_encoded_fails_alone() -> None:
    model = endless()
    see, bad = model.engine.runner.encode_images, noise(2).id

    def failing(spans: list[ImageSpan]) -> Any:
        if any(span.image.id == bad for span in spans):
            raise RuntimeError("odd")
        return see(spans)

    model.engine.runner.encode_images = failing  # type: ignore[method-assign]

    def ask(seed: int) -> tuple[int, ...] | None:
        if seed != 2:
            return model.generate([question(seed)], Sampling(max_tokens=4))[0].message.tokens
        with pytest.raises(RuntimeError, match="odd"):
            model.generate([question(seed)], Sampling(max_tokens=4))
        return None

    with ThreadPoolExecutor(5) as pool:
        together = list(pool.map(ask, range(5)))
    asked = [(question(s), Sampling(max_tokens=4)) for s in (0, 1, 3, 4)]
    wanted = [reply.message.tokens for reply in at_once(endless(), asked)]
    assert together == [*wanted[:2], None, *wanted[2:]]


def test_pictures_are_prepared_by_the_thread_that_asks() -> None:
    model, threads = endless(), []
    process = model.builder.image_processing._process

    def noted(pixels: Any) -> Any:
        threads.append(threading.current_thread().name)
        return process(pixels)

    model.builder.image_processing._process = noted  # type: ignore[method-assign]
    fresh = (user(noise(77), "here?"),)
    try:
        for _ in range(2):
            model.generate([fresh], Sampling(max_tokens=2))
    finally:
        model.builder.image_processing._process = process  # type: ignore[method-assign]
    assert threads == [threading.current_thread().name]
