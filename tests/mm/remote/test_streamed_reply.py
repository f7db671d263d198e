"""Chunks of a reply, as servers send them and as they should not, become what the model wrote."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from fuzzing import rounds
from scripted_server import Serve, reply, said

import mm
from mm.markup import parse_parts
from mm.remote.http_client import RetryPolicy
from mm.remote.responses import DONE
from mm.remote.streamed_reply import StreamedReply
from mm.types import Sampling, Text, Thinking, ToolCall, user
from vision.zoom_tool import ZOOM


def call_delta(index: int, **function: str) -> dict[str, Any]:
    calls = [{"index": index, "function": function}]
    return {"choices": [{"delta": {"tool_calls": calls}, "finish_reason": None}]}


def thought(text: str, key: str = "reasoning_content") -> dict[str, Any]:
    return {"choices": [{"delta": {key: text}, "finish_reason": None}]}


BOX = {"bbox_2d": [0, 0, 500, 500], "label": "it"}
CALL = ToolCall(ZOOM, BOX)
WRITTEN = f'<tool_call>\n{{"name": "{ZOOM}", "arguments": {json.dumps(BOX)}}}\n</tool_call>'


@pytest.mark.parametrize(
    ("chunks", "parts"),
    [
        pytest.param([said("Look.\n"), said(WRITTEN)], (Text("Look."), CALL), id="call in words"),
        pytest.param(
            [
                said("Look."),
                call_delta(0, name=ZOOM, arguments=json.dumps(BOX)[:9]),
                call_delta(0, arguments=json.dumps(BOX)[9:]),
            ],
            (Text("Look."), CALL),
            id="call in a field, in pieces",
        ),
        pytest.param(
            [call_delta(i, name=ZOOM, arguments=json.dumps(BOX)) for i in (0, 1)],
            (CALL, CALL),
            id="two calls",
        ),
        pytest.param(
            [call_delta(0, name=ZOOM, arguments='{"bbox')],
            (Text(f'<tool_call>\n{{"name": "{ZOOM}", "arguments": {{"bbox}}\n</tool_call>'),),
            id="call cut off",
        ),
        pytest.param(
            [thought("Hm"), thought("m."), said("K")], (Thinking("Hmm."), Text("K")), id="thought"
        ),
        pytest.param(
            [thought("Hmm.", "reasoning"), said("K")],
            (Thinking("Hmm."), Text("K")),
            id="thought, in vLLM's field",
        ),
        pytest.param([thought("Hmm.")], (Thinking("Hmm."),), id="only a thought"),
        pytest.param([said("Hm.</think>K")], (Thinking("Hm."), Text("K")), id="thought in words"),
        pytest.param([], (), id="nothing"),
    ],
)
def test_thoughts_and_calls_are_read_wherever_they_stand(
    chunks: list[dict[str, Any]], parts: tuple[mm.types.Part, ...]
) -> None:
    heard = StreamedReply(())
    for chunk in [*chunks, said("", "stop")]:
        heard.hear(chunk)
    heard.end()
    assert parse_parts(heard.text) == parts


@pytest.mark.parametrize(
    ("pieces", "stop", "text"),
    [
        pytest.param(["a]}b"], ("]}",), "a]}", id="inside a piece"),
        pytest.param(["a]", "}", "b"], ("]}",), "a]}", id="across pieces"),
        pytest.param(["ab", "cd"], ("d", "bc"), "abc", id="the first to end"),
        pytest.param(["ab", "cd"], ("x",), "abcd", id="none"),
        pytest.param(["aa", "ab"], ("aab",), "aaab", id="begun twice"),
    ],
)
def test_a_stop_string_ends_the_reply_and_stays_in_it(
    pieces: list[str], stop: tuple[str, ...], text: str
) -> None:
    told: list[str] = []
    heard = StreamedReply(stop, told.append)
    for piece in pieces:
        if heard.hear(said(piece)):
            break
    assert heard.text == "".join(told) == text


def test_log_probabilities_end_with_the_stop_string() -> None:
    entries = [{"token": t, "logprob": -float(n)} for n, t in enumerate(["a", "]}", "b"])]
    heard = StreamedReply(("]}",))
    assert heard.hear(said("a]}b", logprobs={"content": entries}))
    assert heard.logprobs == [0.0, -1.0]


def delta(name: str | None = None, arguments: Any = None, **more: Any) -> dict[str, Any]:
    """A chunk with one delta of a tool call."""
    function = {"name": name, "arguments": arguments}
    return {"choices": [{"delta": {"tool_calls": [{**more, "function": function}]}}]}


A, B = ToolCall("a", {"x": 1}), ToolCall("b", {"y": [2, 3]})
AA = ToolCall("a", {"x": 2})


@pytest.mark.parametrize(
    ("chunks", "calls"),
    [
        pytest.param(  # ollama#7881, sglang#5661
            [delta("a", '{"x": 1}'), delta("b", '{"y": [2, 3]}')], (A, B), id="no index"
        ),
        pytest.param(  # ollama#15457, dynamo#4723
            [delta("a", '{"x": 1}', index=0), delta("b", '{"y": [2, 3]}', index=0)],
            (A, B),
            id="index 0 and 0",
        ),
        pytest.param(
            [delta("a", '{"x": 1}', index=0), delta("a", '{"x": 2}', index=0)],
            (A, AA),
            id="index 0 and 0, one function",
        ),
        pytest.param(  # lmdeploy#3412
            [
                delta("a", "", index=0, id="c1"),
                delta(None, '{"x": ', index=0, id=""),
                delta(None, "1}", index=0, id=""),
                delta("b", "", index=0, id="c2"),
                delta(None, '{"y": [2, 3]}', index=0, id=""),
            ],
            (A, B),
            id="index 0 and 0, in pieces",
        ),
        pytest.param(  # vercel/ai#15879
            [
                delta(None, '{"x": ', id="c1"),
                delta("a", "1}", id="c1"),
                delta("b", '{"y": ', id="c2"),
                delta(None, "[2, 3]}", id="c2"),
            ],
            (A, B),
            id="the name after the arguments",
        ),
        pytest.param(  # llama.cpp#12379
            [delta("a", piece, index=0, id="c1") for piece in ("", '{"x"', ": 1", "}", "")],
            (A,),
            id="the name again with each piece",
        ),
        pytest.param(
            [delta("a", '{"x"', index=0, id="r1"), delta(None, ": 1}", index=0, id="r2")],
            (A,),
            id="another id with each piece",
        ),
        pytest.param(
            [delta("a", '{"x": 1}', id="a"), delta("a", '{"x": 2}', id="a")],
            (A, AA),
            id="the function's name for an id",
        ),
        pytest.param([delta("a", {"x": 1}, index=0)], (A,), id="arguments that are an object"),
        pytest.param([delta("a", None, index=0)], (ToolCall("a", {}),), id="no arguments at all"),
        pytest.param(
            [
                delta("a", '{"x"', index=0),
                delta("b", '{"y": [2', index=1),
                delta(None, ": 1}", index=0),
                delta(None, ", 3]}", index=1),
            ],
            (A, B),
            id="by turns, with an index",
        ),
    ],
)
def test_calls_are_put_together_however_a_server_numbers_them(
    chunks: list[dict[str, Any]], calls: tuple[ToolCall, ...]
) -> None:
    heard = StreamedReply(())
    for chunk in [*chunks, said(None, "tool_calls")]:
        heard.hear(chunk)
    heard.end()
    assert parse_parts(heard.text) == calls


MISTRAL = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]


@pytest.mark.parametrize(
    ("chunks", "text", "finish"),
    [
        pytest.param([said("a", ""), said("b", "stop")], "ab", "stop", id='"" for no reason'),
        pytest.param([said("a", "stop"), said("b", "stop"), DONE], "ab", "stop", id="stop on all"),
        pytest.param([said("a"), DONE], "a", "stop", id="no reason at all"),
        pytest.param([said("a", "MAX_TOKENS"), DONE], "a", "length", id="Gemini's MAX_TOKENS"),
        pytest.param(
            [said(MISTRAL), said([{"type": "text", "text": "K"}], "stop")],
            "<think>Hm.</think>K",
            "stop",
            id="Mistral's lists",
        ),
        pytest.param(
            [{"choices": [{"message": {"content": "K"}, "finish_reason": "stop"}]}, DONE],
            "K",
            "stop",
            id="the whole message at once",
        ),
        pytest.param([said(None, "stop", logprobs={"content": [{}]})], "", "stop", id="nulls"),
        pytest.param([{"choices": None, "usage": None}, said("a")], "a", None, id="cut off"),
    ],
)
def test_servers_end_their_replies_in_many_ways(
    chunks: list[dict[str, Any]], text: str, finish: str | None
) -> None:
    heard = StreamedReply(())
    for chunk in chunks:
        heard.hear(chunk)
    heard.end()
    assert (heard.text, heard.finish) == (text, finish)


@pytest.mark.parametrize("reason", ["abort", "error", "content_filter"])
def test_a_reply_that_the_server_gave_up_is_an_error(reason: str) -> None:
    with pytest.raises(mm.ModelError, match=f"ended its reply early: {reason}$"):
        StreamedReply(()).hear(said("It is", reason))


JUNK: list[Any] = [None, True, -1, 1e400, float("nan"), "", "x", "\ud800", [], [[]], {}, {"a": []}]


def mutated(value: Any, rng: random.Random, rate: float) -> Any:
    """`value`, in which anything may be something else."""
    if not isinstance(value, dict) and rng.random() < rate:
        return rng.choice(JUNK)
    if isinstance(value, dict):
        if rng.random() < rate / 4:
            return {}
        kept = {k: mutated(v, rng, rate) for k, v in value.items() if rng.random() > rate / 2}
        return kept
    if isinstance(value, list):
        return [mutated(v, rng, rate) for v in value]
    return value


def samples() -> list[Any]:
    usage = {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 1}}
    entries = {"content": [{"token": "K", "logprob": -0.5}]}
    call = delta("a", '{"x": 1}', index=0, id="c")
    return [said("K", logprobs=entries), thought("Hm"), call, {"usage": usage}, said("", "stop")]


def test_no_chunk_whatever_it_holds_is_a_traceback() -> None:
    rng = random.Random(0)
    errors = []
    for _ in range(rounds(2000)):
        heard = StreamedReply(("]}",))
        try:
            for chunk in samples():
                heard.hear(mutated(chunk, rng, 0.1) or {})
            heard.end()
        except mm.ModelError as error:
            errors.append(str(error))
        parse_parts(heard.text)
        assert heard.tokens >= 0
    assert not any("\n" in error for error in errors)


def spoilt(rng: random.Random) -> dict[str, Any]:
    """A response with some of its bytes changed, cut off or doubled."""
    stream = rng.random() < 0.7
    chunks = [c if isinstance(c, str) else json.dumps(c) for c in reply("It ", "is K.")["chunks"]]
    text = "".join(f"data: {c}\n\n" for c in chunks) if stream else json.dumps(said("K", "stop"))
    letters = list(text)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(letters))
        letters[at] = rng.choice(["", chr(rng.randrange(256)), letters[at] * 2, "\n", "{"])
    body = "".join(letters)[: rng.choice([None, rng.randrange(len(letters))])]
    kinds = ["text/event-stream"] * 3 + ["application/json", "text/plain", "text/event-stream; x"]
    return {"body": body, "latin1": True, "headers": {"content-type": rng.choice(kinds)}}


def replies_of(count: int) -> Iterator[dict[str, Any]]:
    rng = random.Random(7)
    for _ in range(count):
        yield spoilt(rng)


def test_no_response_whatever_its_bytes_is_a_traceback(serve: Serve) -> None:
    count = rounds(400)
    vlm = serve(*replies_of(count)).model(patience=RetryPolicy(retries=0, silence_s=5))
    errors = []
    for _ in range(count):
        try:
            vlm.generate([(user("?"),)], Sampling())
        except mm.ModelError as error:
            errors.append(str(error))
    assert 0 < len(errors) < count
    assert not [error for error in errors if "\n" in error or len(error) > 500]


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        pytest.param(["a\ud83d", "\ude00b"], "a\U0001f600b", id="cut in two"),
        pytest.param(["\ud83d\ude00"], "\U0001f600", id="as two halves"),
        pytest.param(["a\ude00b"], "a\ufffdb", id="a half alone"),
        pytest.param(["a\ud83d"], "a", id="a half at the end"),
    ],
)
def test_halves_of_characters_are_joined(pieces: list[str], text: str) -> None:
    heard = StreamedReply(())
    for piece in pieces:
        heard.hear(said(piece))
    assert heard.text == text
    heard.text.encode()
