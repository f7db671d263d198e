"""A model behind a server: how it is found, what is sent, what is read."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from scripted_server import QWEN, Serve, reply, said
from tiny_models import FAMILIES, template

import mm
from app.cli.main import run
from mm.remote.connect import AT_ONCE, connect, family_named
from mm.remote.openai_format import data_uri
from mm.types import (
    Conversation,
    Part,
    Sampling,
    Text,
    Thinking,
    assistant,
    user,
)
from vision import asked, attend, replay
from vision.verifier import ENOUGH

PICTURE = mm.Image(PIL.Image.new("RGB", (200, 100), "red"))


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


UNUSUAL = {"top_k": 20, "min_p": 0.1, "repetition_penalty": 1.05, "presence_penalty": 1.5}


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        pytest.param({}, {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}, id="usual"),
        pytest.param(UNUSUAL, UNUSUAL, id="unusual"),
    ],
)
def test_no_option_of_sampling_is_left_to_the_checkpoint(
    serve: Serve, options: dict[str, Any], sent: dict[str, Any]
) -> None:
    server = serve(reply("K"))
    server.model().generate([ASKED], Sampling(**options))
    assert sent.items() <= server.bodies[0].items()
    assert "frequency_penalty" not in server.bodies[0]


def test_an_option_that_changes_replies_is_not_given_up(serve: Serve) -> None:
    told = {"status": 400, "body": {"error": {"message": "Unknown fields: min_p, top_k"}}}
    server = serve(told, reply("K"), told)
    vlm = server.model()
    vlm.generate([ASKED], Sampling())
    with pytest.raises(mm.ModelError, match="Unknown fields: min_p, top_k"):
        vlm.generate([ASKED], Sampling(top_k=20))
    assert ["top_k" in body for body in server.bodies] == [True, False, True]


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


BOX = {"bbox_2d": [0, 0, 500, 500], "label": "it"}


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
    assert scores.logprobs == ((-0.5, -0.25), (-1.5, -2.5, -0.25))
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
            "differently once an answer follows",
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


NO_SCORES: dict[str, Any] = {"body": {"choices": []}}


@pytest.mark.parametrize(
    ("word", "expected"),
    [("Yes.", 0.8), ("no", 0.2), ("Perhaps", None)],
    ids=["yes", "no", "neither"],
)
def test_a_verdict_is_read_from_a_written_word(serve: Serve, word: str, expected: Any) -> None:
    entries = [{"token": word, "logprob": math.log(0.8)}]
    chunk = said(word, "stop", logprobs={"content": entries})
    server = serve(NO_SCORES, {"chunks": [chunk, "[DONE]"]})
    branch = mm.Trace(mm.Sample("q", ASKED)).best
    got = asked(branch, vlm=server.model())
    assert got == (expected if expected is None else pytest.approx(expected))
    assert server.bodies[1]["messages"][-1]["content"].endswith(ENOUGH)


def test_a_verdict_without_log_probabilities_is_refused_by_name(serve: Serve) -> None:
    server = serve(NO_SCORES, reply("yes"))
    with pytest.raises(mm.ModelError, match="gives no log-probabilities, which a verdict is"):
        asked(mm.Trace(mm.Sample("q", ASKED)).best, vlm=server.model())


def test_requests_in_flight_are_all_asked_without_what_the_server_refused(serve: Serve) -> None:
    refusal = {"status": 400, "body": {"error": {"message": "seed is not supported"}}}
    server = serve(*[{**refusal, "pause_s": 0.1}] * 2, reply("K"))
    vlm = server.model()  # both requests go out before either comes back
    traces = mm.run_many(mm.direct, [mm.question(q, PICTURE) for q in "ab"], vlm, threads=2)
    assert [trace.reply for trace in traces] == ["K", "K"]
    assert ["seed" in body for body in server.bodies] == [True, True, False, False]


CUT = reply("It may be", finish="length")
SILENT = reply("", finish="length")


@pytest.mark.parametrize(
    "told",
    [
        pytest.param("Unrecognized request argument: continue_final_message", id="names one"),
        pytest.param("Extra inputs are not permitted: add_generation_prompt", id="the other"),
        pytest.param("Expected last role user or tool but got assistant", id="names none"),
    ],
)
def test_a_server_that_lets_no_reply_go_on_is_asked_to_by_a_message(
    serve: Serve, told: str
) -> None:
    refusal = {"status": 400, "body": {"error": {"message": told}}}
    server = serve(SILENT, refusal, reply("<answer>K</answer>"), SILENT, reply("K"))
    vlm = server.model()
    for _ in range(2):
        trace = mm.run(mm.direct, mm.question("What letter?", PICTURE), vlm)
        assert (trace.answer, trace.reply, trace.error) == ("K", "K", None)
    last = server.bodies[-1]
    assert len(server.bodies) == 5
    assert not {"continue_final_message", "add_generation_prompt"} & last.keys()
    assert last["messages"][1:] == [
        {"role": "assistant", "content": "<answer>"},
        {"role": "user", "content": "Go on from there, and answer now."},
    ]


def test_a_thought_that_is_cut_where_a_message_asked_to_go_on_is_no_answer(
    serve: Serve, thinking: str
) -> None:
    told = {"message": "Unrecognized request argument: continue_final_message"}
    server = serve(CUT, {"status": 400, "body": {"error": told}}, CUT)
    sample = mm.question("What letter?", PICTURE)
    trace = mm.run(mm.direct, sample, server.model(processor=thinking))
    assert (trace.answer, trace.best.thoughts[-1]) == (None, "It may be")


def test_a_refusal_for_another_reason_is_said_as_it_is(serve: Serve) -> None:
    refusal = {"status": 400, "body": {"error": {"message": "too long: 9 > 8"}}}
    server = serve(SILENT, refusal)
    trace = mm.run(mm.direct, mm.question("What letter?", PICTURE), server.model())
    assert trace.error
    assert trace.error.endswith("too long: 9 > 8")


@pytest.fixture
def thinking(tmp_path: Path) -> str:
    """The processor of a checkpoint whose template opens a thought."""
    tiny = FAMILIES["qwen3_vl"]()
    tiny.model.config.save_pretrained(tmp_path)
    tokenizer = copy(tiny.builder.tokenizer)
    tokenizer.chat_template = template("qwen3_vl").replace(
        r"assistant\n' }}", r"assistant\n<think>\n' }}"
    )
    tokenizer.save_pretrained(tmp_path)
    tiny.builder.image_processor.save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("text", "finish", "parts"),
    [
        pytest.param("It may", "length", (Thinking("It may", closed=False),), id="cut"),
        pytest.param("It may", "stop", (Text("It may"),), id="a whole reply"),
        pytest.param("a</think>b", "length", (Thinking("a"), Text("b")), id="closed"),
        pytest.param("a</think>b", "stop", (Thinking("a"), Text("b")), id="closed, whole"),
        pytest.param("<think>a", "length", (Thinking("a", closed=False),), id="opened again"),
    ],
)
def test_a_thought_that_the_template_opened_is_one(
    serve: Serve, thinking: str, text: str, finish: str, parts: tuple[Part, ...]
) -> None:
    vlm = serve(reply(text, finish=finish)).model(processor=thinking)
    (got,) = vlm.generate([ASKED], Sampling())
    assert got.message.parts == parts
    assert [p.closed for p in got.message.parts if isinstance(p, Thinking)] == [
        p.closed for p in parts if isinstance(p, Thinking)
    ]
    bare = serve(reply("It may", finish="length")).model()  # whose template nobody knows
    assert bare.generate([ASKED], Sampling())[0].message.parts == (Text("It may"),)


@pytest.mark.parametrize("limit", [None, 4], ids=["by the reply's bound", "by the thought's"])
def test_a_thought_that_was_cut_is_answered(serve: Serve, thinking: str, limit: int | None) -> None:
    server = serve(CUT, reply("K</answer>"))
    sampling = Sampling(max_tokens=40, max_thought_tokens=limit)
    trace = mm.run(
        mm.direct,
        mm.question("What letter?", PICTURE),
        server.model(processor=thinking),
        sampling=sampling,
    )
    assert (trace.answer, trace.error) == ("K", None)
    assert trace.best.thoughts == ("It may be",)
    first, second = server.bodies
    assert first["max_tokens"] == (limit or 40)
    assert second["continue_final_message"]
    assert second["messages"][-1] == {
        "role": "assistant",
        "content": "It may be\n</think>\n<answer>",  # what the server sent stays as it was
    }


def test_a_server_with_a_processor_is_sent_no_more_at_once(serve: Serve, thinking: str) -> None:
    server = serve(reply("K"))
    made = [server.model(), server.model(processor=thinking), serve(models=LISTED).model(name="")]
    assert {vlm.traits.at_once for vlm in made} == {AT_ONCE}


def test_a_batch_job_may_ask_a_server_too(serve: Serve) -> None:
    jobs = serve(reply("K")).model().asking(priority=-1, deadline=9)
    assert (jobs.deadline, jobs.generate([ASKED], Sampling())[0].message.text) == (9, "K")
