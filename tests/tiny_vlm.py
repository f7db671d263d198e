"""Tiny models behind an engine, and requests that they are asked alone or at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy

from images import noise
from tiny_models import FAMILIES

from mm.engine.engine import Engine
from mm.local.hf_vlm import HFVLM
from mm.types import Conversation, Generation, Sampling, user

Asked = tuple[Conversation, Sampling]


def vlm(family: str = "qwen3_vl", **options: int) -> HFVLM:
    """A family's tiny model behind an engine of its own; `options` are the engine's."""
    tiny = FAMILIES[family]()
    return HFVLM(Engine(tiny.model, tiny.builder, **options))


def endless(family: str = "qwen3_vl", **options: int) -> HFVLM:
    """A model without end tokens: every reply is as long as it may be."""
    tiny = FAMILIES[family]()
    builder = copy(tiny.builder)
    builder.end_ids = frozenset()
    return HFVLM(Engine(tiny.model, builder, **options))


def question(seed: int = 1) -> Conversation:
    """Conversations of different lengths, each with an image of its own."""
    return (user(noise(seed), "what letter is on the red square? " * (seed % 4), "here?"),)


def sampled(seed: int, length: int = 8) -> Sampling:
    return Sampling(max_tokens=length, temperature=1.0, top_p=1.0 if seed % 2 else 0.9, seed=seed)


def alone(asked: Asked, make: Callable[[], HFVLM] = vlm) -> Generation:
    return make().generate([asked[0]], asked[1])[0]


def at_once(model: HFVLM, asked: list[Asked]) -> list[Generation]:
    with ThreadPoolExecutor(len(asked)) as pool:
        return [g[0] for g in pool.map(lambda a: model.generate([a[0]], a[1]), asked)]
