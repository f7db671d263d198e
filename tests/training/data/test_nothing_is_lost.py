"""Whatever a row has that could carry an image, a box, text, a side or a weight is read, or
refused by name."""

import json

import pyarrow.parquet
import pytest
from row_files import data_of, make_images, one, reply, said, text, user

from mm.markup import render_parts
from mm.types import ToolCall, ToolSpec
from training.data import BadData, read_data
from training.data.convert import convert
from training.data.formats import FORMATS

ASKED = [("user", "red", "Which?")]
TALK = [*ASKED, ("assistant", "The red one.")]
HUMAN = {"from": "human", "value": "<image>\nWhich?"}
GPT = {"from": "gpt", "value": "The red one."}
PLAIN = [user("Which?"), reply("The red one.")]
TYPED = [user([{"type": "image"}, text("Which?")]), reply("The red one.")]
TAGGED = [user("<image>Which?"), reply("The red one.")]
INLINE = [user([{"type": "image", "image": "red.png"}, text("Which?")]), reply("The red one.")]
CALL = {"name": "zoom", "arguments": {"a": 1}}
CALLED = '<tool_call>\n{"name": "zoom", "arguments": {"a": 1}}\n</tool_call>'
THOUGHT = "<think>\nhm\n</think>\n\n"


@pytest.fixture
def folder(tmp_path):
    return make_images(tmp_path)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param({"messages": PLAIN, "image": "red.png"}, id="image beside strings (trl#4199)"),
        pytest.param({"messages": PLAIN, "image_path": "red.png"}, id="image_path"),
        pytest.param({"messages": PLAIN, "images": ["red.png"]}, id="images beside strings"),
        pytest.param({"messages": TYPED, "images": "red.png"}, id="one image as a string"),
        pytest.param({"messages": TYPED, "images": [{"image": "red.png"}]}, id="wrapped image"),
        pytest.param(
            {"messages": TYPED, "images": [{"bytes": None, "path": "red.png"}]}, id="arrow"
        ),
        pytest.param(
            {
                "messages": [
                    user([{"index": 0, "type": "image", "text": None}, {**text("Which?")}]),
                    reply([{"index": None, **text("The red one.")}]),
                ],
                "images": ["red.png"],
            },
            id="numbered parts (llava-instruct-mix-vsft)",
        ),
        pytest.param(
            {"messages": [user([text("<image>\nWhich?")]), PLAIN[1]], "images": ["red.png"]},
            id="a tag in a text part",
        ),
        pytest.param({"messages": INLINE}, id="image in its part"),
        pytest.param({"messages": INLINE, "images": ["red.png"]}, id="named twice (trl#4077)"),
        pytest.param(
            {"messages": [user([{"image": "red.png"}, {"text": "Which?"}]), PLAIN[1]]},
            id="parts without a type",
        ),
        pytest.param(
            {"messages": [user("<img>red.png</img>\nWhich?"), PLAIN[1]]}, id="Qwen-VL's tag"
        ),
        pytest.param(
            {
                "conversations": [
                    {"from": "user", "value": "<img>red.png</img>\nWhich?"},
                    {"from": "assistant", "value": "The red one."},
                ]
            },
            id="Qwen-VL's conversations (Qwen-VL#147)",
        ),
        pytest.param({"conversations": [HUMAN, GPT], "image": "red.png"}, id="llava (#5883)"),
        pytest.param(
            {"instruction": "<image>Which?", "output": "The red one.", "images": ["red.png"]},
            id="alpaca (LLaMA-Factory#7909)",
        ),
        pytest.param(
            {"query": "<image>Which?", "response": "The red one.", "images": ["red.png"]},
            id="query and response",
        ),
        pytest.param(
            {"prompt": "Which?", "completion": "The red one.", "image": "red.png"},
            id="prompt and completion",
        ),
        pytest.param(
            {"image": "red.png", "question": "Which?", "answer": "The red one."}, id="short"
        ),
    ],
)
def test_images_are_seen_wherever_a_row_names_them(folder, row):
    assert said(one(folder, row).messages) == TALK


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        pytest.param({"audios": ["a.mp3"]}, "column 'audios' would be lost: clips", id="audios"),
        pytest.param({"audio": "a.wav"}, "column 'audio' would be lost: clips", id="audio"),
        pytest.param({"image_urls": ["a.png"]}, "'image_urls' would be lost: images", id="urls"),
        pytest.param({"img_path": "a.png"}, "'img_path' would be lost: images are", id="img_path"),
        pytest.param({"bbox": [1, 2, 3, 4]}, "'bbox' would be lost: boxes are", id="bbox"),
        pytest.param({"weight": 0.5}, "'weight' would be lost: only whole", id="weight"),
        pytest.param({"kto_tag": True}, "'kto_tag' would be lost", id="kto_tag"),
        pytest.param({"label": False}, "'label' would be lost", id="label (KTO)"),
        pytest.param({"options": ["a"]}, "'options' would be lost: choices are", id="options"),
        pytest.param({"rejected_images": ["a"]}, "beside 'rejected_images'", id="side's images"),
        pytest.param({"chosen": "good"}, "both 'chosen' and 'rejected'", id="one side"),
        pytest.param({"hint": "look left"}, "'hint' would be lost: swift rows", id="unknown"),
        pytest.param({"image": "blue.png"}, "one column of images, found images and", id="two"),
        pytest.param({"prompt": "Why?"}, "'messages' or 'prompt', found both", id="two prompts"),
    ],
)
def test_a_column_that_would_be_lost_is_named(folder, row, complaint):
    whole = {"messages": TAGGED, "images": ["red.png"], **row}
    with pytest.raises(BadData) as caught:
        one(folder, whole)
    assert complaint in str(caught.value)
    key = next(iter(row))
    if "would be lost" in complaint:
        assert f"--ignore {key}" in str(caught.value)
        assert said(one(folder, whole, ignore=[key]).messages) == TALK


@pytest.mark.parametrize(
    "column",
    [
        pytest.param({"videos": [], "hint": None, "weight": float("nan")}, id="empty"),
        pytest.param({"dataset": "x", "width": 80, "extra_info": {"a": 1}}, id="harmless"),
        pytest.param({"original": "Which?"}, id="said anyway"),
    ],
)
def test_columns_that_carry_nothing_do_no_harm(folder, column):
    row = {"messages": TAGGED, "images": ["red.png"], **column}
    assert said(one(folder, row).messages) == TALK


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        pytest.param([user("<video>Which?")], "tag '<video>' in text: clips", id="video"),
        pytest.param([user("<image1> or?")], "tag '<image1>' in text", id="InternVL#429"),
        pytest.param(
            [user("a"), reply("<|box_start|>(1,2)")], "'<|box_start|>'", id="Qwen3-VL#762"
        ),
        pytest.param([user("a"), reply("<bbox>")], "expected 'objects' for", id="box"),
        pytest.param([{"role": "robot", "content": "a"}], "found 'robot'", id="role"),
        pytest.param([{**user("a"), "images": ["red.png"]}], "'images' of a message", id="key"),
        pytest.param([user([{**text("a"), "box": [1]}])], "'box' of a part", id="key of a part"),
        pytest.param([user([{"type": "audio", "audio": "a"}])], "a text, image or", id="part"),
        pytest.param([user([{"type": "image", "text": "a"}])], "a text, image or video", id="both"),
        pytest.param(
            [user("a"), reply("b", weight=0.5)], "'weight' of 0 or 1, found 0.5", id="0.5"
        ),
        pytest.param(
            [user("a"), {"role": "tool_call", "content": "b"}], "a call as JSON", id="call"
        ),
    ],
)
def test_what_a_message_would_lose_is_named(folder, messages, complaint):
    with pytest.raises(BadData) as caught:
        one(folder, {"messages": messages}, dialect="swift")
    assert complaint in str(caught.value)


def test_the_system_column_speaks_first(folder):
    for key, talk in (("messages", PLAIN), ("conversations", [{**HUMAN, "value": "Which?"}, GPT])):
        row = one(folder, {"system": "Be brief.", key: talk})
        assert said(row.messages)[0] == ("system", "Be brief.")
    with pytest.raises(BadData, match="one system message"):
        one(folder, {"system": "a", "messages": [{"role": "system", "content": "b"}, *PLAIN]})


@pytest.mark.parametrize("weight", [{"weight": 0}, {"loss": False}, {"loss": 0}])
@pytest.mark.parametrize("dialect", ["openai", "sharegpt", "swift"])
def test_a_message_of_no_weight_does_not_train(folder, weight, dialect):
    """OpenAI's `weight: 0`, ms-swift's and ShareGPT's `loss: false` (ms-swift#7314)."""
    turns = [user("a"), reply("bad", **weight), user("b"), reply("good")]
    key = "messages"
    if dialect == "sharegpt":
        key = "conversations"
        turns = [{"from": t.pop("role"), "value": t.pop("content"), **t} for t in map(dict, turns)]
    assert one(folder, {key: turns}, dialect=dialect).untrained == {1}


def test_a_completion_trains_and_the_prompts_reply_does_not(folder):
    prompt = [user("a"), reply("b"), user("c")]
    row = one(folder, {"prompt": prompt, "completion": [reply("d")]})
    assert said(row.messages) == [*said(row.prompt), ("assistant", "d")]
    assert (len(row.prompt), row.untrained) == (3, {1})


def test_tools_come_as_json_and_calls_by_their_roles(folder):
    """As ms-swift's agents write them: `tool_call` and `tool_response`."""
    tools = json.dumps([{"type": "function", "function": {"name": "zoom", "parameters": {}}}])
    talk = [
        user("Sign?"),
        {"role": "tool_call", "content": json.dumps(CALL)},
        {"role": "tool_response", "content": "seen"},
        reply("STOP"),
    ]
    row = one(folder, {"tools": tools, "messages": talk})
    assert [m.role for m in row.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert row.messages[2].parts == (ToolCall("zoom", {"a": 1}),)


@pytest.mark.parametrize(
    ("message", "written"),
    [
        pytest.param(reply("b", reasoning_content="hm"), f"{THOUGHT}b", id="beside the content"),
        pytest.param(reply("\n\nb", reasoning_content="\nhm\n"), f"{THOUGHT}b", id="as servers do"),
        pytest.param(reply("", reasoning="hm", tool_calls=[CALL]), THOUGHT + CALLED, id="a call"),
        pytest.param(reply(THOUGHT, tool_calls=[CALL]), THOUGHT + CALLED, id="in the content"),
        pytest.param(reply(THOUGHT + CALLED), THOUGHT + CALLED, id="all in the content"),
        pytest.param(
            reply("b", reasoning="hm", tool_calls=[CALL]), f"{THOUGHT}b\n{CALLED}", id="words too"
        ),
    ],
)
@pytest.mark.parametrize("there", ["native", "sharegpt"])
def test_a_thought_trains_as_qwens_templates_write_it(folder, message, written, there):
    data = data_of(folder, {"messages": [user("a"), message]})
    convert(data, there, folder / "out.jsonl")
    for row in (data[0], read_data(folder / "out.jsonl")[0]):
        assert render_parts(row.messages[1].parts) == written


def test_an_empty_image_is_a_row_of_words(folder):
    talk = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    row = one(folder, {"image": "", "conversations": talk})
    assert said(row.messages) == [("user", "Hi"), ("assistant", "Hello")]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(
            {"problem": "<image>Which?", "answer": "3", "images": ["red.png"]}, id="EasyR1"
        ),
        pytest.param({"problem": "Which?", "solution": "3", "image": "red.png"}, id="R1-V"),
        pytest.param(
            {"prompt": "Which?", "ground_truth": ["3"], "images": ["red.png"]}, id="list of one"
        ),
        pytest.param(
            {"prompt": [user("<image>Which?")], "answer": "3", "image": "red.png"}, id="trl"
        ),
    ],
)
def test_questions_with_a_truth_are_read(folder, row):
    found = one(folder, row)
    assert (said(found.messages), found.answer) == (ASKED, "3")


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_refuses_what_it_does_not_read(folder, name):
    for key in ("audios", "weights", "new_column"):
        with pytest.raises(BadData):
            one(folder, {"messages": TYPED, "images": ["red.png"], key: ["x"]}, dialect=name)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_null_inside_a_schema_says_something_and_as_an_argument_nothing(folder, suffix):
    schema = {"type": "object", "properties": {"a": {"type": "string", "default": None}}}
    call = {"name": "zoom", "arguments": {"a": None, "b": {"c": None}}}
    tool = {"name": "zoom", "description": None, "parameters": schema}
    talk = [user("a"), reply(None, tool_calls=[call]), {"role": "tool", "content": "b"}, reply("c")]
    data = data_of(folder, {"tools": [tool], "messages": talk, "hint": None})
    convert(data, "native", folder / f"out{suffix}")
    for row in (data[0], read_data(folder / f"out{suffix}")[0]):
        assert row.messages[0].parts == (ToolSpec("zoom", "", schema),)
        assert row.messages[2].parts == (ToolCall("zoom", {"b": {}}),)


def test_nulls_that_arrow_fills_in_are_no_arguments(folder):
    calls = [{"function": {"name": "zoom", "arguments": {key: 1}}} for key in "ab"]
    rows = [[user("x"), {"role": "assistant", "tool_calls": [call]}] for call in calls]
    pyarrow.parquet.write_table(pyarrow.table({"messages": rows}), folder / "rows.parquet")
    found = [row.messages[1].parts for row in read_data(folder / "rows.parquet")]
    assert found == [(ToolCall("zoom", {key: 1}),) for key in "ab"]


@pytest.mark.parametrize(
    ("messages", "found"),
    [
        pytest.param(
            [{"role": "system", "content": ""}, *PLAIN], ["user", "assistant"], id="system"
        ),
        pytest.param(
            [
                user("Which?"),
                reply("", tool_calls=[CALL]),
                {"role": "tool", "content": ""},
                reply("b"),
            ],
            ["user", "assistant", "tool", "assistant"],
            id="a tool that shows nothing",
        ),
    ],
)
@pytest.mark.parametrize("there", ["native", "sharegpt", "swift"])
def test_messages_that_may_be_empty(folder, messages, found, there):
    data = data_of(folder, {"messages": messages})
    convert(data, there, folder / "out.jsonl")
    for row in (data[0], read_data(folder / "out.jsonl")[0]):
        assert [m.role for m in row.messages] == found


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_others_must_say_something(folder, role):
    with pytest.raises(BadData, match="expected text in a message"):
        one(folder, {"messages": [{"role": role, "content": ""}, *PLAIN]})
