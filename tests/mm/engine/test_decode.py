"""Replies written together are those written alone, whoever joins, leaves, fails or forks."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from images import noise
from tiny_models import FAMILIES
from tiny_vlm import Asked, alone, at_once, endless, question, sampled, vlm

from mm.engine.engine import Engine
from mm.engine.kv_slots import Slots
from mm.engine.model_runner import ModelRunner
from mm.engine.prefix_cache import PrefixKey
from mm.engine.request import Request, RequestOptions
from mm.engine.request_queue import RequestQueue
from mm.engine.sampler import Sampler, pick_rows
from mm.errors import DeadlineExceeded, ModelError
from mm.local.hf_vlm import HFVLM
from mm.tokens.sequence import Tokens
from mm.types import Conversation, Generation, Sampling, user
from training.benchmarks.soak import soak

families = pytest.mark.parametrize("family", FAMILIES)


def steps_of(model: HFVLM) -> list[int]:
    """How many rows each of the decoder's forwards had, once it runs."""
    seen: list[int] = []
    forward = model.engine.runner.forward

    def counted(embeds: torch.Tensor, *args: Any, **extra: Any) -> torch.Tensor:
        if embeds.shape[1] == 1:
            seen.append(len(embeds))
        return forward(embeds, *args, **extra)

    model.engine.runner.forward = counted  # type: ignore[method-assign]
    return seen


@families
@pytest.mark.parametrize("greedy", [True, False], ids=["greedy", "seeded"])
def test_replies_written_together_are_those_written_alone(family: str, greedy: bool) -> None:
    asked = [
        (question(s), Sampling(max_tokens=3 + 2 * s) if greedy else sampled(s, 3 + 2 * s))
        for s in range(6)
    ]
    model = endless(family)
    widths = steps_of(model)
    together = at_once(model, asked)
    for a, got in zip(asked, together, strict=True):
        one = alone(a, lambda: endless(family))
        assert got.message.tokens == one.message.tokens
        assert got.logprobs == pytest.approx(one.logprobs, abs=1e-4)
    assert max(widths) > 1


@families
def test_eager_attention_leaves_out_what_other_attention_does(family: str) -> None:
    """It adds its mask, so a row beside a longer one would see what is not its own."""
    tiny = FAMILIES[family]()
    eager = deepcopy(tiny.model)
    eager.set_attn_implementation("eager")
    asked = [(question(n), sampled(n, 3 + 2 * n)) for n in range(1, 5)]
    together = at_once(HFVLM(Engine(eager, tiny.builder)), asked)
    for a, mine in zip(asked, together, strict=True):
        theirs = alone(a, lambda: vlm(family))
        assert mine.message.tokens == theirs.message.tokens
        assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)


def test_a_model_whose_masks_nobody_knows_is_answered_row_by_row(caplog) -> None:
    asked = [(question(s), sampled(s)) for s in range(4)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ModelRunner, "batches", False)
        model = endless()
        assert "replies are decoded one by one" in caplog.text
        widths = steps_of(model)
        together = at_once(model, asked)
    assert set(widths) == {1}
    ones = [alone(a, endless) for a in asked]
    assert [g.message.tokens for g in together] == [g.message.tokens for g in ones]


@pytest.mark.parametrize("family", ["qwen3_vl", "llava_next", "idefics3", "gemma3"])
@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_a_prompt_computed_in_chunks_has_the_logits_of_one_computed_at_once(
    family: str, chunk: int
) -> None:
    conversation = (user(noise(1), "what letter?", noise(2, (64, 128)), "and here?"),)
    tokens = vlm(family).builder.build(conversation)
    whole = vlm(family).engine.next_logits(tokens)
    chunked = vlm(family, chunk=chunk).engine.next_logits(tokens)
    assert (whole - chunked).abs().max() < 1e-4


def test_a_long_prompt_does_not_stall_the_replies_in_progress() -> None:
    model = endless("qwen3_vl", chunk=16)
    order: list[str] = []
    forward = model.engine.runner.forward

    def watched(embeds: torch.Tensor, *args: Any, **extra: Any) -> torch.Tensor:
        order.append("step" if embeds.shape[1] == 1 else "chunk")
        return forward(embeds, *args, **extra)

    model.engine.runner.forward = watched  # type: ignore[method-assign]
    begun = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        short = pool.submit(
            lambda: model.generate(
                [question(1)], Sampling(max_tokens=300), on_token=lambda _: begun.set()
            )
        )
        begun.wait()
        order.clear()
        pool.submit(model.generate, [(user("words " * 60),)], Sampling(max_tokens=1)).result()
        stalled = "".join(kind[0] for kind in order)
        short.result()
    assert stalled.count("c") > 4
    assert "ccc" not in stalled


@pytest.mark.parametrize("late", range(1, 6))
def test_rows_may_join_and_leave_at_every_step(late: int) -> None:
    model = endless()
    first = (question(3), Sampling(max_tokens=8))
    second = (question(2), sampled(5, late))
    heard = threading.Semaphore(0)
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(
            lambda: model.generate([first[0]], first[1], on_token=lambda _: heard.release())
        )
        for _ in range(late):
            heard.acquire(timeout=5)
        other = model.generate([second[0]], second[1])[0]
    assert one.result()[0].message.tokens == alone(first, endless).message.tokens
    assert other.message.tokens == alone(second, endless).message.tokens


def test_buffers_go_with_the_last_row() -> None:
    """At once: a collector that counts objects does not know how large they are."""
    gc.collect()
    gc.disable()
    try:
        vlm().generate([question()], Sampling(max_tokens=3))
        assert not any(isinstance(each, Slots) and each.nbytes for each in gc.get_objects())
    finally:
        gc.enable()


def test_a_freed_row_serves_a_shorter_conversation() -> None:
    model = endless("qwen3_vl", rows=2)
    long = ((user(noise(1), "what letter is on the red square? " * 9),), sampled(1, 3))
    short = [((user("hm " * n),), sampled(n, 20)) for n in (1, 2, 3)]
    together = at_once(model, [long, *short])
    ones = [alone(a, endless) for a in (long, *short)]
    assert [g.message.tokens for g in together] == [g.message.tokens for g in ones]


@families
def test_a_fork_inside_a_picture_starts_before_it(family: str) -> None:
    model = vlm(family)
    ours, theirs = ((user("so: ", noise(s), "here?"),) for s in (1, 2))
    model.generate([ours], Sampling(max_tokens=2))
    forked = model.generate([theirs], Sampling(max_tokens=4))[0]
    assert (
        forked.message.tokens
        == alone((theirs, Sampling(max_tokens=4)), lambda: vlm(family)).message.tokens
    )
    assert forked.cost.reused_tokens <= model.builder.build(theirs).images[0].start


def test_samples_of_one_prompt_compute_it_once() -> None:
    model = endless()
    conversation = question(2)
    length = len(model.builder.build(conversation).ids)
    replies = model.generate([conversation] * 5, sampled(3))
    one = alone((conversation, sampled(3)), endless)
    assert {r.message.tokens for r in replies} == {one.message.tokens}
    assert sum(r.cost.computed_tokens for r in replies) <= length + 4
    assert all(r.cost.computed_tokens + r.cost.reused_tokens == length for r in replies)


@cache
def adapted() -> Any:
    from peft import LoraConfig, get_peft_model

    tiny = FAMILIES["qwen3_vl"]()
    targets = r".*language_model.*\.q_proj"
    config = LoraConfig(target_modules=targets, init_lora_weights=False, r=4)
    torch.manual_seed(3)
    model = get_peft_model(deepcopy(tiny.model), config, adapter_name="first")
    model.add_adapter("second", config)
    return model.eval()


def test_each_request_is_answered_with_its_own_adapter() -> None:
    tiny = FAMILIES["qwen3_vl"]()

    def fresh() -> Engine:
        return Engine(adapted(), tiny.builder)

    shared, names = fresh(), (None, "first", "second", "first", None, "second")
    tokens = tiny.builder.build(question(1))

    def ask(engine: Engine, adapter: str | None) -> tuple[float, ...]:
        return engine.generate(tokens, sampled(1), RequestOptions(adapter=adapter)).logprobs

    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda name: ask(shared, name), names))
    for name, got in zip(names, together, strict=True):
        assert got == pytest.approx(ask(fresh(), name), abs=1e-4)
    assert together[1] != pytest.approx(together[2], abs=1e-3)
    with pytest.raises(ModelError, match="no adapter 'third'"):
        shared.generate(tokens, sampled(1), RequestOptions(adapter="third"))
    assert shared.generate(tokens, sampled(1)).logprobs == pytest.approx(together[0], abs=1e-4)


def test_a_cancelled_row_leaves_and_disturbs_nobody() -> None:
    model, heard = endless(), []
    other = (question(2), sampled(4, 30))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(model.generate, [other[0]], other[1])
        reply = model.generate(
            [question(1)],
            Sampling(max_tokens=2000),
            on_token=heard.append,
            cancel=lambda: len(heard) >= 3,
        )[0]
    assert reply.finish == "cancelled"
    whole = alone((question(1), Sampling(max_tokens=60)), endless).message.tokens or ()
    written = reply.message.tokens or ()
    assert 3 <= len(written) < 60
    assert written == whole[: len(written)]
    assert running.result()[0].message.tokens == alone(other, endless).message.tokens


def test_a_request_that_is_late_fails_alone() -> None:
    model = endless()
    other = (question(2), sampled(4, 20))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(model.generate, [other[0]], other[1])
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.3 s"):
            model.asking(deadline=0.3).generate([question(1)], Sampling(max_tokens=8000))
        assert time.monotonic() - began < 3
    assert running.result()[0].message.tokens == alone(other, endless).message.tokens


def broken(model: HFVLM, bad: Callable[[torch.Tensor], bool], error: Exception) -> HFVLM:
    """`model`, whose decoder fails on the forwards that `bad` names by their embeddings."""
    forward = model.engine.runner.forward

    def failing(embeds: torch.Tensor, *args: Any, **extra: Any) -> torch.Tensor:
        if bad(embeds):
            raise error
        return forward(embeds, *args, **extra)

    model.engine.runner.forward = failing  # type: ignore[method-assign]
    return model


def too_long(model: HFVLM) -> Conversation:
    return (user("x " * model.engine.limit),)


def test_a_prompt_that_is_too_long_fails_alone() -> None:
    model = endless()
    asked = [(question(s), sampled(s)) for s in range(3)]
    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(model.generate, [too_long(model)], Sampling(max_tokens=1))
        together = at_once(model, asked)
    with pytest.raises(ModelError, match="is too long; the model takes 8192"):
        refused.result()
    assert [g.message.tokens for g in together] == [alone(a, endless).message.tokens for a in asked]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        pytest.param(torch.OutOfMemoryError("CUDA"), "out of memory: CUDA", id="memory, CUDA"),
        pytest.param(MemoryError(), "no memory left", id="memory, Python"),
        pytest.param(RuntimeError("can't allocate memory"), "out of memory", id="memory, CPU"),
        pytest.param(RuntimeError("odd"), "odd", id="a bug"),
    ],
)
def test_a_prompt_that_cannot_be_computed_fails_alone(error: Exception, told: str) -> None:
    # only one prompt has more than 150 ids
    model = broken(endless(), lambda embeds: embeds.shape[1] > 150, error)
    asked = [(question(s), sampled(s)) for s in range(3)]
    with ThreadPoolExecutor(1) as pool:
        failing = pool.submit(model.generate, [(user("y " * 200),)], Sampling(max_tokens=1))
        together = at_once(model, asked)
    with pytest.raises(RuntimeError, match=told):
        failing.result()
    assert [g.message.tokens for g in together] == [alone(a, endless).message.tokens for a in asked]


@pytest.mark.parametrize("bad", [1, 2], ids=["first chunk", "second chunk"])
def test_a_lone_prompt_begins_anew_where_the_caches_gave_memory_back(bad: int) -> None:
    model, widths = endless(chunk=16), []
    model.generate([question(2)], Sampling(max_tokens=1))

    def full(module: Any, given: tuple[torch.Tensor, ...]) -> None:
        widths.append(given[0].shape[1])
        if len(widths) == bad:
            raise torch.OutOfMemoryError("CUDA")

    # in the middle of a forward: the first layer has its keys by then
    with model.engine.runner.model.get_decoder().layers[1].register_forward_pre_hook(full):
        reply = model.generate([question(1)], Sampling(max_tokens=6))[0]
    fresh = alone((question(1), Sampling(max_tokens=6)), endless)
    assert min(widths[:bad]) > 1
    assert reply.message.tokens == fresh.message.tokens
    assert reply.logprobs == pytest.approx(fresh.logprobs, abs=1e-4)
    assert reply.cost.patches == fresh.cost.patches


def test_a_prompt_begins_anew_only_once_however_much_others_cache() -> None:
    model, tried = endless(), []
    entries = model.engine._loop._prefixes.entries

    def short(embeds: torch.Tensor) -> bool:
        entries.put(PrefixKey((len(tried),)), (), 1)
        tried.append(embeds.shape[1])
        return len(tried) < 9

    _ = model.engine.runner.kv_bytes  # computes some tokens
    broken(model, short, torch.OutOfMemoryError("CUDA"))
    with pytest.raises(ModelError, match="out of memory"):
        model.generate([question(1)], Sampling(max_tokens=1))
    assert len(tried) == 2


def test_a_row_that_cannot_be_computed_fails_alone() -> None:
    asked = [(question(s), Sampling(max_tokens=6)) for s in range(4)]
    ones = [alone(a, endless) for a in asked]
    model = endless()
    # the token that only the first reply has in its third place
    bad = tuple(ones[0].message.tokens or ())[2]
    poison = model.engine.runner.embed(torch.tensor(bad))
    spared = [i for i in range(4) if bad not in (ones[i].message.tokens or ())[:-1]]
    broken(
        model,
        lambda embeds: embeds.shape[1] == 1 and bool((embeds == poison).all(-1).any()),
        RuntimeError("odd"),
    )

    def ask(a: Asked) -> Generation | RuntimeError:
        try:
            return model.generate([a[0]], a[1])[0]
        except RuntimeError as error:
            return error

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(ask, asked))
    assert isinstance(together[0], RuntimeError)
    for i in spared:
        got = together[i]
        assert isinstance(got, Generation)
        assert got.message.tokens == ones[i].message.tokens


def test_a_dead_engine_says_so_to_everybody() -> None:
    model = endless()
    with pytest.MonkeyPatch.context() as patch:

        def die() -> None:
            raise SystemExit("the end")

        with ThreadPoolExecutor(3) as pool:
            running = [
                pool.submit(model.generate, [question(s)], Sampling(max_tokens=8000))
                for s in range(3)
            ]
            time.sleep(0.2)
            patch.setattr(model.engine._loop, "_turn", die)
            for future in running:
                with pytest.raises(ModelError, match="the engine stopped"):
                    future.result(timeout=10)
    with pytest.raises(ModelError, match="the engine stopped"):
        model.generate([question()], Sampling(max_tokens=1))


def test_an_engine_that_nobody_holds_ends_its_thread() -> None:
    model = vlm()
    model.generate([question()], Sampling(max_tokens=1))
    thread = model.engine._thread
    assert thread is not None
    del model
    thread.join(timeout=5)
    assert not thread.is_alive()


def request(client: object = None, priority: int = 0, deadline: float | None = None) -> Request:
    options = RequestOptions(priority=priority, deadline=deadline)
    return Request(Tokens((1,), (), (False,)), options, client=client)


def test_who_asks_for_much_does_not_go_before_who_asks_for_little() -> None:
    waiting = RequestQueue(100)
    for client in ["many"] * 4 + ["few"] * 2 + ["one"]:
        waiting.put(request(client))
    taken = [r.client for _ in range(7) if (r := waiting.take())]
    assert taken == ["many", "few", "one", "many", "few", "many", "many"]


def test_scores_of_several_do_not_wait_for_each_other() -> None:
    waiting = RequestQueue(100)
    scores = [Request(Tokens((1,), (), ()), continuations=[(1,)]) for _ in range(3)]
    for each in (*scores, request("one")):
        waiting.put(each)
    assert [waiting.take() for _ in scores] == scores


def test_people_go_before_jobs_but_no_job_waits_for_ever() -> None:
    waiting = RequestQueue(100)
    for _ in range(3):
        waiting.put(request("job", priority=-1))
    for _ in range(20):
        waiting.put(request(object()))
    taken = [r.client == "job" for _ in range(20) if (r := waiting.take())]
    assert not any(taken[:7])
    assert sum(taken) == 2
    people = [r for _ in range(9) if (r := waiting.take(least=0))]
    assert len(people) == 2
    assert all(r.options.priority == 0 for r in people)


def test_rows_are_kept_free_for_people() -> None:
    model = endless("qwen3_vl", rows=4)
    jobs = model.asking(priority=-1)
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            lambda: jobs.generate(
                [question(s) for s in range(8)], Sampling(max_tokens=8000), cancel=stop.is_set
            )
        )
        time.sleep(0.3)
        reply = model.asking(deadline=20).generate([question(1)], Sampling(max_tokens=3))[0]
        stop.set()
        assert reply.finish == "length"
        assert {g.finish for g in running.result()} == {"cancelled"}


def test_a_full_queue_makes_the_next_wait_until_its_deadline() -> None:
    waiting = RequestQueue(1)
    waiting.put(request())
    with pytest.raises(DeadlineExceeded):
        waiting.put(request(deadline=0.05))
    threading.Timer(0.05, waiting.take).start()
    waiting.put(request(deadline=5))
    assert len(waiting) == 1
    waiting.close(ModelError("closed"))
    with pytest.raises(ModelError, match="closed"):
        waiting.put(request())


def test_rows_are_drawn_together_as_each_alone() -> None:
    torch.manual_seed(0)
    logits = torch.randn(12, 50) * 3
    kinds = [Sampling(), sampled(1), sampled(2), Sampling(temperature=0.3, top_p=0.5, seed=9)]
    kinds = [replace(k, seed=i) for i, k in enumerate(kinds * 3)]
    for _ in range(5):
        together = pick_rows([Sampler(k) for k in kinds], logits, torch.tensor([3]))
        ones = [Sampler(k, (3,)).pick(row) for k, row in zip(kinds, logits, strict=True)]
        assert [id for id, _ in together] == [id for id, _ in ones]
        logits = torch.randn(12, 50) * 3


@pytest.mark.parametrize(
    ("budget", "conversations"),
    [pytest.param(2**29, 24, id="roomy"), pytest.param(2**19, 64, id="tight")],
)
def test_a_soak_loses_nothing_and_says_nothing_wrong(budget: int, conversations: int) -> None:
    model = vlm("qwen3_vl", rows=6, chunk=64, context_budget=budget, feature_budget=budget // 16)
    found = soak(model, noise, minutes=0, conversations=conversations, clients=8)
    assert found.ends.total() == conversations
    assert (found.lost, found.wrong) == (0, [])
    ends = {end.split(": ")[1] for end in found.ends}
    assert {"answer", "cancelled", "ModelError", "DeadlineExceeded"} <= ends
    assert found.checked > conversations


def test_a_soak_notices_what_is_wrong() -> None:
    found = soak(broken_sampling(vlm()), noise, minutes=0, conversations=12, clients=2)
    assert 0 < len(found.wrong) <= found.checked


def broken_sampling(model: HFVLM) -> HFVLM:
    """`model`, whose own engine alone writes another token now and then."""
    logits = model.engine.runner.logits
    calls = iter(range(10**9))

    def wrong(hidden: torch.Tensor) -> torch.Tensor:
        found = logits(hidden)
        return -found if next(calls) % 7 == 0 else found

    model.engine.runner.logits = wrong  # type: ignore[method-assign]
    return model


_IN_THE_MIDDLE = """
import threading, time, mm
from contextlib import suppress
vlm = mm.load("tiny")
def ask():
    with suppress(mm.ModelError):
        vlm.generate([(mm.user("Describe the picture."),)] * 4, mm.Sampling(max_tokens=4000))
threading.Thread(target=ask, daemon=True).start()
time.sleep(0.5)
"""
_DROPPED = """
import mm
vlm = mm.load("tiny")
vlm.generate([(mm.user("Describe the picture."),)], mm.Sampling(max_tokens=2))
del vlm
"""


@pytest.mark.parametrize("script", [_IN_THE_MIDDLE, _DROPPED], ids=["mid-reply", "dropped"])
def test_a_process_ends_well(script: str) -> None:
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_what_cannot_be_sampled_fails_and_the_engine_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, (asked, sampling) = endless(), (question(1), Sampling(max_tokens=6))
    picks = iter([None, torch.OutOfMemoryError("CUDA")])  # the first token comes, the next not

    def pick(*given):
        if error := next(picks, None):
            raise error
        return pick_rows(*given)

    monkeypatch.setattr("mm.engine.decode.pick_rows", pick)
    with pytest.raises(ModelError, match="out of memory"):
        model.generate([asked], sampling)
    again = model.generate([asked], sampling)[0]
    assert again.message.tokens == alone((asked, sampling), endless).message.tokens
