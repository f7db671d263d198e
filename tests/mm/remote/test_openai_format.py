"""Conversations as they are sent to a server."""

from __future__ import annotations

import json
from typing import Any

import PIL.Image
import pytest
from scripted_server import Serve, reply, said

import mm
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
from vision import zoom
from vision.zoom_tool import ZOOM, ZOOM_TOOL

PICTURE = mm.Image(PIL.Image.new("RGB", (200, 100), "red"))


ASKED: Conversation = (user(PICTURE, "What letter?"),)


def call_delta(index: int, **function: str) -> dict[str, Any]:
    calls = [{"index": index, "function": function}]
    return {"choices": [{"delta": {"tool_calls": calls}, "finish_reason": None}]}


BOX = {"bbox_2d": [0, 0, 500, 500], "label": "it"}


CALL = ToolCall(ZOOM, BOX)


WRITTEN = f'<tool_call>\n{{"name": "{ZOOM}", "arguments": {json.dumps(BOX)}}}\n</tool_call>'


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
