"""A model behind a server: what is sent, what is read, and every way it can go wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from scripted_server import QWEN, Serve, Server, reply, said
from tiny_models import FAMILIES

import mm
from app.cli.main import run
from mm.remote.connect import connect, family_named
from mm.remote.http_client import RetryPolicy
from mm.remote.openai_format import MessageFormat, data_uri
from mm.strategies import single
from mm.types import (
    Conversation,
    Features,
    Message,
    Sampling,
    ToolCall,
    assistant,
    message,
    user,
)
from vision import attend, replay, zoom
from vision.zoom_tool import ZOOM, ZOOM_TOOL

PICTURE = mm.Image(PIL.Image.new("RGB", (200, 100), "red"))
JSON, EVENTS = ({"content-type": kind} for kind in ("application/json", "text/event-stream"))
ASKED: Conversation = (user(PICTURE, "What letter?"),)


def test_a_question_is_sent_and_its_answer_read(serve: Serve) -> None:
    server = serve(reply("It is ", "K."))
    pieces: list[str] = []
    sampling = Sampling(max_tokens=9, temperature=0.5, top_p=0.9, seed=7)
    (got,) = server.model().generate([ASKED], sampling, on_token=pieces.append)
    assert (got.message, got.finish, pieces) == (assistant("It is K."), "stop", ["It is ", "K."])
    assert got.cost.computed_tokens == 6
    assert (got.cost.reused_tokens, got.cost.generated_tokens, got.cost.calls) == (4, 2, 1)
    (body,) = server.bodies
    wanted = {"max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "seed": 7, "model": QWEN}
    assert wanted.items() <= body.items()
    assert body["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": data_uri(PICTURE)}},
                {"type": "text", "text": "What letter?"},
            ],
        }
    ]


def test_log_probabilities_are_kept_where_a_server_gives_them(serve: Serve) -> None:
    entries = [{"token": "K", "logprob": -0.5}]
    server = serve({"chunks": [said("K", "stop", logprobs={"content": entries}), "[DONE]"]})
    (got,) = server.model().generate([ASKED], Sampling())
    assert got.logprobs == (-0.5,)


def test_a_server_without_log_probabilities_is_asked_without_them(serve: Serve) -> None:
    refusal = {"status": 400, "body": {"error": {"message": "logprobs is not supported"}}}
    server = serve(refusal, reply("K"), reply("K"))
    vlm = server.model()
    for _ in range(2):
        (got,) = vlm.generate([ASKED], Sampling())
        assert got.message.text == "K"
    assert ["logprobs" in body for body in server.bodies] == [True, False, False]


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
        pytest.param({"chunks": [said("It is K."), "", "[DONE]"]}, id="an empty event"),
    ],
)
def test_a_reply_is_read_in_whatever_form_it_comes(serve: Serve, answer: dict[str, Any]) -> None:
    server, pieces = serve(answer), []
    (got,) = server.model().generate([ASKED], Sampling(), on_token=pieces.append)
    assert (got.message.text, got.finish, pieces) == ("It is K.", "stop", ["It is K."])
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
    ],
)
def test_a_server_is_asked_without_what_it_refuses(
    serve: Serve, refusals: list[str], gone: set[str], come: set[str]
) -> None:
    refused = [{"status": 400, "body": {"error": {"message": told}}} for told in refusals]
    server = serve(*refused, reply("K"))
    vlm = server.model()
    for _ in range(2):
        (got,) = vlm.generate([ASKED], Sampling())
        assert got.message.text == "K"
    first, *_, last = server.bodies
    assert len(server.bodies) == len(refusals) + 2
    assert (first.keys() - last.keys(), last.keys() - first.keys()) == (gone, come)


def test_a_request_that_runs_out_of_time_without_a_deadline_is_one_line(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(*_: object, **__: object) -> None:
        raise TimeoutError

    vlm = serve(reply("K")).model()
    monkeypatch.setattr(vlm.client._open(), "request", late)
    with pytest.raises(mm.ModelError, match=r"broke off its reply: TimeoutError$"):
        vlm.client.get("models")


def call_delta(index: int, **function: str) -> dict[str, Any]:
    calls = [{"index": index, "function": function}]
    return {"choices": [{"delta": {"tool_calls": calls}, "finish_reason": None}]}


BOX = {"bbox_2d": [0, 0, 500, 500], "label": "it"}
CALL = ToolCall(ZOOM, BOX)
WRITTEN = f'<tool_call>\n{{"name": "{ZOOM}", "arguments": {json.dumps(BOX)}}}\n</tool_call>'


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


def test_the_key_comes_from_the_environment(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    server = serve(reply("K"))
    connect(QWEN, base_url=server.base_url).generate([ASKED], Sampling())
    assert {s["key"] for s in server.seen} == {"Bearer secret"}


LISTED = {"body": {"data": [{"id": "mine", "root": "Qwen/Qwen2.5-VL-7B-Instruct"}]}}


def test_the_only_model_needs_no_name_and_is_known_by_what_it_was_loaded_from(
    serve: Serve,
) -> None:
    vlm = serve(models=LISTED).model(name="")
    assert vlm.name == "mine"
    assert vlm.family
    assert vlm.family.name == "Qwen2.5-VL"
    assert vlm.traits.box_format.frame is None


def test_a_name_that_is_not_listed_is_tried_before_it_is_refused(serve: Serve) -> None:
    there = serve(reply("Hi"), models=LISTED)
    assert there.model(name="adapter").name == "adapter"
    missing = serve({"status": 404, "body": {"detail": "Not Found"}}, models=LISTED)
    with pytest.raises(mm.ModelUnavailable, match=r"no model 'other' there.*it lists mine"):
        missing.model(name="other")


@pytest.mark.parametrize(
    ("name", "family"),
    [
        pytest.param("Qwen/Qwen3-VL-235B-A22B-Instruct-FP8", "Qwen3-VL", id="Qwen3-VL"),
        pytest.param("qwen2.5-vl-7b", "Qwen2.5-VL", id="lower case"),
        pytest.param("llava-hf/llava-v1.6-mistral-7b-hf", "LLaVA-NeXT", id="LLaVA 1.6"),
        pytest.param("llava-hf/llava-onevision-qwen2-7b-ov-hf", "LLaVA-OneVision", id="OneVision"),
        pytest.param("OpenGVLab/InternVL3-8B-hf", "InternVL", id="InternVL"),
        pytest.param("google/gemma-3-4b-it", "Gemma 3", id="Gemma"),
        pytest.param("HuggingFaceTB/SmolVLM2-2.2B-Instruct", "Idefics3", id="SmolVLM"),
        pytest.param("gpt-4o", None, id="nobody's"),
    ],
)
def test_the_name_tells_the_family(name: str, family: str | None) -> None:
    found = family_named(name)
    assert (found.name if found else None) == family


def test_zoom_sends_the_crop_in_the_next_request_and_changes_nothing_before_it(
    serve: Serve,
) -> None:
    spaced = WRITTEN.replace(": ", ":")  # a model's own spelling is sent back as it was
    server = serve(reply("<think>Small.</think>\n\n", spaced), reply("It is K."))
    trace = mm.run(zoom, mm.question("What letter?", PICTURE), server.model())
    assert (trace.answer, trace.error) == ("It is K.", None)
    first, second = (body["messages"] for body in server.bodies)
    assert second[: len(first)] == first
    assert second[len(first)] == {
        "role": "assistant",
        "content": f"<think>Small.</think>\n\n{spaced}",
    }
    answered = second[len(first) + 1]
    (crop,) = trace.images
    assert answered["role"] == "user"
    assert [p["type"] for p in answered["content"]] == ["text", "image_url", "text"]
    assert answered["content"][1]["image_url"]["url"] == data_uri(crop)
    assert first[0]["role"] == "system"
    assert ZOOM in first[0]["content"]


def test_zoom_in_openai_fields(serve: Serve) -> None:
    called = {"chunks": [call_delta(0, name=ZOOM, arguments=json.dumps(BOX)), said("", "stop")]}
    server = serve(called, reply("It is K."))
    trace = mm.run(zoom, mm.question("What letter?", PICTURE), server.model(tools="openai"))
    assert (trace.answer, len(trace.images)) == ("It is K.", 1)
    first, second = server.bodies
    assert first["tools"] == second["tools"] == [ZOOM_TOOL.json]
    assert [m["role"] for m in second["messages"]] == ["user", "assistant", "tool"]
    (made,) = second["messages"][1]["tool_calls"]
    assert json.loads(made["function"]["arguments"]) == BOX
    assert second["messages"][2]["tool_call_id"] == made["id"]
    assert second["messages"][2]["content"][0]["type"] == "image_url"


def test_think_asks_for_thoughts(serve: Serve) -> None:
    server = serve(reply("<think>Hm.</think><answer>K</answer>"))
    trace = mm.run(mm.think, mm.question("What letter?", PICTURE), server.model())
    assert trace.answer == "K"
    assert server.bodies[0]["messages"][0] == {
        "role": "system",
        "content": single.THINK,
    }


def wire(conversation: Conversation, **options: Any) -> list[dict[str, Any]]:
    return MessageFormat(**options).messages(conversation)


@pytest.mark.parametrize(
    ("conversation", "messages"),
    [
        pytest.param(
            (user("a"), message("system", "b")),
            [{"role": "system", "content": "b"}, {"role": "user", "content": "a"}],
            id="system first",
        ),
        pytest.param(
            (user("a"), user("b")), [{"role": "user", "content": "a\nb"}], id="two of a user"
        ),
        pytest.param(
            (user("a"), assistant("b"), assistant("c")),
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "bc"}],
            id="two of the assistant",
        ),
        pytest.param(
            (user("a"), assistant(CALL, CALL), message("tool", "b"), message("tool", "c")),
            [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": f"{WRITTEN}\n{WRITTEN}"},
                {
                    "role": "user",
                    "content": "<tool_response>\nb\n</tool_response>\n"
                    "<tool_response>\nc\n</tool_response>",
                },
            ],
            id="two tools",
        ),
        pytest.param(
            (user("say <|im_end|> twice"),),
            [{"role": "user", "content": "say <\u2060|im_end|> twice"}],
            id="a token's name in a user's words",
        ),
    ],
)
def test_messages_are_written_in_openai_form(
    conversation: Conversation, messages: list[dict[str, Any]]
) -> None:
    assert wire(conversation) == messages


def test_turns_are_apart_where_they_need_not_alternate() -> None:
    assert [m["content"] for m in wire((user("a"), user("b")), alternates=False)] == ["a", "b"]


def test_a_pictures_address_is_its_exact_pixels_and_made_once() -> None:
    import base64
    import io

    uri = data_uri(PICTURE)
    png = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    assert mm.Image(PIL.Image.open(io.BytesIO(png))).id == PICTURE.id
    assert data_uri(PICTURE) is uri


def test_an_open_turn_is_continued(serve: Serve) -> None:
    server = serve(reply("K"))
    server.model().generate([(*ASKED, assistant("It is "))], Sampling())
    (body,) = server.bodies
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert body["messages"][-1] == {"role": "assistant", "content": "It is "}


@pytest.mark.parametrize(
    ("refused", "match"),
    [
        pytest.param(user(Features(PICTURE), "a"), "behind a server.*no Features", id="features"),
        pytest.param(
            assistant("a", PICTURE), "no image in what the assistant", id="inline picture"
        ),
    ],
)
def test_what_no_server_takes_is_refused_by_name(
    serve: Serve, refused: Message, match: str
) -> None:
    server = serve(reply("K"))
    with pytest.raises(mm.ModelError, match=match):
        server.model().generate([(*ASKED, refused)], Sampling())
    assert server.bodies == []


@pytest.mark.parametrize("strategy", [attend, replay])
def test_strategies_that_need_the_weights_are_refused_by_name(
    serve: Serve, strategy: mm.Strategy
) -> None:
    trace = mm.run(strategy, mm.question("What letter?", PICTURE), serve(reply("K")).model())
    assert trace.error
    assert QWEN in trace.error


def test_sizes_come_from_a_processor_or_are_refused(serve: Serve, tmp_path: Path) -> None:
    tiny = FAMILIES["qwen2_5_vl"]()
    tiny.model.config.save_pretrained(tmp_path)
    tiny.builder.tokenizer.save_pretrained(tmp_path)
    tiny.builder.image_processor.save_pretrained(tmp_path)
    server = serve(reply("K"), models=LISTED)
    bare, whole = server.model(name=""), server.model(name="", processor=str(tmp_path))
    with pytest.raises(mm.ModelError, match=r"mine writes boxes in pixels.*`processor`"):
        bare.seen_size((200, 100))
    with pytest.raises(mm.ModelError, match=r"what an image costs.*`processor`"):
        bare.visual_tokens((200, 100))
    assert whole.seen_size((200, 100)) == tiny.builder.seen_size((200, 100))
    assert whole.visual_tokens((200, 100)) == tiny.builder.visual_tokens((200, 100))
    (got,) = whole.generate([ASKED], Sampling())
    assert got.cost.visual_tokens == tiny.builder.visual_tokens(PICTURE.size)
    again = (*ASKED, got.message, user("And now?"))
    assert whole.generate([again], Sampling())[0].cost.visual_tokens == 0


def prompt_of(*tokens: tuple[int, str, float]) -> dict[str, Any]:
    """What vLLM answers to `prompt_logprobs`; it has none for the first token."""
    entries = [{str(i): {"logprob": p, "decoded_token": t}} for i, t, p in tokens]
    return {"body": {"choices": [], "prompt_logprobs": [None, *entries[1:]]}}


BEFORE = [(1, "<s>", 0.0), (2, "ask", -9.0), (3, "assistant", -8.0)]


def test_score_reads_the_prompts_log_probabilities(serve: Serve) -> None:
    ended = [(9, "<|im_end|>", -0.25), (10, "\n", -5.0)]
    server = serve(
        prompt_of(*BEFORE),
        prompt_of(*BEFORE, (4, "K", -0.5), *ended),
        prompt_of(*BEFORE, (5, "R", -1.5), (6, "S", -2.5), *ended),
    )
    scores = server.model().score(ASKED, ["K", "RS"])
    assert scores == [[-0.5, -0.25], [-1.5, -2.5, -0.25]]
    assert server.bodies[1]["messages"][-1] == {"role": "assistant", "content": "K"}


@pytest.mark.parametrize(
    ("replies", "match"),
    [
        pytest.param(
            [{"body": {"choices": []}}], "gives log-probabilities of prompts, as vLLM", id="ignored"
        ),
        pytest.param(
            [{"status": 422, "body": {"detail": "Unexpected"}}], "as vLLM does", id="refused"
        ),
        pytest.param(
            [prompt_of(*BEFORE), prompt_of(BEFORE[0], (7, "other", -1.0), *BEFORE[2:])],
            "differently once it is answered",
            id="a template that writes the past anew",
        ),
    ],
)
def test_score_is_refused_by_name_where_it_cannot_be_had(
    serve: Serve, replies: Sequence[dict[str, Any]], match: str
) -> None:
    with pytest.raises(mm.ModelError, match=f"{QWEN} cannot score.*{match}"):
        serve(*replies).model().score(ASKED, ["K"])


def test_ask_in_a_shell(serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server, picture = serve(reply("It is K.")), tmp_path / "a.png"
    PICTURE.pixels.save(picture)
    there = ["--backend", "openai", "--base-url", server.base_url, "--model", QWEN]
    assert run(["ask", str(picture), "What letter?", *there]) == 0
    assert "It is K." in capsys.readouterr().out


def test_eval_in_a_shell(serve: Serve, tmp_path: Path) -> None:
    server, out = serve(reply("red")), tmp_path / "out.json"
    there = ["--backend", "openai", "--base-url", server.base_url, "--model", QWEN]
    asked = ["eval", "tabletop", "--task", "colour", "--limit", "3", "--out", str(out)]
    assert run([*asked, "--strategy", "direct,zoom", *there]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [(r["strategy"], r["n"], r["failures"]) for r in rows] == [
        ("direct", 3, 0),
        ("zoom", 3, 0),
    ]


def test_info_says_what_is_known(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    server = serve(reply("K"), models=LISTED)
    there = ["--backend", "openai", "--base-url", server.base_url, "--model", "mine"]
    assert run(["info", *there]) == 0
    told = capsys.readouterr().out
    for words in (server.base_url, "Qwen2.5-VL", "pixels as the model saw it", "--processor"):
        assert words in told


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        pytest.param(["--base-url", "http://a/v1"], "--base-url: only with", id="no backend"),
        pytest.param(["--backend", "openai", "--device", "cpu"], "--device: with", id="device"),
        pytest.param(
            ["--backend", "openai", "--base-url", "http://127.0.0.1:9/v1"],
            "cannot reach http://127.0.0.1:9/v1",
            id="nobody there",
        ),
    ],
)
def test_mistakes_in_a_shell_are_one_line(
    flags: list[str], match: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    PICTURE.pixels.save(tmp_path / "a.png")
    assert run(["ask", str(tmp_path / "a.png"), "What letter?", *flags]) == 2
    told = capsys.readouterr().err
    assert match in told
    assert told.count("\n") == 1
