"""Requests: cancelled, late, many at once, and every way they can go wrong."""

from __future__ import annotations

import json
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from email.utils import formatdate
from functools import partial
from typing import Any

import PIL.Image
import pytest
from scripted_server import QWEN, Serve, Server, reply, said

import mm
from mm.remote import http_client
from mm.remote.connect import connect
from mm.remote.http_client import Client, RetryPolicy
from mm.remote.responses import Busy, shown
from mm.types import (
    Conversation,
    Sampling,
    user,
)

PICTURE = mm.Image(PIL.Image.new("RGB", (200, 100), "red"))


JSON, EVENTS = ({"content-type": kind} for kind in ("application/json", "text/event-stream"))


ASKED: Conversation = (user(PICTURE, "What letter?"),)


WHOLE = {"choices": [{"message": {"content": "It is K."}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"body": WHOLE, "headers": JSON}, id="a server that ignores stream"),
        pytest.param({"body": WHOLE}, id="and does not say what it sends"),
        pytest.param(
            {
                "body": f"data: {json.dumps(said('It is K.'))}\n\ndata: [DONE]\n\n",
                "headers": {"content-type": "text/plain"},
            },
            id="events under another name",
        ),
        pytest.param(
            {
                "body": 'data: {"choices": [{"delta": {"content": "It is\u2028K."}}]}\r\n\r\n'
                "data: [DONE]\n\n",
                "headers": {"content-type": "text/plain; charset=utf-8"},
            },
            id="with an end of a line that is none",
        ),
        pytest.param({"chunks": [said("It is K."), "", "[DONE]"]}, id="an empty event"),
    ],
)
def test_a_reply_is_read_in_whatever_form_it_comes(serve: Serve, answer: dict[str, Any]) -> None:
    server, pieces = serve(answer), []
    (got,) = server.model().generate([ASKED], Sampling(), on_token=pieces.append)
    told = [piece.replace("\u2028", " ") for piece in (got.message.text, *pieces)]
    assert (told, got.finish) == (["It is K."] * 2, "stop")
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("refusals", "gone", "come"),
    [
        pytest.param(['Unknown name "seed": Cannot find field.'], {"seed"}, set(), id="seed"),
        pytest.param(
            ["'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."],
            {"max_tokens"},
            {"max_completion_tokens"},
            id="max_tokens",
        ),
        pytest.param(
            ["stream_options: Extra inputs are not permitted", "logprobs is not supported"],
            {"stream_options", "logprobs"},
            set(),
            id="one after the other",
        ),
        pytest.param(
            ["403 You are not allowed to request logprobs from this model."],
            {"logprobs"},
            set(),
            id="forbidden",
        ),
        pytest.param(
            ["'temperature' does not support 0 with this model. Only the default (1) value is."],
            {"temperature"},
            set(),
            id="temperature",
        ),
        pytest.param(
            ["invalid temperature: only 1 is allowed for this model"],
            {"temperature"},
            set(),
            id="one temperature alone",
        ),
        pytest.param(
            ["Logprobs is not enabled for models/gemini-2.5-flash"],
            {"logprobs"},
            set(),
            id="a field in capitals",
        ),
        pytest.param(
            ["`temperature` and `top_p` are not supported together."],
            {"top_p"},
            set(),
            id="temperature last",
        ),
        pytest.param(
            ["Unrecognized request arguments supplied: min_p, repetition_penalty, top_k"],
            {"min_p", "repetition_penalty", "top_k"},
            set(),
            id="options of sampling",
        ),
        pytest.param(
            ["The model doubao-seed-1-6 does not support logprobs."],
            {"logprobs"},
            set(),
            id="a field in the model's name",
        ),
    ],
)
@pytest.mark.parametrize("name", ["doubao-seed-1-6", "m", "seed/m", "o"])
def test_a_server_is_asked_without_what_it_refuses(
    serve: Serve, refusals: list[str], gone: set[str], come: set[str], name: str
) -> None:
    refused = [refusal(told.replace("doubao-seed-1-6", name)) for told in refusals]
    server = serve(*refused, reply("K"), models={"body": {"data": [{"id": name}]}})
    vlm = server.model(name=name)
    for _ in range(2):
        (got,) = vlm.generate([ASKED], Sampling())
        assert got.message.text == "K"
    first, *_, last = server.bodies
    assert len(server.bodies) == len(refusals) + 2
    assert (first.keys() - last.keys(), last.keys() - first.keys()) == (gone, come)


def refusal(told: str) -> dict[str, Any]:
    """A refusal that says `told`; its status stands before it where it is not 400."""
    status, said = (403, told[4:]) if told.startswith("403 ") else (400, told)
    return {"status": status, "body": {"error": {"message": said}}}


@pytest.mark.parametrize(
    ("told", "times"),
    [
        pytest.param(
            "'max_tokens' or 'max_completion_tokens' is too large: 512. This model's maximum "
            "context length is 128 tokens.",
            1,
            id="too long a prompt",
        ),
        pytest.param("temperature: expected at most 2, got 3", 1, id="too high a temperature"),
        pytest.param("top_logprobs needs an image", 1, id="a part of another word"),
        pytest.param("a bad seed of a bad image", 2, id="the same without it"),
        pytest.param(
            "Use 'max_completion_tokens' instead of a 'max_tokens' of 9", 2, id="the same renamed"
        ),
    ],
)
def test_what_was_refused_for_another_reason_is_sent_again(
    serve: Serve, told: str, times: int
) -> None:
    server = serve(*[refusal(told)] * times, reply("K"))
    vlm = server.model()
    with pytest.raises(mm.ModelError, match="answered 400"):
        vlm.generate([ASKED], Sampling())
    vlm.generate([ASKED], Sampling())
    first, *_, last = server.bodies
    assert len(server.bodies) == times + 1
    assert first == last


def test_what_is_lost_with_a_field_is_said_once(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    vlm = serve(refusal("'temperature' does not support 0 with this model."), reply("K")).model()
    for _ in range(2):
        vlm.generate([ASKED], Sampling())
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{QWEN}: its server takes no temperature but its own, so greedy replies are sampled too"
    )


def test_a_request_that_runs_out_of_time_without_a_deadline_is_one_line(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(*_: object, **__: object) -> None:
        raise TimeoutError

    vlm = serve(reply("K")).model()
    monkeypatch.setattr(vlm.client._open(), "request", late)
    with pytest.raises(mm.ModelError, match=r"broke off its reply: TimeoutError$"):
        vlm.client.get("models")


def test_a_stopped_reply_closes_its_connection(serve: Serve) -> None:
    server = serve(reply(*["word "] * 200, pause_s=0.02))
    (got,) = server.model().generate([ASKED], Sampling(stop=("d w",)))
    assert (got.message.text, got.finish) == ("word w", "stop")
    assert gone(server)


def gone(server: Server) -> bool:
    """Whether the server notices soon that nobody listens any more."""
    ends = time.monotonic() + 3
    while time.monotonic() < ends:
        if any("gone" in s for s in server.seen):
            return True
        time.sleep(0.02)
    return False


def test_cancelling_closes_the_connection_and_keeps_what_was_said(serve: Serve) -> None:
    server = serve(reply(*["word "] * 200, pause_s=0.02))
    heard: list[str] = []
    (got,) = server.model().generate(
        [ASKED], Sampling(), on_token=heard.append, cancel=lambda: len(heard) >= 3
    )
    assert (got.finish, got.message.text) == ("cancelled", "word " * 3)
    assert gone(server)


def test_a_silent_server_can_be_cancelled(serve: Serve) -> None:
    vlm = serve({"body": "", "pause_s": 4}).model()
    begun = time.monotonic()
    (got,) = vlm.generate([ASKED], Sampling(), cancel=lambda: time.monotonic() > begun + 0.2)
    assert (got.finish, got.message.parts) == ("cancelled", ())
    assert time.monotonic() - begun < 2


def test_a_late_answer_is_an_error(serve: Serve) -> None:
    server = serve(reply(*["word "] * 200, pause_s=0.02))
    with pytest.raises(mm.errors.DeadlineExceeded, match=r"no answer within 0\.3 s"):
        server.model().asking(deadline=0.3).generate([ASKED], Sampling())
    assert gone(server)


def test_conversations_are_asked_at_once(serve: Serve) -> None:
    vlm = serve(reply("a", pause_s=0.1)).model()
    begun = time.monotonic()
    got = vlm.generate([ASKED] * 8, Sampling())
    assert [g.message.text for g in got] == ["a"] * 8
    assert time.monotonic() - begun < 1.6  # one after the other they take 3.2


def test_any_number_of_threads_may_ask(serve: Serve) -> None:
    vlm = serve({"echo": True}).model()
    samples = [mm.question(f"What is {n}?", PICTURE) for n in range(40)]
    traces = list(mm.run_many(mm.direct, samples, vlm, threads=16))
    assert [(t.answer, t.error) for t in traces] == [(f"What is {n}?", None) for n in range(40)]


BUSY = {"status": 503, "body": {"error": {"message": "loading"}}}


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(BUSY, id="503"),
        pytest.param(
            {"status": 429, "headers": {"retry-after": "0.01"}, "body": "slow down"}, id="429"
        ),
    ],
)
def test_a_busy_server_is_asked_again(serve: Serve, trouble: dict[str, Any]) -> None:
    server = serve(trouble, trouble, reply("K"))
    (got,) = server.model().generate([ASKED], Sampling())
    assert got.message.text == "K"
    first, *others = server.bodies
    assert others == [first, first]


@pytest.mark.parametrize(
    ("told", "wait"),
    [
        pytest.param("7", 7, id="seconds"),
        pytest.param("120", 120, id="longer than our own waits"),
        pytest.param("86400", 300, id="a day"),
        pytest.param("Soon", 1, id="neither seconds nor a date"),
        pytest.param("nan", 1, id="no number"),
        pytest.param(None, 1, id="nothing"),
    ],
)
def test_the_pause_is_the_one_that_a_server_asks_for(told: str | None, wait: float) -> None:
    busy = Busy("busy", {} if told is None else {"retry-after": told})
    pause = Client("http://a/v1", patience=RetryPolicy(backoff_s=0.5))._pause(1, busy)
    assert wait <= pause <= 1.25 * wait


@pytest.mark.parametrize(
    ("seconds", "zone", "least", "most"),
    [
        pytest.param(60, " GMT", 50, 60, id="ahead"),
        pytest.param(60, "", 50, 60, id="without its zone"),
        pytest.param(-60, " GMT", 0, 0, id="over"),
    ],
)
def test_a_server_may_ask_for_a_pause_until_a_date(
    seconds: float, zone: str, least: float, most: float
) -> None:
    date = formatdate(time.time() + seconds, usegmt=True).replace(" GMT", zone)
    asked = Busy("busy", {"retry-after": date}).retry_after
    assert asked is not None
    assert least <= asked <= most


def test_our_own_pause_has_a_bound() -> None:
    assert Client("http://a/v1")._pause(30, Busy("busy", {})) <= 1.25 * 30


def test_a_long_pause_is_said(caplog: pytest.LogCaptureFixture) -> None:
    Client("http://a/v1")._pause(0, Busy("http://a/v1 answered 429: slow", {"retry-after": "90"}))
    assert caplog.messages == ["http://a/v1 answered 429: slow; waiting 90 s, as it asks"]


def test_retry_after_is_honoured(serve: Serve) -> None:
    server = serve({"status": 429, "headers": {"retry-after": "0.2"}, "body": ""}, reply("K"))
    begun = time.monotonic()
    server.model().generate([ASKED], Sampling())
    assert time.monotonic() - begun > 0.2


@pytest.mark.parametrize(
    ("answer", "kind", "match", "requests"),
    [
        pytest.param(BUSY, mm.ModelError, r"answered 503: loading$", 3, id="always busy"),
        pytest.param(
            {"status": 400, "body": {"error": {"message": "too long:\n 9 > 8"}}},
            mm.ModelError,
            r"answered 400: too long: 9 > 8$",
            1,
            id="bad request",
        ),
        pytest.param(
            {"status": 422, "body": {"detail": "Unexpected fields"}},
            mm.ModelError,
            "answered 422: Unexpected fields$",
            1,
            id="FastAPI's form",
        ),
        pytest.param(
            {"status": 401, "body": {"error": "Unauthorized"}},
            mm.ModelUnavailable,
            "lets nobody in without its key.*set OPENAI_API_KEY",
            1,
            id="no key",
        ),
        pytest.param(
            {"status": 403, "body": {"error": f"You may not use {QWEN}"}},
            mm.ModelUnavailable,
            "lets nobody in without its key",
            1,
            id="a key that is not let in",
        ),
        pytest.param(
            {"status": 404, "body": {"error": {"message": "The model does not exist."}}},
            mm.ModelUnavailable,
            "no model 'Qwen.*does not exist",
            1,
            id="no such model",
        ),
        pytest.param(
            {"chunks": [said("a"), {"error": "out of memory"}]},
            mm.ModelError,
            "failed: out of memory$",
            1,
            id="error in the stream",
        ),
        pytest.param(
            {"chunks": [said("a"), '{"error": "it"s"}']},
            mm.ModelError,
            "sent no JSON",
            1,
            id="error that is no JSON",
        ),
        pytest.param(
            {"chunks": [said("a")]}, mm.ModelError, "in the middle$", 1, id="ends in the middle"
        ),
        pytest.param(
            {"chunks": [said("a"), {"object": "error", "message": "too many", "code": 400}]},
            mm.ModelError,
            "failed: too many$",
            1,
            id="object error in the stream",
        ),
        pytest.param(
            {"body": {"object": "error", "message": "too many"}, "headers": JSON},
            mm.ModelError,
            "failed: too many$",
            1,
            id="object error in place of a stream",
        ),
        pytest.param(
            {"body": 'event: error\ndata: {"message": "out of slots"}\n\n', "headers": EVENTS},
            mm.ModelError,
            "failed: out of slots$",
            1,
            id="an error event",
        ),
        pytest.param(
            {"chunks": ["Number of choices must be greater than 0."]},
            mm.ModelError,
            "sent no JSON: Number of choices must be greater than 0.$",
            1,
            id="bare words in the stream",
        ),
        pytest.param(
            {"status": 400, "body": [{"error": {"code": 400, "message": "Bad image"}}]},
            mm.ModelError,
            "answered 400: Bad image$",
            1,
            id="Gemini's list",
        ),
        pytest.param(
            {"status": 308, "body": "", "headers": {"location": "https://there/v1"}},
            mm.ModelError,
            "moved to https://there/v1; give that address$",
            1,
            id="moved",
        ),
        pytest.param(
            {"body": "short", "headers": {**EVENTS, "content-encoding": "gzip"}},
            mm.ModelError,
            "broke off its reply",
            1,
            id="not the encoding it says",
        ),
        pytest.param(
            {"body": "<html>", "headers": {"content-type": "text/html"}},
            mm.ModelError,
            r"text/html in place of a reply.*ends in /v1 \(<html>\)$",
            1,
            id="a web page",
        ),
    ],
)
def test_what_goes_wrong_is_one_clear_line(
    serve: Serve, answer: dict[str, Any], kind: type[mm.ModelError], match: str, requests: int
) -> None:
    server = serve(answer)
    with pytest.raises(kind, match=match) as caught:
        server.model().generate([ASKED], Sampling())
    assert "\n" not in str(caught.value)
    assert len(server.bodies) == requests


def test_a_server_that_falls_silent_is_given_up(serve: Serve) -> None:
    server = serve({"chunks": [said("a"), said("b")], "pause_s": 3})
    vlm = server.model(patience=RetryPolicy(silence_s=0.3, retries=2, backoff_s=0.01))
    with pytest.raises(mm.ModelError, match=r"said nothing for 0\.3 s"):
        vlm.generate([ASKED], Sampling())
    assert len(server.bodies) == 1  # words that were heard are not asked for again


@pytest.mark.parametrize(
    ("address", "match"),
    [
        pytest.param("http://127.0.0.1:9/v1", "cannot reach .*is the server running", id="nobody"),
        pytest.param("localhost:8000", "is no server's address", id="no scheme"),
    ],
)
def test_a_server_that_is_not_there_is_said_at_once(address: str, match: str) -> None:
    with pytest.raises(mm.ModelUnavailable, match=match):
        connect(QWEN, base_url=address)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        pytest.param("http://me:hunter2@127.0.0.1:9/v1", "http://***@127.0.0.1:9/v1", id="masked"),
        pytest.param("http://me:hunter2/@127.0.0.1:9/v1", "***@127.0.0.1:9/v1", id="a slash"),
        pytest.param("me:hunter2@127.0.0.1:9/v1", "***@127.0.0.1:9/v1", id="no scheme"),
    ],
)
def test_a_password_in_an_address_is_never_shown(address: str, told: str) -> None:
    with pytest.raises(mm.ModelUnavailable) as caught:
        connect(QWEN, base_url=address)
    assert told in str(caught.value)
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        pytest.param("http://me:pw@a/v1", "http://***@a/v1", id="a password"),
        pytest.param("HTTPS://me:pw@a/v1", "HTTPS://***@a/v1", id="capitals"),
        pytest.param("https://token@a/v1", "https://***@a/v1", id="a name"),
        pytest.param("http://me:p@ss/word@a/v1", "http://***@a/v1", id="an @ and a slash"),
        pytest.param("http://me:p/w@a/v1", "http://***@a/v1", id="a slash"),
        pytest.param("http://me:12/3@a/v1", "http://***@a/v1", id="a port's digits, a slash"),
        pytest.param("http://me:p#w@a/v1", "http://***@a/v1", id="a hash"),
        pytest.param("http://[me:pw@a/v1", "http://***@a/v1", id="half of brackets"),
        pytest.param("https://a/@cf/v1", "https://a/@cf/v1", id="a path"),
        pytest.param("http://a:80/@cf/v1", "http://a:80/@cf/v1", id="a path behind a port"),
        pytest.param("https://a/v1?as=me@b", "https://a/v1?as=me@b", id="a query"),
        pytest.param(
            "moved to http://a/@b, http://me:pw@a", "moved to http://a/@b, http://***@a", id="two"
        ),
    ],
)
def test_only_who_stands_before_the_host_is_masked(text: str, seen: str) -> None:
    assert shown(text) == seen


def test_a_password_in_an_address_is_sent(serve: Serve) -> None:
    server = serve(reply("K"))
    vlm = connect(QWEN, base_url=server.base_url.replace("//", "//me:hunter2@"))
    assert "hunter2" not in vlm.client.base_url
    assert server.seen[0]["key"].startswith("Basic ")


@pytest.mark.parametrize(
    ("key", "sent"),
    [
        pytest.param("secret", "Bearer secret", id="as it is"),
        pytest.param(" secret\r\n", "Bearer secret", id="copied with a line break"),
        pytest.param(" \n", None, id="blank"),
    ],
)
def test_a_key_is_sent_without_what_is_around_it(key: str, sent: str | None) -> None:
    assert Client("http://a/v1", key=key)._headers.get("Authorization") == sent


@pytest.mark.parametrize("key", ["sk-\nsecret", "\u201csk-secret\u201d", "sk-secret\x7f"])
def test_a_key_that_no_header_holds_is_refused_unseen(key: str) -> None:
    with pytest.raises(mm.ModelUnavailable, match="set OPENAI_API_KEY anew") as caught:
        Client("http://a/v1", key=key)
    assert "secret" not in str(caught.value)


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without proxies, to name some in."""
    for name in ("all_proxy", "http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.mark.parametrize("proxy", ["socks4://127.0.0.1:9", "http://a:b:c"])
def test_a_proxy_that_cannot_be_used_is_one_line(
    proxied: pytest.MonkeyPatch, serve: Serve, proxy: str
) -> None:
    proxied.setenv("ALL_PROXY", proxy)
    server = serve(reply("K"))
    with pytest.raises(mm.ModelUnavailable, match=r"ALL_PROXY.*add 127\.0\.0\.1 to NO_PROXY$"):
        server.model()
    proxied.setenv("NO_PROXY", "127.0.0.1")
    (got,) = server.model().generate([ASKED], Sampling())
    assert got.message.text == "K"


def in_a_fork(work: Callable[[], str], patience_s: float = 10) -> str:
    """What `work` returns in a forked child, which is ended when it takes too long."""
    reads, writes = os.pipe()
    if not (child := os.fork()):
        try:
            os.write(writes, work().encode())
        finally:
            os._exit(0)
    os.close(writes)
    try:
        heard, _, _ = select.select([reads], [], [], patience_s)
        return os.read(reads, 1000).decode() if heard else "nothing"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reads)


@contextmanager
def held() -> Iterator[None]:
    """Another thread is about to start a request."""
    begun, done = threading.Event(), threading.Event()

    def hold() -> None:
        with http_client._lock:
            begun.set()
            done.wait()

    (thread := threading.Thread(target=hold)).start()
    begun.wait()
    yield
    done.set()
    thread.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
@pytest.mark.parametrize("locked", [False, True], ids=["idle", "while a request is started"])
def test_a_forked_child_asks_for_itself(serve: Serve, locked: bool) -> None:
    server = serve(*({"body": {"said": str(n)}, "headers": JSON} for n in range(3)))
    client = Client(server.base_url)
    asks = partial(client.post, "chat/completions", {}, deadline=8)
    assert asks()["said"] == "0"
    connections = client._http  # which belong to the parent
    with held() if locked else nullcontext():
        said = in_a_fork(lambda: f"{asks()['said']} {client._http is connections}")
    assert said == "1 False"
    assert asks()["said"] == "2"
