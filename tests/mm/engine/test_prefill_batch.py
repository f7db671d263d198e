"""Short prompts computed in one forward: the same logits and keys, and no id computed twice."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from images import noise
from tiny_models import FAMILIES

from mm.engine.encoder_cache import EncoderCache
from mm.engine.model_runner import ModelRunner
from mm.engine.prefill import Prefill
from mm.engine.prefix_cache import PrefixCache
from mm.engine.prompt import Prompt
from mm.engine.request import Request, RequestOptions
from mm.types import Conversation, Message, Sampling, Text, user

families = pytest.mark.parametrize("family", FAMILIES)


ASKED: list[Conversation] = [
    (user(noise(1), "what letter?"),),
    (user("no picture, but more words than any of the others has, by far"),),
    (user("two pictures: ", noise(2), " and ", noise(3)),),
    (user(noise(1), "the same picture, asked about otherwise"),),
]


class Bench:
    """A prefill on a family's tiny model, and what its decoder computed."""

    def __init__(self, family: str = "qwen3_vl") -> None:
        tiny = FAMILIES[family]()
        self.runner = ModelRunner(tiny.model, tiny.builder)
        self.contexts = PrefixCache(2**26)
        encoder = EncoderCache(self.runner, self.contexts, 2**26)
        self.prefill = Prefill(self.runner, self.contexts, encoder)
        self.rows: list[int] = []
        self._forward = self.runner.forward
        self.runner.forward = self.counted  # type: ignore[method-assign]

    def counted(self, embeds, *args, **extra):
        self.rows.append(len(embeds))
        return self._forward(embeds, *args, **extra)

    def prompt(self, conversation: Conversation, priority: int = 0) -> Prompt:
        tokens = self.runner.builder.build(conversation)
        for span in tokens.images:
            span.process()
        return Prompt.of(Request(tokens, RequestOptions(priority=priority), Sampling()))

    @torch.inference_mode()
    def compute(self, prompts: Sequence[Prompt], budget: int = 10_000) -> list[int]:
        """Compute `prompts` as the engine does; how many ids each advance was."""
        left, computed = list(prompts), []
        while left:
            group = self.prefill.group(left[0], left, budget)
            computed.append(self.prefill.advance(group, budget, left))
            left = [p for p in left if p.logits is None]
        return computed


def assert_same(mine: Prompt, theirs: Prompt) -> None:
    assert (mine.logits - theirs.logits).abs().max() < 1e-4
    for ours, fresh in zip(mine.layers, theirs.layers, strict=True):
        for a, b in zip(ours, fresh, strict=True):
            assert a.shape == b.shape
            assert (a - b).abs().max() < 1e-4


@families
def test_prompts_computed_together_are_those_computed_alone(family: str) -> None:
    bench = Bench(family)
    together = [bench.prompt(asked) for asked in ASKED]
    bench.compute(together)
    for asked, mine in zip(ASKED, together, strict=True):
        fresh = Bench(family)
        alone = fresh.prompt(asked)
        fresh.compute([alone])
        assert_same(mine, alone)
    # one of each beginning goes first; pictures of gemma's have masks of their own
    assert (max(bench.rows) > 1) == (family != "gemma3")


@pytest.mark.parametrize("family", ["qwen3_vl", "llava_next"])
def test_each_goes_on_from_its_own_start(family: str) -> None:
    bench = Bench(family)
    bench.compute([bench.prompt(asked) for asked in ASKED[:3]])
    more = [(*asked, user("look again: ", noise(4 + n))) for n, asked in enumerate(ASKED[:3])]
    together = [bench.prompt(asked) for asked in more]
    bench.rows.clear()
    bench.compute(together)
    assert bench.rows == [3]
    for asked, mine in zip(more, together, strict=True):
        fresh = Bench(family)
        alone = fresh.prompt(asked)
        fresh.compute([alone])
        assert 0 < mine.reused < len(mine.tokens.ids)
        assert_same(mine, alone)


def test_what_several_begin_with_is_computed_once() -> None:
    bench = Bench()
    words = "The rules are long, and they are the same for everybody who asks. "
    rules = Message("system", (Text(4 * words),))
    prompts = [bench.prompt((rules, user(word))) for word in ("this?", "that?", "and this?")]
    computed = bench.compute(prompts)
    shared = prompts[0].prefix.common_prefix(prompts[1].prefix)
    assert bench.rows == [1, 2]
    assert sum(computed) < sum(len(p.tokens.ids) for p in prompts) - 2 * (shared - 4)


def test_a_prompt_alone_is_computed_in_chunks_and_a_group_fits_the_budget() -> None:
    bench = Bench()
    prompts = [bench.prompt((user(word * 40),)) for word in ("a", "c", "d", "e")]
    bench.compute(prompts[:1])
    length = len(prompts[1].tokens.ids)
    bench.rows.clear()
    assert max(bench.compute(prompts[1:], budget=2 * length)) <= 2 * length
    assert bench.rows == [2, 1]


@pytest.mark.parametrize(
    ("other", "joins"),
    [
        pytest.param({}, True, id="alike"),
        pytest.param({"priority": -1}, False, id="a job beside a person"),
        pytest.param({"adapter": "b"}, False, id="another adapter"),
        pytest.param({"words": "x " * 400}, False, id="too long for its padding"),
    ],
)
def test_who_joins_a_group(other: dict, joins: bool) -> None:
    bench = Bench()
    made = [bench.prompt((user(word),)) for word in ("one thing", other.get("words", "else"))]
    options = RequestOptions(priority=other.get("priority", 0), adapter=other.get("adapter"))
    first = Request(made[0].tokens, sampling=Sampling())
    second = Request(made[1].tokens, options, Sampling())
    prompts = [Prompt.of(first), Prompt.of(second)]
    begun = prompts[0].prefix.common_prefix(prompts[1].prefix)
    bench.prefill._start = lambda prompt: begun  # type: ignore[method-assign]
    assert (len(bench.prefill.group(prompts[0], prompts, 512)) == 2) == joins


def test_a_forward_that_fails_changes_no_prompt() -> None:
    bench = Bench()
    bench.compute([bench.prompt((user("hello"),))])
    prompts = [bench.prompt((user(word),)) for word in ("this?", "other?")]

    def failing(*args, **extra):
        raise RuntimeError("no")

    bench._forward, forward = failing, bench._forward
    with pytest.raises(RuntimeError, match="no"):
        bench.compute(prompts)
    assert all(p.logits is None and p.done == p.reused for p in prompts)
    bench._forward = forward
    bench.compute(prompts)
    assert bench.rows[-1] == 2
