"""What sharing one model is worth: looks that reuse what was computed, users that share passes.

Ours is the engine. Theirs is the same transformers model through its own `generate`, which computes
each request from its first token on, one after the other, on the same tokens, images, dtype and
threads, with the images processed before the clock starts. No image is seen twice, except where one
conversation looks again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from mm.engine.request import RequestOptions
from mm.local.hf_vlm import HFVLM
from mm.tokens.sequence import Tokens
from mm.types import Conversation, Image, Sampling, ToolCall, assistant, message, user
from training.tabletop.render import render
from training.tabletop.scene import make_scene
from vision.crop import crop
from vision.zoom_tool import ZOOM

from .measure import Measured, alternate, p95, seconds

FIRST_SCENE = 1 << 44
"""Scenes from here on belong to no training or test stream."""

QUESTION = "Describe the picture."
LOOKS = 4


@dataclass(frozen=True)
class Load:
    """What a user wants: replies of exactly `reply_tokens` tokens, to compare like with like."""

    reply_tokens: int = 40
    rounds: int = 5

    @property
    def sampling(self) -> Sampling:
        """Greedy replies of the load's length."""
        return Sampling(max_tokens=self.reply_tokens)


def looks(vlm: HFVLM, load: Load) -> Iterator[Measured]:
    """One conversation that looks again: what its fourth look costs."""
    yield _computed(vlm)
    yield alternate(
        "fourth look, first token",
        "s",
        partial(_fourth_look, vlm),
        partial(_fourth_afresh, vlm),
        rounds=load.rounds,
    )


def users(vlm: HFVLM, load: Load, clients: int) -> Iterator[Measured]:
    """Many conversations at once."""
    timed: dict[str, Callable[[int], tuple[float, list[float]]]] = {
        "ours": partial(_together, vlm, load, clients),
        "theirs": partial(_one_by_one, vlm, load, clients),
    }
    firsts: dict[str, list[float]] = {"ours": [], "theirs": []}

    def side(name: str, number: int) -> float:
        whole_s, first_s = timed[name](number)
        if number:
            firsts[name].append(p95(first_s))
        return clients / whole_s

    name = f"{clients} users, answers per second"
    ours, theirs = partial(side, "ours"), partial(side, "theirs")
    yield alternate(name, "answers/s", ours, theirs, rounds=load.rounds, smaller=False)
    waits = tuple(firsts["ours"]), tuple(firsts["theirs"])
    yield Measured(f"{clients} users, first token p95", "s", *waits)
    yield alternate(
        "8 samples of one prompt",
        "s",
        partial(_samples, vlm, load, 8),
        partial(_samples_alone, vlm, load, 8),
        rounds=load.rounds,
    )
    yield decode(vlm, load)


def decode(vlm: HFVLM, load: Load) -> Measured:
    """Tokens per second of one reply, beside what reading all weights once a token would allow."""
    weights = sum(p.nbytes for p in vlm.engine.model.parameters())
    rates, bounds = [], []
    for number in range(load.rounds + 1):
        (tokens,) = prompts(vlm, number, 1)
        stamps: list[float] = []
        with endless(vlm):
            watch = RequestOptions(on_text=lambda _, at=stamps: at.append(time.perf_counter()))
            vlm.engine.generate(tokens, load.sampling, watch)
        rates.append((load.reply_tokens - 1) / (time.perf_counter() - stamps[0]))
        bounds.append(_copy_bandwidth() / weights)
    rate, bound = tuple(rates[1:]), tuple(bounds[1:])
    return Measured("single-stream decode", "tokens/s, and the bound", rate, bound, smaller=False)


def _computed(vlm: HFVLM) -> Measured:
    """Prompt tokens computed over four looks, against all of each prompt every turn."""
    vlm.engine.clear_caches()
    prompts = [vlm.builder.build(turn) for turn in _turns(1)]
    one = Sampling(max_tokens=1)
    computed = [vlm.engine.generate(tokens, one).cost.computed_tokens for tokens in prompts]
    whole = sum(len(tokens.ids) for tokens in prompts)
    name = "four looks, prompt tokens computed"
    return Measured(name, "tokens", (float(sum(computed)),), (float(whole),))


def _fourth_look(vlm: HFVLM, number: int) -> float:
    one = Sampling(max_tokens=1)
    prompts = [_prepared(vlm, turn) for turn in _turns(number)]
    for tokens in prompts[:-1]:
        vlm.engine.generate(tokens, one)
    return seconds(lambda: vlm.engine.generate(prompts[-1], one))


def _fourth_afresh(vlm: HFVLM, number: int) -> float:
    tokens = _prepared(vlm, _turns(number)[-1])
    return seconds(lambda: generate(vlm, tokens, 1))


def _together(vlm: HFVLM, load: Load, clients: int, number: int) -> tuple[float, list[float]]:
    """Seconds until all have their answer, and until each has its first token."""
    vlm.engine.clear_caches()
    wanted = prompts(vlm, number, clients)
    began, firsts = time.perf_counter(), [0.0] * clients

    def ask(k: int) -> None:
        def piece(text: str) -> None:
            firsts[k] = firsts[k] or time.perf_counter() - began

        vlm.engine.generate(wanted[k], load.sampling, RequestOptions(on_text=piece))

    with ThreadPoolExecutor(clients) as pool, endless(vlm):
        whole = seconds(lambda: list(pool.map(ask, range(clients))))
    return whole, firsts


def _one_by_one(vlm: HFVLM, load: Load, clients: int, number: int) -> tuple[float, list[float]]:
    wanted = prompts(vlm, number, clients)
    began, firsts = time.perf_counter(), []
    for tokens in wanted:
        stamps: list[float] = []
        generate(vlm, tokens, load.reply_tokens, stamps=stamps)
        firsts.append(stamps[0] - began)
    return time.perf_counter() - began, firsts


def _samples(vlm: HFVLM, load: Load, count: int, number: int) -> float:
    vlm.engine.clear_caches()
    sampling = replace(load.sampling, temperature=1.0)
    (tokens,) = prompts(vlm, number, 1)
    with endless(vlm):
        return seconds(lambda: vlm.engine.generate_all([tokens] * count, sampling))


def _samples_alone(vlm: HFVLM, load: Load, count: int, number: int) -> float:
    (tokens,) = prompts(vlm, number, 1)
    return seconds(
        lambda: [generate(vlm, tokens, load.reply_tokens, sample=True) for _ in range(count)]
    )


def generate(
    vlm: HFVLM,
    tokens: Tokens,
    new: int,
    *,
    sample: bool = False,
    stamps: list[float] | None = None,
) -> Any:
    """`new` tokens after `tokens` from the model's own `generate`; `stamps` gets each's time."""
    import torch
    from transformers import LogitsProcessor, LogitsProcessorList

    class Clock(LogitsProcessor):
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            if stamps is not None:
                stamps.append(time.perf_counter())
            return scores

    model, builder = vlm.engine.model, vlm.builder
    ids = torch.tensor([tokens.ids], device=model.device)
    tensors: dict[str, Any] = {
        key: torch.cat([span.tensors[key] for span in tokens.images]).to(model.device)
        for key in tokens.images[0].tensors
    }
    if builder.family.mrope:
        tensors["mm_token_type_ids"] = (ids == builder.placeholder_id).int()
    with torch.inference_mode():
        return model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            **tensors,
            do_sample=sample,
            max_new_tokens=new,
            min_new_tokens=new,
            eos_token_id=None,
            logits_processor=LogitsProcessorList([Clock()]),
        )


class endless:
    """While it lasts no token ends a reply, so that both sides write the same number of tokens."""

    _lock = threading.Lock()

    def __init__(self, vlm: HFVLM) -> None:
        self._builder = vlm.builder
        self._ends = vlm.builder.end_ids

    def __enter__(self) -> None:
        self._builder.end_ids = frozenset()

    def __exit__(self, *error: object) -> None:
        self._builder.end_ids = self._ends


def prompts(vlm: HFVLM, number: int, clients: int) -> list[Tokens]:
    """New ones for each `number`; their images are processed before any clock starts."""
    return [_prepared(vlm, asked(number, k)) for k in range(clients)]


def _prepared(vlm: HFVLM, conversation: Conversation) -> Tokens:
    tokens = vlm.builder.build(conversation)
    for span in tokens.images:
        span.process()
    return tokens


def asked(number: int, client: int) -> Conversation:
    """A conversation about an image that no other number and client have."""
    return (user(unseen_image(number * 1000 + client), QUESTION),)


def unseen_image(number: int) -> Image:
    """An image that no user, training or test has seen under another number."""
    return Image(render(make_scene(FIRST_SCENE + number)))


def _turns(number: int) -> Sequence[Conversation]:
    """A conversation as the model reads it before its first reply and after each of four looks."""
    scene = make_scene(FIRST_SCENE + (number << 20))
    image = Image(render(scene))
    said: Conversation = (user(image, QUESTION),)
    turns: list[Conversation] = [said]
    for thing in scene.things[:LOOKS] * 2:
        if len(turns) > LOOKS:
            break
        r = thing.region
        box = [round(1000 * v) for v in (r.x0, r.y0, r.x1, r.y1)]
        call = assistant(ToolCall(ZOOM, {"label": thing.name, "bbox_2d": box}))
        said = (*said, call, message("tool", crop(image, r, rule="square")))
        turns.append(said)
    return turns


def _copy_bandwidth() -> float:
    """Bytes per second that copying a large tensor reads."""
    import torch

    source = torch.empty(2**27, dtype=torch.uint8)
    target = torch.empty_like(source)
    target.copy_(source)
    return source.nbytes / min(seconds(lambda: target.copy_(source)) for _ in range(3))
