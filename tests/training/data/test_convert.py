"""Every format to every other and back: the same rows as a model sees them, or refused by name."""

import json
import ntpath
from pathlib import PureWindowsPath
from types import SimpleNamespace

import pytest
from datasets import Dataset
from row_files import data_of, make_images, reply, text, user

from training.data import Access, BadData, read_data
from training.data.convert import _written, convert
from training.data.formats import WRITABLE

IMAGE = {"type": "image"}
LOOK = {"function": {"name": "zoom", "arguments": {"bbox_2d": [1, 2, 3, 4]}}}
SEEN = {"role": "tool", "content": [IMAGE]}
CROP = {"crop_of": 0, "bbox": [10, 20, 50, 40]}

ROWS = {
    "sft": {
        "messages": [
            {"role": "system", "content": "Be brief."},
            user([IMAGE, IMAGE, text("Which?")]),
            reply("A guess.", loss=False),
            user("Sure?"),
            reply("<think>Look.</think>The second."),
        ],
        "images": ["red.png", "blue.png"],
        "id": "a7",
        "source": "mine",
        "dataset": "x",
    },
    "looks": {
        "tools": [{"function": {"name": "zoom", "description": "d", "parameters": {"a": 1}}}],
        "messages": [
            user([IMAGE, text("Sign?")]),
            reply("<think>small</think>", tool_calls=[LOOK]),
            SEEN,
            reply("STOP"),
        ],
        "images": ["red.png", CROP],
        "answer": "STOP",
        "regions": [[10, 20, 50, 40]],
    },
    "dpo": {
        "prompt": [user([IMAGE, text("Which?")])],
        "chosen": [reply("good")],
        "rejected": [reply("bad")],
        "images": ["red.png"],
    },
    "dpo with looks": {
        "prompt": [user([IMAGE, text("Which?")])],
        "chosen": [reply("look"), user([IMAGE]), reply("good")],
        "rejected": [reply("bad")],
        "images": ["red.png"],
        "chosen_images": ["blue.png"],
    },
    "grpo": {
        "prompt": [user([IMAGE, text("How many?")])],
        "images": ["red.png"],
        "answer": 3,
        "choices": ["1", "3"],
        "regions": [[0.1, 0.1, 0.5, 0.5]],
        "source": "counts",
    },
    "words like tags": {"messages": [user([text("What is <image>?")]), reply("A tag.")]},
    "a line break behind an image": {
        "messages": [user([IMAGE, text("\nWhich?")]), reply("a")],
        "images": ["red.png"],
    },
    "objects": {
        "messages": [user("<image>Find <ref-object>"), reply("<bbox>")],
        "images": ["red.png"],
        "objects": {"ref": ["a dog"], "bbox": [[1, 2, 3, 4]]},
    },
}
REFUSED = {
    ("looks", "openai"): "write a crop as native",
    ("dpo", "openai"): "openai rows have no pairs",
    ("dpo with looks", "openai"): "openai rows have no pairs",
    ("dpo with looks", "sharegpt"): "one reply without images in 'chosen'",
    ("words like tags", "swift"): "text holds a tag",
    ("words like tags", "sharegpt"): "text holds a tag",
}


@pytest.fixture
def folder(tmp_path):
    return make_images(tmp_path)


def seen(data):
    """All that a model or a judge gets of each row but its name."""
    rows = []
    for row in data:
        said = [
            [(m.role, [getattr(p, "id", p) for p in m.parts]) for m in talk]
            for talk in (row.messages, row.chosen, row.rejected)
        ]
        rows.append((said, row.untrained, row.answer, row.choices, row.regions, row.source))
    return rows


def opened(path):
    data = read_data(path, access=Access(absolute_paths=True))
    object.__setattr__(data, "write_box", lambda region, image: str(region))
    return data


FORMATS = [name for name in WRITABLE if name not in ("trl", "llava")]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize("there", FORMATS)
@pytest.mark.parametrize("name", ROWS)
def test_a_row_says_the_same_there_and_back(folder, name, there, suffix):
    first = data_of(folder, ROWS[name]).path
    (folder / "deeper").mkdir()
    out = folder / "deeper" / f"rows{suffix}"
    if complaint := REFUSED.get((name, there)):
        with pytest.raises(BadData, match=complaint):
            convert(read_data(first), there, out)
        assert list(out.parent.iterdir()) == []
        return
    assert convert(read_data(first), there, out) == 1
    back = folder / f"back{suffix}"
    assert convert(read_data(out), "native", back) == 1
    assert seen(opened(first)) == seen(opened(out)) == seen(opened(back))


@pytest.mark.parametrize("there", FORMATS)
def test_every_format_to_every_other(folder, there):
    """From each format that can say it, a row with two images, and its way to the next."""
    first = data_of(folder, ROWS["sft"]).path
    convert(read_data(first), there, folder / "there.jsonl")
    for number, then in enumerate(FORMATS):
        out = folder / f"{number}.parquet"
        convert(read_data(folder / "there.jsonl"), then, out)
        assert seen(opened(out)) == seen(opened(first))


@pytest.mark.parametrize("kind", ["parquet", "folder"])
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_images_in_bytes_are_carried_along(folder, kind, suffix):
    """As `datasets` saves them, in a parquet file or a folder of its own."""
    held = {"bytes": (folder / "red.png").read_bytes(), "path": None}
    data = Dataset.from_list([{"image": held, "question": "Which?", "answer": "red"}] * 3)
    path = folder / ("rows.parquet" if kind == "parquet" else "set")
    (data.to_parquet if kind == "parquet" else data.save_to_disk)(str(path))
    out = folder / f"out{suffix}"
    assert convert(read_data(path), "native", out) == 3
    assert seen(opened(out)) == seen(opened(path))


def test_short_rows_and_an_image_as_a_string(folder):
    path = data_of(folder, {"images": "red.png", "question": "?", "answer": "a"}).path
    assert convert(read_data(path), "swift", folder / "out.jsonl") == 1
    (line,) = (folder / "out.jsonl").read_text().splitlines()
    assert json.loads(line)["messages"][0] == user("<image>?")


@pytest.mark.parametrize("batch", [1, 256])
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_rows_of_several_kinds_in_one_file(folder, suffix, batch, monkeypatch):
    """Columns that one row alone has, and numbers beside words, survive parquet too."""
    monkeypatch.setattr("training.data.convert.BATCH", batch)
    mixed = [
        ROWS["looks"],
        ROWS["grpo"],
        {**ROWS["sft"], "index": 3},
        {**ROWS["sft"], "index": "b"},
    ]
    first = data_of(folder, *mixed).path
    out = folder / f"out{suffix}"
    assert convert(read_data(first), "native", out) == 4
    assert seen(opened(out)) == seen(opened(first))


def test_a_bad_row_leaves_nothing_behind(folder):
    path = data_of(folder, ROWS["sft"], {"messages": [user("a")], "audios": ["b"]}).path
    with pytest.raises(BadData, match="row 2: column 'audios' would be lost"):
        convert(read_data(path), "native", folder / "out.jsonl")
    assert not list(folder.glob("out*"))


def test_images_on_another_drive_are_told(monkeypatch):
    monkeypatch.setattr("training.data.convert.os", SimpleNamespace(path=ntpath))
    with pytest.raises(ValueError, match="write the file on their drive"):
        _written("a.png", PureWindowsPath("C:/rows"), PureWindowsPath("D:/rows/out.jsonl"))  # pyright: ignore[reportArgumentType]
