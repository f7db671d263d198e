"""The collator: a batch's loss is each row's own masked cross-entropy, in every family."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import pytest
import torch
from images import plain
from tiny_models import FAMILIES

from mm.types import Conversation, assistant, user
from training.batching.collator import IGNORED, Collator, forward_inputs
from training.batching.image_features import FrozenFeatureCache


@dataclass(frozen=True)
class Given:
    id: str
    messages: Conversation
    untrained: frozenset[int] = frozenset()


image = partial(plain, size=(90, 60))
ROWS = (
    Given(
        "two",
        (user(image("red"), image("blue", size=(60, 90)), "Which?"), assistant("Red, yes.")),
    ),
    Given("none", (user("And?"), assistant("No."))),
    Given(
        "one",
        (user(image("green"), "What?"), assistant("K"), user("?"), assistant("Green")),
    ),
)


def by_hand(family: str) -> torch.Tensor:
    """The mean over all trained tokens of rows run one by one."""
    tiny = FAMILIES[family]()
    losses = []
    for row in ROWS:
        batch = Collator(tiny.builder)([row])
        inputs = dict(forward_inputs(tiny.model, batch))
        del inputs["labels"]
        if family.startswith("qwen") and batch.images:  # the stock way, pixels and all
            del inputs["mm_encoder_outputs"], inputs["image_grid_thw"]
            for name in batch.images[0].tensors:
                inputs[name] = torch.cat([span.tensors[name] for span in batch.images])
        scores = tiny.model(**inputs).logits.log_softmax(-1)[0, :-1]
        tokens = tiny.builder.build(row.messages, open_turn=False)
        losses += [-scores[at - 1, tokens.ids[at]] for at, t in enumerate(tokens.trained) if t]
    return torch.stack(losses).mean()


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_is_the_masked_cross_entropy_of_each_row(family: str) -> None:
    tiny = FAMILIES[family]()
    batch = Collator(tiny.builder)(ROWS)
    with torch.no_grad():
        loss = tiny.model(**forward_inputs(tiny.model, batch)).loss
        torch.testing.assert_close(loss, by_hand(family), atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_trains_nothing_and_is_not_attended(side: Literal["left", "right"]) -> None:
    batch = Collator(FAMILIES["qwen3_vl"]().builder, side=side)(ROWS)
    kept = batch.inputs["attention_mask"].bool()
    assert (batch.labels[~kept] == IGNORED).all()
    assert kept[:, 0 if side == "right" else -1].all()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        pytest.param((), "0 rows", id="no rows"),
        pytest.param((Given("x7", (user("?"),)),), "x7: 0 trained tokens", id="no answer"),
        pytest.param(
            (Given("x8", (user("?"), assistant("a")), frozenset({1})),),
            "x8: 0 trained tokens",
            id="untrained answer",
        ),
    ],
)
def test_a_row_that_cannot_train_is_named(rows: tuple[Given, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Collator(FAMILIES["qwen3_vl"]().builder)(rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tower_that_rests_sees_each_picture_once(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = FAMILIES[family]()
    seen_once, encoded = FrozenFeatureCache(10**9), []
    stock = tiny.model.model.get_image_features
    monkeypatch.setattr(
        tiny.model.model, "get_image_features", lambda **kw: encoded.append(1) or stock(**kw)
    )
    batch = Collator(tiny.builder)(ROWS)
    with torch.no_grad():
        wanted = tiny.model(**forward_inputs(tiny.model, batch)).loss
        encoded.clear()
        for _ in range(2):
            loss = tiny.model(**forward_inputs(tiny.model, batch, seen_once)).loss
            torch.testing.assert_close(loss, wanted, atol=1e-5, rtol=0)
    assert len(encoded) == 1, "all pictures in one pass, and never again"


@pytest.mark.parametrize("family", FAMILIES)
def test_in_16_bits_a_tower_that_rests_sees_a_picture_the_same_in_any_company(family: str) -> None:
    tiny = FAMILIES[family]()
    model = copy.deepcopy(tiny.model).to(torch.bfloat16)
    pictures = Collator(tiny.builder)(ROWS).images
    together = FrozenFeatureCache(10**9)
    together(model, pictures)
    for span in pictures:
        alone, among = FrozenFeatureCache(10**9)(model, [span]), together(model, [span])
        for a, b in zip(flat(alone), flat(among), strict=True):
            assert torch.equal(a, b)


def flat(given: object) -> list[torch.Tensor]:
    """All tensors in `given`, in order."""
    if isinstance(given, torch.Tensor):
        return [given]
    inner = given.values() if isinstance(given, Mapping) else given
    return [each for part in inner for each in flat(part)] if isinstance(inner, Iterable) else []
