"""A reply from what the engine kept is the reply of a fresh run, whoever asked in between."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from fresh_runs import fresh_logits
from images import noise
from tiny_models import FAMILIES
from tiny_vlm import question, vlm

from mm.engine.detokenizer import StreamDetokenizer
from mm.engine.prefix_cache import PrefixCache, PrefixKey
from mm.engine.sampler import Sampler, log_probs
from mm.errors import ModelError
from mm.local.hf_vlm import HFVLM
from mm.lru_cache import ByteBudget, LRUCache
from mm.types import Conversation, Sampling, assistant, user

families = pytest.mark.parametrize("family", FAMILIES)


def looks_again(model: HFVLM) -> tuple[Conversation, Conversation]:
    """A conversation before and after a second look, while somebody else asked in between."""
    first = question()
    reply = model.generate([first], Sampling(max_tokens=5))[0]
    model.generate([(user("hello", noise(7, (64, 160)), noise(8)),)], Sampling(max_tokens=3))
    return first, (*first, reply.message, user(noise(2), "and here?"))


@families
def test_a_second_look_has_the_logits_of_a_fresh_run(family: str) -> None:
    model = vlm(family)
    _, again = looks_again(model)
    tokens = model.builder.build(again)
    continued = model.engine.next_logits(tokens)
    assert (continued - fresh_logits(FAMILIES[family](), tokens)).abs().max() < 1e-4


@families
def test_a_second_look_computes_only_what_is_new(family: str) -> None:
    model = vlm(family)
    first, again = looks_again(model)
    reply = model.generate([again], Sampling(max_tokens=5))[0]
    fresh = vlm(family).generate([again], Sampling(max_tokens=5))[0]
    # the last sampled token was never computed, so it counts as new
    known = len(model.builder.build(first).ids) + len(again[1].tokens or ()) - 1
    length = len(model.builder.build(again).ids)
    assert reply.message.tokens == fresh.message.tokens
    assert (reply.cost.reused_tokens, reply.cost.computed_tokens) == (known, length - known)
    assert (fresh.cost.reused_tokens, fresh.cost.computed_tokens) == (0, length)
    assert 0 < reply.cost.patches < fresh.cost.patches
    assert reply.cost.visual_tokens == model.visual_tokens(noise(2).size)
    assert reply.cost.generated_tokens == len(reply.message.tokens or ())


@families
def test_samples_of_one_prompt_share_it_and_do_not_disturb_each_other(family: str) -> None:
    model = vlm(family)
    sampled = [Sampling(max_tokens=6, temperature=1.0, seed=s) for s in (1, 2, 3, 1)]
    replies = [model.generate([question()], s)[0] for s in sampled]
    alone = [vlm(family).generate([question()], s)[0] for s in sampled]
    assert [r.message.tokens for r in replies] == [r.message.tokens for r in alone]
    assert replies[0].message.tokens == replies[3].message.tokens
    assert len({r.message.tokens for r in replies}) == 3
    assert [r.cost.computed_tokens for r in replies[1:]] == [1, 1, 1]


@families
def test_scores_are_the_log_probabilities_of_writing_the_words(family: str) -> None:
    model = vlm(family)
    continuations = ["red", "zoom in and look", "x"]
    together = model.score(question(), continuations)
    for text, scores in zip(continuations, together.logprobs, strict=True):
        ids = model.builder.continuation(text)
        tokens = model.builder.build(question())
        one_by_one = []
        for i, id in enumerate(ids):
            longer = replace(tokens, ids=(*tokens.ids, *ids[:i]))
            logits = vlm(family).engine.next_logits(longer)
            banned = torch.tensor(list(model.builder.banned_ids))
            one_by_one.append(log_probs(logits, banned)[id].item())
        assert scores == pytest.approx(one_by_one, abs=1e-4)


def test_another_picture_of_the_same_size_is_not_taken_for_the_kept_one() -> None:
    model = vlm()
    model.generate([question(1)], Sampling(max_tokens=3))
    reply = model.generate([question(2)], Sampling(max_tokens=3))[0]
    fresh = vlm().generate([question(2)], Sampling(max_tokens=3))[0]
    assert reply.logprobs == pytest.approx(fresh.logprobs, abs=1e-5)
    tokens = model.builder.build(question(2))
    assert reply.cost.reused_tokens == tokens.images[0].start


def test_a_picture_seen_before_is_not_encoded_again_when_the_words_before_it_change() -> None:
    model = vlm()
    model.generate([question()], Sampling(max_tokens=1))
    reply = model.generate([(user("hm: ", *question()[0].parts),)], Sampling(max_tokens=1))[0]
    assert reply.cost.patches == 0


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"context_budget": 0}, id="no context kept"),
        pytest.param({"feature_budget": 0}, id="no features kept"),
    ],
)
def test_a_budget_changes_costs_and_no_answers(options: dict[str, int]) -> None:
    model = vlm("qwen3_vl", **options)
    _, again = looks_again(model)
    reply = model.generate([again], Sampling(max_tokens=4))[0]
    fresh = vlm().generate([again], Sampling(max_tokens=4))[0]
    assert reply.message.tokens == fresh.message.tokens
    assert reply.logprobs == pytest.approx(fresh.logprobs, abs=1e-4)


def test_an_open_turn_is_continued() -> None:
    model = vlm()
    begun = (*question(), assistant("the letter is"))
    reply = model.generate([begun], Sampling(max_tokens=4))[0]
    more = model.generate([(*begun, reply.message)], Sampling(max_tokens=4))[0]
    fresh = vlm().generate([(*begun, reply.message)], Sampling(max_tokens=4))[0]
    assert more.message.tokens == fresh.message.tokens
    assert more.cost.computed_tokens == 1


def biased(id: int, by: float = 1e4) -> HFVLM:
    """A model that wants to write `id` all the time."""
    model = vlm()
    head = model.engine.runner.head

    def lean(logits: torch.Tensor) -> torch.Tensor:
        logits[..., id] += by
        return logits

    model.engine.runner.head = lambda hidden: lean(head(hidden))
    return model


@pytest.mark.parametrize("temperature", [0.0, 1.0, 5.0])
def test_a_picture_placeholder_is_never_written(temperature: float) -> None:
    for banned in vlm().builder.banned_ids:
        model = biased(banned)
        sampling = Sampling(max_tokens=8, temperature=temperature, top_p=0.9)
        reply = model.generate([question()], sampling)[0]
        assert model.builder.banned_ids.isdisjoint(reply.message.tokens or ())
        assert all(logprob <= 0 for logprob in reply.logprobs)


def test_an_end_token_ends_the_reply_and_stays_in_its_tokens() -> None:
    end = min(vlm().builder.end_ids)
    reply = biased(end).generate([question()], Sampling(max_tokens=8))[0]
    assert (reply.message.tokens, reply.finish) == ((end,), "stop")
    assert reply.message.text == ""


@pytest.mark.parametrize(
    ("text", "stop", "written"),
    [
        pytest.param("zoom", ("oo",), 3, id="across tokens"),
        pytest.param("zoom", ("z",), 1, id="at once"),
        pytest.param("zoom", ("nope", "zoo"), 3, id="the second one"),
        pytest.param("zöm", ("ö",), 3, id="a character of two bytes"),
        pytest.param("zoom", ("oz",), 4, id="never"),
    ],
)
def test_stop_strings_are_found_in_the_text(text: str, stop: tuple[str, ...], written: int) -> None:
    stream = StreamDetokenizer(lambda ids: bytes(ids).decode(errors="replace"), stop)
    taken = 0
    for byte in text.encode():
        taken += 1
        if stream.push(byte):
            break
    assert taken == written


def test_a_stop_string_ends_the_reply_and_is_kept_in_it() -> None:
    model = vlm()
    sampling = Sampling(max_tokens=30, temperature=1.0, seed=3)
    whole = model.generate([question()], sampling)[0].message
    words = model.builder.decode(whole.tokens or ())
    stop = next(words[i : i + 2] for i in range(8, len(words)) if words[i : i + 2].isascii())
    reply = model.generate([question()], replace(sampling, stop=(stop,)))[0]
    tokens = reply.message.tokens or ()
    assert reply.finish == "stop"
    assert stop in model.builder.decode(tokens)
    assert stop not in model.builder.decode(tokens[:-1])
    assert tokens == (whole.tokens or ())[: len(tokens)]


@pytest.mark.parametrize("seed", range(4))
def test_streamed_pieces_make_up_the_text_and_split_no_character(seed: int) -> None:
    model, pieces = vlm(), []
    sampling = Sampling(max_tokens=40, temperature=1.0, seed=seed)
    reply = model.generate([question()], sampling, on_token=pieces.append)[0]
    assert "".join(pieces) == model.builder.decode(reply.message.tokens or ())


def test_a_character_of_many_tokens_comes_whole() -> None:
    pieces: list[str] = []
    stream = StreamDetokenizer(lambda ids: bytes(ids).decode(errors="replace"), (), pieces.append)
    for byte in "a→é".encode()[:-1]:
        stream.push(byte)
    assert pieces == ["a", "→"]
    stream.end()
    assert pieces == ["a", "→", "\ufffd"]


def test_cancel_ends_the_reply_between_tokens() -> None:
    model, heard = vlm(), []
    sampling = Sampling(max_tokens=100, temperature=1.0)
    reply = model.generate(
        [question()], sampling, on_token=heard.append, cancel=lambda: len(heard) >= 3
    )[0]
    assert reply.finish == "cancelled"
    assert 3 <= len(reply.message.tokens or ()) < 20
    assert model.generate([question()], Sampling(max_tokens=4))[0].finish == "length"


def test_many_threads_get_the_answers_of_one() -> None:
    asked = [
        ((question(s % 3) if s % 2 else (*question(s % 3), assistant("so"))), s) for s in range(8)
    ]

    def ask(model: HFVLM, conversation: Conversation, seed: int) -> tuple[int, ...] | None:
        sampling = Sampling(max_tokens=6, temperature=1.0, seed=seed)
        return model.generate([conversation], sampling)[0].message.tokens

    alone = [ask(vlm(), *a) for a in asked]
    shared = vlm()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda a: ask(shared, *a), asked)) == alone


def test_several_conversations_are_answered_as_each_would_be_alone() -> None:
    sampling = Sampling(max_tokens=5, temperature=1.0, seed=5)
    together = vlm().generate([question(1), question(2)], sampling)
    alone = [vlm().generate([question(s)], sampling)[0] for s in (1, 2)]
    assert [g.message.tokens for g in together] == [g.message.tokens for g in alone]
    with pytest.raises(ValueError, match="exactly one conversation, got 2"):
        vlm().generate([question(1), question(2)], sampling, on_token=print)


def test_a_listener_that_fails_fails_its_request_alone() -> None:
    def fail(piece: str) -> None:
        raise ZeroDivisionError(piece)

    model = vlm()
    with pytest.raises(ZeroDivisionError):
        model.generate([question()], Sampling(max_tokens=5), on_token=fail)
    assert model.generate([question()], Sampling(max_tokens=5))[0].message.tokens


def test_sampling_follows_the_distribution_and_top_p() -> None:
    probs = torch.tensor([0.5, 0.3, 0.15, 0.05])
    draws = Sampler(Sampling(temperature=1.0, seed=1), ())
    counts = torch.bincount(torch.tensor([draws.pick(probs.log())[0] for _ in range(2000)]))
    assert (counts / 2000 - probs).abs().max() < 0.04
    cut = Sampler(Sampling(temperature=1.0, top_p=0.6, seed=1), ())
    picks = [cut.pick(probs.log()) for _ in range(200)]
    assert {id for id, _ in picks} == {0, 1}
    # the log-probability stays that of the whole distribution
    assert {round(float(torch.tensor(lp).exp()), 3) for _, lp in picks} == {0.5, 0.3}


@pytest.mark.parametrize(
    ("mine", "theirs", "shared"),
    [
        pytest.param(PrefixKey((1, 2, 3)), PrefixKey((1, 2, 4)), 2, id="words differ"),
        pytest.param(PrefixKey((1, 2)), PrefixKey((1, 2, 4)), 2, id="one is longer"),
        pytest.param(
            PrefixKey((1, 9, 9, 2), ((1, 3, "a"),)),
            PrefixKey((1, 9, 9, 2), ((1, 3, "b"),)),
            1,
            id="another picture",
        ),
        pytest.param(
            PrefixKey((1, 9, 9, 2), ((1, 3, "a"),)),
            PrefixKey((1, 9, 9, 9, 2), ((1, 4, "a"),)),
            1,
            id="the same picture, longer",
        ),
        pytest.param(
            PrefixKey((1, 9, 9, 2, 9, 3), ((1, 3, "a"), (4, 5, "b"))),
            PrefixKey((1, 9, 9, 2, 9, 3), ((1, 3, "a"), (4, 5, "c"))),
            4,
            id="the second picture differs",
        ),
        pytest.param(PrefixKey((1, 2), adapter="x"), PrefixKey((1, 2)), 0, id="another adapter"),
    ],
)
def test_contexts_share_what_means_the_same(
    mine: PrefixKey, theirs: PrefixKey, shared: int
) -> None:
    assert mine.common_prefix(theirs) == theirs.common_prefix(mine) == shared


def layers(length: int) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    return ((torch.zeros(1, 1, length, 1), torch.zeros(1, 1, length, 1)),)


def test_a_longer_context_takes_the_place_of_its_beginning() -> None:
    contexts = PrefixCache(budget=1000)
    contexts.store(PrefixKey((1, 2)), layers(2))
    contexts.store(PrefixKey((1, 2, 3)), layers(3))
    contexts.store(PrefixKey((1,)), layers(1))
    contexts.store(PrefixKey((1, 5)), layers(2))
    assert [c.ids for c in contexts.entries] == [(1, 2, 3), (1, 5)]
    length, kept = contexts.match(PrefixKey((1, 2, 3)), limit=2)
    assert (length, kept[0][0].shape[2]) == (2, 2)


EACH = 8
"""Bytes of an id in `layers`."""


@pytest.mark.parametrize(
    ("budget", "images", "kept"),
    [
        pytest.param(3, (), (1, 2, 3), id="its beginning"),
        pytest.param(3, ((2, 4, "a"),), (1, 2), id="no half of an image"),
        pytest.param(4, ((2, 4, "a"),), (1, 2, 3, 4), id="a whole image"),
        pytest.param(1, ((0, 2, "a"),), None, id="not even the first image"),
    ],
)
def test_of_a_context_that_is_too_large_the_beginning_is_kept(budget: int, images, kept) -> None:
    contexts = PrefixCache(budget * EACH)
    contexts.store(PrefixKey((1, 2, 3, 4, 5), images), layers(5))
    assert [c.ids for c in contexts.entries] == ([kept] if kept else [])
    assert contexts.entries.bytes == len(kept or ()) * EACH
    for key in contexts.entries:
        stored = contexts.entries.get(key) or ()
        assert [k.untyped_storage().nbytes() * 2 for k, _ in stored] == [contexts.entries.bytes]
        assert key.images == (images if len(key.ids) == 4 else ())


@pytest.mark.parametrize(("budget", "kept"), [(3, (1, 2, 3)), (4, (1, 2, 3, 4))])
def test_a_context_that_is_too_large_drops_none_for_less(budget: int, kept) -> None:
    contexts = PrefixCache(budget * EACH)
    contexts.store(PrefixKey((1, 2, 3)), layers(3))
    contexts.store(PrefixKey((1, 2, 3, 4, 5)), layers(5))
    assert [c.ids for c in contexts.entries] == [kept]


def test_a_long_conversation_keeps_its_beginning() -> None:
    """Each turn was larger than the budget, dropped the one before, and nothing was reused."""
    model = vlm()
    reply = model.generate([question()], Sampling(max_tokens=5))[0]
    length = len(model.builder.build(question()).ids)
    small = vlm(context_budget=(length + 2) * model.engine.runner.kv_bytes)
    conversation: Conversation = question()
    for words in ("and here?", "and there?"):
        reply = small.generate([conversation], Sampling(max_tokens=5))[0]
        conversation = (*conversation, reply.message, user(words))
    reply = small.generate([conversation], Sampling(max_tokens=5))[0]
    assert reply.cost.reused_tokens == length + 2
    fresh = vlm().generate([conversation], Sampling(max_tokens=5))[0]
    assert reply.message.tokens == fresh.message.tokens


@pytest.mark.parametrize(
    ("reserved", "others", "room"),
    [(0, 0, 90), (50, 0, 50), (0, 40, 60), (0, 90, 50), (100, 0, 0)],
    ids=["its own budget", "reserved", "what others hold", "its fair part", "nothing"],
)
def test_what_has_room_stays_whatever_others_hold(reserved: int, others: int, room: int) -> None:
    shared = ByteBudget(100)
    mine: LRUCache[str, str] = LRUCache(90, shared=shared)
    other: LRUCache[str, str] = LRUCache(100, shared=shared)
    assert shared.reserve(reserved)
    for n in range(others // 10):
        other.put(str(n), "B", 10)
    assert mine.room == room
    mine.put("a", "A", room)
    assert "a" in mine
    assert shared.free >= 0


def test_the_least_used_goes_first() -> None:
    kept: LRUCache[str, str] = LRUCache(budget=10)
    kept.put("a", "A", 4)
    kept.put("b", "B", 4)
    kept.get("a")
    kept.put("c", "C", 4)
    kept.put("too large", "D", 11)
    assert (list(kept), kept.bytes) == (["a", "c"], 8)


def test_an_interrupted_caller_leaves_nothing_running() -> None:
    model, started = vlm(), threading.Event()

    def interrupt(_: str) -> None:
        started.set()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.generate([question()], Sampling(max_tokens=1000), on_token=interrupt)
    assert started.is_set()
    assert model.generate([question()], Sampling(max_tokens=1))[0].cost.generated_tokens == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_is_told_that_the_thread_is_not_there(monkeypatch) -> None:
    """It waited for ever, as the thread is the parent's alone."""
    monkeypatch.setattr("mm.engine.engine._CHECK_S", 0.01)
    engine = vlm().engine
    engine.clear_caches()
    if not (child := os.fork()):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        code = 3
        try:
            engine.clear_caches()
        except ModelError as error:
            code = 0 if "thread is gone" in str(error) else 2
        finally:  # nothing may leave the child for the tests
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    engine.clear_caches()
