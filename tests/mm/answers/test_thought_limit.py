"""A bounded thought: closed at its bound, the answer opened; all other replies stay whole."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from images import noise
from tiny_models import FAMILIES, QWEN_SPECIALS, bytes_tokenizer, template

import mm
from mm.answers.thought_limit import write_within
from mm.engine.engine import Engine
from mm.families.registry import family_of
from mm.local.hf_vlm import HFVLM
from mm.markup import parse_parts, render_parts
from mm.tokens.loading import compose
from mm.types import Conversation, Cost, Generation, Message, Sampling, Thinking
from vision import zoom


@cache
def thinking_vlm() -> HFVLM:
    """Random weights of Qwen3-VL's class, whose template opens the thought."""
    tiny = FAMILIES["qwen3_vl"]()
    opened = template("qwen3_vl").replace(r"assistant\n' }}", r"assistant\n<think>\n' }}")
    tokenizer = bytes_tokenizer(QWEN_SPECIALS, opened, "<|im_end|>")
    family = family_of("qwen3_vl")
    assert family is not None
    builder = compose(family, tiny.model.config, tokenizer, tiny.builder.image_processor)
    return HFVLM(Engine(tiny.model, builder), name="thinker")


@pytest.mark.parametrize("strategy", [mm.direct, mm.think, zoom], ids=["direct", "think", "zoom"])
@pytest.mark.parametrize("seed", range(4))
def test_every_reply_of_a_thinking_checkpoint_answers_or_says_it_was_cut(
    strategy: mm.Strategy, seed: int
) -> None:
    sampling = Sampling(96, temperature=1.0, seed=seed, max_thought_tokens=64)
    sample = mm.question("what letter?", noise(seed))
    best = mm.run(strategy, sample, thinking_vlm(), sampling=sampling).best
    assert best.answer or best.finish == "length" or "cut at" in (best.silence or "")
    first = next(step for step in best.steps if step.sampled)
    assert isinstance(first.message.parts[0], Thinking)
    assert first.message.parts[0].closed or first.cost.generated_tokens == 64


def test_the_thought_is_closed_at_its_bound_and_the_answer_opened() -> None:
    sampling = Sampling(40, max_thought_tokens=16)
    best = mm.run(mm.direct, mm.question("?", noise()), thinking_vlm(), sampling=sampling).best
    first, opening, last = best.steps[:3]
    assert first.sampled
    assert first.cost.generated_tokens == 16
    assert isinstance(first.message.parts[0], Thinking)
    assert not first.message.parts[0].closed
    assert opening.message.text == "\n</think>\n<answer>"
    assert not opening.sampled
    assert last.cost.generated_tokens <= 24


def test_a_cut_thought_is_no_reply() -> None:
    (cut,) = thinking_vlm().generate([(mm.user("?"),)], Sampling(4))
    assert isinstance(cut.message.parts[0], Thinking)


class Writer:
    """Writes from a script, as much of it as it may at a time."""

    def __init__(self, text: str) -> None:
        self.words = text.split(" ")
        self.asked: list[Sampling] = []

    def __call__(self, messages: Conversation, sampling: Sampling) -> Generation:
        self.asked.append(sampling)
        said: list[str] = []
        while self.words and len(said) < sampling.max_tokens:
            said.append(self.words.pop(0))
            if said[-1] in sampling.stop:
                break
        cut = bool(self.words) and len(said) == sampling.max_tokens
        text = " ".join(said) + (" " if self.words else "")
        parts = parse_parts(text)
        cost = Cost(generated_tokens=len(said), calls=1)
        finish = "length" if cut and said[-1] not in sampling.stop else "stop"
        return Generation(Message("assistant", parts), cost=cost, finish=finish)


PARTS = {
    "short thought": ("<think> a b </think> red", ["<think> a b </think>red"]),
    "long thought": ("<think> a b c d e f", ["<think> a b c ", "\n</think>\n<answer>", "d e f"]),
    "no thought": ("one two three four five six", ["one two three four five six"]),
    "shorter than the bound": ("red", ["red"]),
}


@pytest.mark.parametrize("case", PARTS)
def test_what_is_added(case: str) -> None:
    script, wanted = PARTS[case]
    write = Writer(script)
    added = write_within(write, (mm.user("?"),), Sampling(20, max_thought_tokens=4))
    messages = [each if isinstance(each, Message) else each.message for each in added]
    assert [render_parts(m.parts).strip() for m in messages] == [text.strip() for text in wanted]
    assert write.asked[0].max_tokens == 4
    assert sum(s.max_tokens for s in write.asked) >= 20 or len(write.asked) == 1


def test_without_a_bound_nothing_is_split() -> None:
    write = Writer("<think> a b c d </think> red")
    for sampling in (Sampling(20), Sampling(20, max_thought_tokens=20)):
        write.words, write.asked = ["<think>", "a", "b", "c", "d", "</think>", "red"], []
        assert len(write_within(write, (), sampling)) == 1
        assert write.asked == [sampling]
    assert replace(Sampling(), max_thought_tokens=None) == Sampling()
