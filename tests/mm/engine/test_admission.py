"""Requests are admitted by bytes: never over budget, everybody is answered, in a fair order."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from images import noise
from tiny_models import FAMILIES, qwen3_vl
from tiny_vlm import endless

from mm.engine.engine import Engine
from mm.engine.model_runner import length_bucket, row_bucket
from mm.engine.request import Request, RequestOptions
from mm.engine.request_queue import RequestQueue
from mm.engine.resources import control_group_free, free_bytes, total_bytes
from mm.errors import ModelError
from mm.local.hf_vlm import HFVLM
from mm.lru_cache import ByteBudget, LRUCache
from mm.tokens.sequence import Tokens
from mm.types import Conversation, Sampling, user

torch.set_num_threads(1)

ACTIVATIONS = 128 * 2**20
"""Bytes beside the budget: of a chunk's activations, and what the allocator keeps."""


def asked(number: int, words: int = 40) -> Conversation:
    return (user(noise(number % 4), f"{number}: " + "word " * words),)


def alone_bytes(model: HFVLM, conversation: Conversation, sampling: Sampling) -> int:
    """What a conversation needs with nothing else in progress."""
    tokens, runner = model.builder.build(conversation), model.engine.runner
    length = len(tokens.ids)
    visual = sum(span.stop - span.start for span in tokens.images)
    kept = length * runner.kv_bytes + visual * runner.feature_bytes
    return kept + runner.batch_bytes([length + sampling.max_tokens])


class Peak:
    """The most bytes that requests reserved, and that requests and caches held together."""

    def __init__(self, model: HFVLM) -> None:
        self.reserved = self.rows = self.resident = 0
        self._loop = model.engine._loop
        self._turn = self._loop._turn
        self._loop._turn = self  # type: ignore[method-assign]

    def __call__(self) -> None:
        self._turn()
        budget = self._loop._budget
        assert budget.free >= 0
        held = sum(b.bytes_with(()) for b in self._loop._batches.values())
        self.reserved = max(self.reserved, budget.reserved, held)
        self.rows = max(self.rows, self._loop._in_progress())
        self.resident = max(self.resident, resident_bytes())


def resident_bytes() -> int:
    return psutil.Process().memory_info().rss


@pytest.mark.parametrize("family", ["qwen3_vl", "gemma3"])
def test_four_times_the_budget_is_answered_within_it(family: str) -> None:
    sampling = Sampling(max_tokens=6)
    free = endless(family)
    wanted = [free.generate([asked(n)], sampling)[0].message.tokens for n in range(32)]
    need = alone_bytes(free, asked(31), sampling)
    budget = 32 * need // 4
    model = endless(family, budget=budget)
    peak = Peak(model)
    with ThreadPoolExecutor(32) as pool:
        replies = list(pool.map(lambda n: model.generate([asked(n)], sampling)[0], range(32)))
    assert [reply.message.tokens for reply in replies] == wanted
    assert peak.reserved <= budget
    assert 1 < peak.rows < 32


@pytest.mark.slow
def test_a_model_of_94_million_parameters_answers_32_at_once_in_a_small_memory() -> None:
    wide = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 13}
    tiny = qwen3_vl(**wide, num_attention_heads=12, num_key_value_heads=12, head_dim=64)
    assert 90e6 < tiny.model.num_parameters() < 98e6
    builder = copy(tiny.builder)
    builder.end_ids = frozenset()
    sampling = Sampling(max_tokens=6)
    free = HFVLM(Engine(tiny.model, builder))
    some = {n: free.generate([asked(n)], sampling)[0].message.tokens for n in (0, 13, 31)}
    budget = 8 * alone_bytes(free, asked(31), sampling)
    free.engine.clear_caches()
    model = HFVLM(Engine(tiny.model, builder, budget=budget))
    peak = Peak(model)
    before = resident_bytes()
    with ThreadPoolExecutor(32) as pool:
        replies = list(pool.map(lambda n: model.generate([asked(n)], sampling)[0], range(32)))
    assert {n: replies[n].message.tokens for n in some} == some
    assert peak.reserved <= budget
    assert 1 < peak.rows < 32
    assert peak.resident - before < budget + ACTIVATIONS, (peak.resident - before, budget)


def test_a_large_one_is_not_passed_for_ever_by_small_ones() -> None:
    sampling = Sampling(max_tokens=4)
    large = asked(0, 400)
    need = alone_bytes(endless(), large, sampling)
    model = endless(budget=int(1.1 * need))
    stop, count = threading.Event(), [0]

    def small(number: int) -> None:
        while not stop.is_set() and count[0] < 100:
            count[0] += 1
            model.generate([asked(number, 5)], sampling)

    with ThreadPoolExecutor(5) as pool:
        busy = [pool.submit(small, n) for n in range(1, 5)]
        reply = model.asking(deadline=60).generate([large], sampling)[0]
        others = count[0]
        stop.set()
        for each in busy:
            each.result()
    assert reply.finish == "length"
    assert others < 100


def test_what_can_never_fit_is_refused_with_the_numbers_before_it_waits() -> None:
    sampling = Sampling(max_tokens=4)
    small, large = asked(1, 5), asked(0, 600)
    model = endless(budget=alone_bytes(endless(), small, sampling) + 2**17)
    refusal = (
        r"conversation of \d{4} tokens needs [\d.]+ MB of keys and values, "
        r"and there are [\d.]+ MB; use fewer or smaller images, or more memory"
    )
    with pytest.raises(ModelError, match=refusal):
        model.generate([large], sampling)
    with pytest.raises(ModelError, match=refusal):
        model.score(large, ["a"])
    assert model.generate([small], sampling)[0].finish == "length"


def test_a_reply_has_the_room_that_memory_allows() -> None:
    probe = endless()
    length = len(probe.builder.build(asked(1, 5)).ids)
    model = endless(budget=alone_bytes(probe, asked(1, 5), Sampling(max_tokens=256)))
    reply = model.generate([asked(1, 5)], Sampling(max_tokens=5000))[0]
    assert reply.finish == "length"
    assert 256 <= len(reply.message.tokens or ()) + length % 128 < 512


def test_samples_share_their_prompt_in_the_count() -> None:
    model = endless()
    sampling = Sampling(max_tokens=4, temperature=1.0)
    tokens = model.builder.build(asked(1, 300))
    engine = Engine(model.engine.model, model.builder)
    _ = engine.runner.kv_bytes
    one, eight = (
        engine._loop._bytes_with(*[Request(tokens, sampling=sampling) for _ in range(n)])
        for n in (1, 8)
    )
    prompt = engine._loop._prompt_bytes(Request(tokens))
    assert eight - one == 7 * (one - prompt)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_token_weighs_what_its_keys_and_values_do(family: str) -> None:
    runner = endless(family).engine.runner
    text = runner.model.config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    each = 2 * text.num_hidden_layers * text.num_key_value_heads * width * 4
    assert runner.kv_bytes == each


@pytest.mark.parametrize(
    ("rows", "length", "most", "found"),
    [
        pytest.param(1, 5, 5, (1, 128), id="least"),
        pytest.param(3, 129, 10**4, (4, 256), id="doubled"),
        pytest.param(5, 300, 400, (8, 512), id="rounded up"),
        pytest.param(5, 600, 700, (8, 768), id="no longer than any row gets"),
    ],
)
def test_buffers_grow_by_doubling_up_to_what_is_needed(
    rows: int, length: int, most: int, found: tuple[int, int]
) -> None:
    assert (row_bucket(rows), length_bucket(length, most)) == found


def test_reservations_evict_what_is_cached_and_leave_the_rest() -> None:
    budget = ByteBudget(100)
    small: LRUCache[str, str] = LRUCache(100, shared=budget)
    large: LRUCache[str, str] = LRUCache(100, shared=budget)
    small.put("a", "A", 20)
    for name in "bcd":
        large.put(name, name, 25)
    assert budget.free == 5
    assert budget.reserve(40)
    assert (list(small), list(large), budget.free) == (["a"], ["d"], 15)
    assert not budget.reserve(101)
    assert budget.reserved == 40
    large.put("e", "E", 30)
    assert (list(small), list(large)) == (["a"], ["e"])


def test_who_does_not_fit_keeps_the_head_of_the_queue() -> None:
    def request(size: int) -> Request:
        return Request(Tokens((1,) * size, (), ()), RequestOptions(), client=object())

    def fits(request: Request) -> bool:
        return len(request.tokens.ids) <= 5

    waiting = RequestQueue(10)
    for size in (9, 1, 2):
        waiting.put(request(size))
    assert waiting.take(fits=fits) is None
    assert waiting.take(fits=lambda _: True).tokens.ids == (1,) * 9  # type: ignore[union-attr]
    assert waiting.take(fits=fits).tokens.ids == (1,)  # type: ignore[union-attr]


def broken(field: str) -> Request:
    """A request that slipped through what checks it, on the caller's thread."""
    request = Request(Tokens((1, 2, 3), (), ()), sampling=Sampling(max_tokens=4))
    if field == "room":
        request.room = "many"  # type: ignore[assignment]
    else:
        span: Any = SimpleNamespace(start=0, stop=1)  # what it shows is missing
        request.tokens = replace(request.tokens, images=(span,))
    return request


@pytest.mark.parametrize("field", ["room", "images"], ids=["not counted", "not started"])
def test_a_request_that_cannot_be_admitted_fails_alone(field: str) -> None:
    model = endless()
    model.engine._start()
    model.engine._loop.waiting.put(request := broken(field))
    with pytest.raises((TypeError, AttributeError)):
        request.wait(model.engine._check_alive)
    assert model.generate([asked(1)], Sampling(max_tokens=2))[0].finish == "length"
    assert len(model.engine._loop.waiting) == 0


def cgroup(folder: Any, limit: str, used: int, inactive: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(limit + "\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\n")


def test_every_control_group_above_counts(tmp_path) -> None:
    cgroup(tmp_path / "a" / "b", "max", 10, 0)
    cgroup(tmp_path / "a", "1000", 400, 50)
    (own := tmp_path / "own").write_text("0::/a/b\n")
    assert control_group_free(tmp_path, own) == [650]
    assert control_group_free(tmp_path, tmp_path / "none") == []


V1 = {
    "memory/a/memory.limit_in_bytes": "1000\n",
    "memory/a/memory.usage_in_bytes": "400\n",
    "memory/a/memory.stat": "inactive_file 7\ntotal_inactive_file 50\n",
    "memory/memory.limit_in_bytes": "9223372036854771712\n",  # no limit
    "memory/memory.usage_in_bytes": "712\n",
    "memory/memory.stat": "total_inactive_file 0\n",
}


@pytest.mark.parametrize(
    ("own", "free"),
    [
        pytest.param("3:cpu:/b\n9:memory:/a\n", [650, 9223372036854771000], id="its own and above"),
        pytest.param("9:memory:/docker/0\n", [9223372036854771000], id="not seen from inside"),
        pytest.param("3:cpu:/a\n", [], id="another controller"),
    ],
)
def test_control_groups_of_version_1_count_too(tmp_path, own: str, free: list[int]) -> None:
    for name, text in V1.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "own").write_text(own)
    assert control_group_free(tmp_path, tmp_path / "own") == free


@pytest.mark.parametrize(
    ("positions", "limit"),
    [pytest.param(32768, 32768, id="stretched (YaRN)"), pytest.param(None, 8192, id="not said")],
)
def test_a_context_may_be_as_long_as_positions_reach(positions: int | None, limit: int) -> None:
    tiny = FAMILIES["qwen3_vl"]()
    builder = copy(tiny.builder)
    builder.positions = positions
    assert Engine(tiny.model, builder).limit == limit


def test_a_limit_on_the_process_counts_wherever_memory_is_read(monkeypatch) -> None:
    monkeypatch.setattr("mm.engine.resources._memory_limits", lambda *_: [(1000, 650)])
    cpu = torch.device("cpu")
    assert (total_bytes(cpu), free_bytes(cpu)) == (1000, 650)
