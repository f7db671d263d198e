"""Rows of every dialect and kind of file mean the same; a bad one is named with what is wrong."""

import base64
import io
import json

import pytest
from datasets import Dataset
from PIL import Image as pil
from row_files import make_images, one, said

from mm.types import Text, Thinking, ToolCall, ToolSpec
from training.data import Access, BadData, read_data
from training.data.convert import convert


@pytest.fixture
def folder(tmp_path):
    make_images(tmp_path)
    (tmp_path / "torn.png").write_bytes((tmp_path / "red.png").read_bytes()[:60])
    return tmp_path


IMAGE = {"type": "image"}
TWO = [("user", "red", "blue", "Which?"), ("assistant", "The second.")]

SAME = {
    "native": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image"},
                    {"type": "image"},
                    {"type": "text", "text": "Which?"},
                ],
            },
            {"role": "assistant", "content": "The second."},
        ],
        "images": ["red.png", "blue.png"],
    },
    "short": {"images": ["red.png", "blue.png"], "question": "Which?", "answer": "The second."},
    "llava": {
        "id": "1",
        "image": ["red.png", "blue.png"],
        "conversations": [
            {"from": "human", "value": "<image>\n<image>\nWhich?"},
            {"from": "gpt", "value": "The second."},
        ],
    },
    "openai": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "red.png"}},
                    {"type": "image_url", "image_url": {"url": "blue.png"}},
                    {"type": "text", "text": "Which?"},
                ],
            },
            {"role": "assistant", "content": "The second."},
        ],
    },
    "swift": {
        "messages": [
            {"role": "user", "content": "<image><image>Which?"},
            {"role": "assistant", "content": "The second."},
        ],
        "images": ["red.png", "blue.png"],
    },
}


@pytest.mark.parametrize("dialect", SAME)
def test_a_row_means_the_same_in_every_dialect(folder, dialect):
    assert said(one(folder, SAME[dialect]).messages) == TWO


@pytest.mark.parametrize(
    ("content", "images", "seen"),
    [
        pytest.param("a <image>b", ["red.png"], ("a ", "red", "b"), id="where it stands"),
        pytest.param("a", ["red.png"], ("red", "a"), id="none: in front"),
        pytest.param("a <image>", [], ("a <image>",), id="no images: words"),
        pytest.param("<image>", ["red.png"] * 2, "2 images|1 images, as many", id="too few"),
        pytest.param("<image><image>", ["red.png"], "expected 2 images, as many", id="too many"),
        pytest.param("<image><image1>", ["red.png"], "tag '<image1>'", id="another toolkit's"),
    ],
)
def test_tags_in_text_parts_stand_for_the_images_of_a_column(folder, content, images, seen):
    asked = {"role": "user", "content": [{"type": "text", "text": content}]}
    row = {"messages": [asked, {"role": "assistant", "content": "So."}], "images": images}
    if isinstance(seen, str):
        with pytest.raises(BadData, match=seen):
            one(folder, row)
        return
    assert said(one(folder, row).messages)[0] == ("user", *seen)


def test_a_tag_that_only_a_reply_writes_is_text(folder):
    row = {"question": "How?", "answer": "Write <image>.", "image": "red.png"}
    assert said(one(folder, row).messages) == [
        ("user", "red", "How?"),
        ("assistant", "Write <image>."),
    ]


@pytest.mark.parametrize("index", [1, "0", -1])
def test_a_part_that_stands_for_another_image_than_the_next_is_refused(folder, index):
    parts = [{"type": "image", "index": index}, {"type": "image"}]
    row = {"messages": [{"role": "user", "content": parts}], "images": ["red.png", "blue.png"]}
    with pytest.raises(BadData, match="expected 'index' 0 in the next image part, found"):
        one(folder, row)


@pytest.mark.parametrize("dialect", ["sharegpt", "openai", "swift", "native"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_converted_rows_mean_the_same(folder, dialect, suffix):
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(SAME["native"]), encoding="utf-8")
    (folder / "deeper").mkdir()
    out = folder / "deeper" / f"rows{suffix}"
    assert convert(read_data(path), dialect, out) == 1
    back = read_data(out, access=Access(absolute_paths=True))[0]  # `..` leads to the pictures
    assert said(back.messages) == TWO


def test_null_keys_from_arrow_are_no_pictures(folder):
    """In Arrow a text part has an `image_url` and an image part a `text`: both empty."""
    path = folder / "set"
    asked = SAME["openai"]["messages"][0]
    answered = {"role": "assistant", "content": [{"type": "text", "text": "The second."}]}
    Dataset.from_list([{"messages": [asked, answered]}]).save_to_disk(str(path))
    assert said(read_data(path, access=Access(absolute_paths=True))[0].messages) == TWO


def test_pictures_come_as_bytes_and_data_uris(folder):
    file = io.BytesIO()
    pil.new("RGB", (80, 60), "green").save(file, "PNG")
    uri = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    row = {"image": uri, "question": "Colour?", "answer": "green"}
    assert said(one(folder, row).messages)[0] == ("user", "green", "Colour?")
    path = folder / "rows.parquet"
    held = {"bytes": file.getvalue(), "path": None}
    Dataset.from_list([{**row, "image": held}]).to_parquet(str(path))
    assert said(read_data(path)[0].messages)[0] == ("user", "green", "Colour?")


LOOK = {
    "tools": [{"function": {"name": "zoom", "description": "d", "parameters": {"a": 1}}}],
    "messages": [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Sign?"}]},
        {
            "role": "assistant",
            "content": "<think>small</think>",
            "tool_calls": [{"function": {"name": "zoom", "arguments": {"bbox_2d": [1, 2, 3, 4]}}}],
            "loss": False,
        },
        {"role": "tool", "content": [{"type": "image"}]},
        {"role": "assistant", "content": "STOP"},
    ],
    "images": ["red.png", {"crop_of": 0, "bbox": [10, 20, 50, 40]}],
    "answer": "STOP",
    "regions": [[10, 20, 50, 40]],
}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_trajectory_with_a_crop_is_read_whole(folder, suffix):
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(LOOK), encoding="utf-8")
    if suffix == ".parquet":
        convert(read_data(path), "native", folder / "rows.parquet")
        path = folder / "rows.parquet"
    row = read_data(path)[0]
    offered, asked, call, seen, reply = row.messages
    assert isinstance(offered.parts[0], ToolSpec)
    assert dict(offered.parts[0].parameters) == {"a": 1}
    assert call.parts == (Thinking("small"), ToolCall("zoom", {"bbox_2d": [1, 2, 3, 4]}))
    assert seen.images[0].origin.parent == asked.images[0].id
    assert (reply.parts, row.untrained) == ((Text("STOP"),), {2})
    assert row.regions[0].to_pixels((80, 60)) == (10, 20, 50, 40)
    assert row.prompt == (offered, asked)


PAIR = {
    "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}],
    "chosen": [{"role": "assistant", "content": "good"}],
    "rejected": [
        {"role": "assistant", "content": "look"},
        {"role": "user", "content": [{"type": "image"}]},
        {"role": "assistant", "content": "bad"},
    ],
    "images": ["red.png"],
    "rejected_images": ["blue.png"],
}
PAIRS = {
    "native": PAIR,
    "vts": {
        **{
            key: [
                {"role": m["role"], "content": m["content"]}
                for m in (PAIR[key] if isinstance(PAIR[key], list) else [])
            ]
            for key in ("prompt", "chosen", "rejected")
        },
        "prompt_image_path": ["red.png"],
        "chosen_image_path": [],
        "rejected_image_path": "blue.png",
    },
    "swift": {
        "messages": [
            {"role": "user", "content": "<image>?"},
            {"role": "assistant", "content": "good"},
        ],
        "images": ["red.png"],
        "rejected_messages": [
            {"role": "user", "content": "<image>?"},
            {"role": "assistant", "content": "look"},
            {"role": "user", "content": "<image>"},
            {"role": "assistant", "content": "bad"},
        ],
        "rejected_images": ["red.png", "blue.png"],
    },
}


@pytest.mark.parametrize("dialect", PAIRS)
def test_a_pair_keeps_each_sides_own_pictures(folder, dialect):
    row = one(folder, PAIRS[dialect])
    assert said(row.messages) == [("user", "red", "?")]
    assert said(row.chosen) == [("assistant", "good")]
    assert said(row.rejected) == [("assistant", "look"), ("user", "blue"), ("assistant", "bad")]


VLM_R3 = {
    "image_path": "red.png",
    "question": "Which?",
    "response_list": ['<think>There: {"bbox_2d": [1, 2, 3, 4]}', "Blue.</think><answer>b</answer>"],
    "img_crop_list": ["blue.png", None],
}


def test_vlm_r3s_pieces_are_one_reply_with_crops_inside(folder):
    """Its thought goes on behind the crop: it is neither closed before it nor opened anew."""
    row = one(folder, VLM_R3)
    first, last = VLM_R3["response_list"]
    asked, told, reply = said(row.messages)
    assert asked == ("user", "red", "Which?")
    assert '"bbox_2d"' in told[1]
    assert reply == ("assistant", first, "blue", last)


def test_vlm_r3s_pieces_and_crops_fit(folder):
    row = {**VLM_R3, "img_crop_list": ["blue.png"] * 3}
    with pytest.raises(BadData, match="at most 2 crops, found 3"):
        one(folder, row)


def test_a_reward_row_has_a_prompt_and_a_truth(folder):
    row = one(
        folder,
        {
            "prompt": [{"role": "user", "content": "<image>How many?"}],
            "images": ["red.png"],
            "reward_model": {"ground_truth": "3"},
            "data_source": "counts",
        },
    )
    assert said(row.messages) == [("user", "red", "How many?")]
    assert (row.answer, row.source) == ("3", "counts")


NATIVE = SAME["native"]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        pytest.param({**NATIVE, "images": ["red.png", "no.png"]}, "does not exist", id="missing"),
        pytest.param({**NATIVE, "images": ["red.png"]}, "expected 2 images", id="count"),
        pytest.param({**NATIVE, "images": ["red.png", "torn.png"]}, "cut off", id="truncated"),
        pytest.param(
            {**NATIVE, "images": ["red.png", {"crop_of": 0, "bbox": [50, 0, 10, 9]}]},
            "inside 80x60, found [50, 0, 10, 9]",
            id="inverted box",
        ),
        pytest.param(
            {**NATIVE, "images": ["red.png", {"crop_of": 0, "bbox": [0, 0, 81, 9]}]},
            "inside 80x60",
            id="box outside",
        ),
        pytest.param(
            {**NATIVE, "images": ["red.png", {"crop_of": 1, "bbox": [0, 0, 8, 9]}]},
            "expected 'crop_of' in 0..0, found 1",
            id="crop of itself",
        ),
        pytest.param({**SAME["short"], "answer": " "}, "text in 'answer', found ' '", id="empty"),
        pytest.param({"question": "a", "answer": "b"}, "path of an image", id="no picture"),
        pytest.param({**PAIR, "rejected_images": []}, "in 'rejected_images', found 0", id="side"),
        pytest.param({**NATIVE, "regions": [[1, 2, 3]]}, "four numbers", id="region of three"),
        pytest.param(
            {"conversations": [{"from": "robot", "value": "hi"}]}, "found 'robot'", id="speaker"
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": ""}]},
            "expected text in a message",
            id="empty reply",
        ),
    ],
)
def test_a_bad_row_is_named(folder, row, complaint):
    with pytest.raises(BadData) as caught:
        one(folder, row)
    assert str(caught.value).startswith(f"{folder / 'rows.jsonl'}, row 1: ")
    assert complaint in str(caught.value)


def test_rows_of_another_encoding_are_named_and_the_others_read(folder):
    good = json.dumps({"image": "red.png", "question": "?", "answer": "a"}).encode()
    (folder / "rows.jsonl").write_bytes(good + b'\n{"question": "gr\xfcn"}\n' + good)
    data = read_data(folder / "rows.jsonl")
    faults = [str(each) for each in data.each(lambda row: row.id) if isinstance(each, BadData)]
    assert faults == [f"{folder / 'rows.jsonl'}, row 2: expected UTF-8 text, found byte 0xfc in it"]


def test_an_address_needs_leave(folder):
    row = {**SAME["short"], "images": ["https://nowhere.invalid/a.png"]}
    with pytest.raises(BadData, match="allow-urls"):
        one(folder, row)
    with pytest.raises(BadData, match="expected an image at"):
        one(folder, row, access=Access(urls=True))
