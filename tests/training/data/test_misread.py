"""Values are what they were meant to be: pairs, classes, holes, boxes and answers."""

import base64
import csv
import io
import json
from dataclasses import replace

import pandas
import pyarrow
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from PIL import Image as pil
from pyarrow import parquet
from row_files import data_of, make_images, one, reply, said, text, user

from training.data import BadData, read_data

ASK = user("a")
GOOD, BAD = reply("good"), reply("bad")


@pytest.fixture
def folder(tmp_path):
    return make_images(tmp_path)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param({"prompt": [ASK], "chosen": [GOOD], "rejected": [BAD]}, id="native"),
        pytest.param({"prompt": "a", "chosen": "good", "rejected": "bad"}, id="strings"),
        pytest.param(
            {"prompt": "a", "chosen": [ASK, GOOD], "rejected": [ASK, BAD]}, id="ultrafeedback"
        ),
        pytest.param(
            {"prompt": "a", "messages": [ASK, GOOD], "chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
            id="and its messages",
        ),
        pytest.param({"chosen": [ASK, GOOD], "rejected": [ASK, BAD]}, id="implicit prompt"),
        pytest.param({"messages": [ASK, GOOD], "rejected_response": "bad"}, id="swift"),
        pytest.param({"messages": [ASK, GOOD], "rejected_response": [BAD]}, id="swift, a list"),
        pytest.param({"messages": [ASK, GOOD], "rejected_messages": [ASK, BAD]}, id="swift, all"),
        pytest.param(
            {
                "conversations": [{"from": "human", "value": "a"}],
                "chosen": {"from": "gpt", "value": "good"},
                "rejected": {"from": "gpt", "value": "bad"},
            },
            id="LLaMA-Factory#5768",
        ),
        pytest.param({"instruction": "a", "chosen": "good", "rejected": "bad"}, id="alpaca"),
    ],
)
def test_a_pair_is_a_prompt_and_two_sides(folder, row):
    found = one(folder, row)
    assert said(found.messages) == [("user", "a")]
    assert said(found.chosen) == [("assistant", "good")]
    assert said(found.rejected) == [("assistant", "bad")]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        pytest.param(
            {"prompt": "a", "chosen": "good", "rejected": "good"}, "sides that differ", id="equal"
        ),
        pytest.param(
            {"prompt": "a", "chosen": [user("b"), GOOD], "rejected": [ASK, BAD]},
            "goes on from the prompt, found 'user'",
            id="another question",
        ),
        pytest.param(
            {"prompt": "a", "chosen": [reply("good", loss=False)], "rejected": "bad"},
            "both sides to train whole",
            id="a weight in a side",
        ),
        pytest.param({"chosen": "a", "rejected": "b"}, "a question before both", id="no prompt"),
        pytest.param(
            {"messages": [ASK], "rejected_response": "bad"}, "a good reply in 'messages'", id="half"
        ),
    ],
)
def test_a_pair_that_teaches_nothing_is_refused(folder, row, complaint):
    with pytest.raises(BadData, match=complaint):
        one(folder, row)


@pytest.mark.parametrize("saved", ["parquet", "folder"])
def test_classes_have_their_names_and_holes_are_missing(folder, saved):
    features = Features(
        {
            "image": Value("string"),
            "question": Value("string"),
            "answer": ClassLabel(names=["cat", "dog"]),
            "source": Value("string"),
        }
    )
    rows = {"image": ["red.png"], "question": ["?"], "answer": [1], "source": [None]}
    data = Dataset.from_dict(rows, features=features)
    path = folder / ("rows.parquet" if saved == "parquet" else "set")
    (data.to_parquet if saved == "parquet" else data.save_to_disk)(str(path))
    if saved == "folder":
        (path / "red.png").touch()
        path = path.rename(folder / "named")
    (record,) = read_data(path).records
    assert (record.fields["answer"], "source" in record.fields) == ("dog", False)


@pytest.mark.parametrize("kind", ["parquet", "csv", "json", "jsonl"])
def test_a_whole_number_beside_a_hole_stays_whole(folder, kind):
    """pandas turns a column of integers to floats where one is missing."""
    table = pandas.DataFrame(
        {"image": "red.png", "question": "?", "answer": [3, None, 5], "hint": [0.5, None, 1.0]}
    )
    path = folder / f"rows.{kind}"
    write = {
        "parquet": table.to_parquet,
        "csv": lambda path: table.to_csv(path, index=False),
        "json": lambda path: table.to_json(path, orient="records"),
        "jsonl": lambda path: table.to_json(path, orient="records", lines=True),
    }
    write[kind](path)
    data = read_data(path, ignore=["hint"])
    assert (data[0].answer, data[2].answer) == ("3", "5")
    with pytest.raises(BadData, match="text in 'answer', found"):
        data[1]


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_a_string_of_json_stays_as_it_is(folder, suffix):
    rows = [{"image": "red.png", "question": "?", "answer": "2.0"}, {"image": "red.png"}]
    written = json.dumps(rows) if suffix == "json" else "\n".join(map(json.dumps, rows))
    (folder / f"rows.{suffix}").write_text(written)
    assert read_data(folder / f"rows.{suffix}")[0].answer == "2.0"


@pytest.mark.parametrize(
    ("choices", "found"),
    [
        pytest.param(["cat", "dog"], ("cat", "dog"), id="a list"),
        pytest.param("cat| dog", ("cat", "dog"), id="bars"),
        pytest.param('["cat", "dog"]', ("cat", "dog"), id="JSON"),
        pytest.param(" ['cat', 'dog']", ("cat", "dog"), id="Python"),
        pytest.param("[1, 2]", ("1", "2"), id="numbers"),
        pytest.param("[0, 1)|[1, 2]", ("[0, 1)", "[1, 2]"), id="brackets of their own"),
        pytest.param("[]", (), id="none"),
    ],
)
def test_choices_in_a_cell_are_a_list(folder, choices, found):
    row = {"prompt": "?", "answer": found[0] if found else "a", "choices": choices}
    assert one(folder, row).choices == found


@pytest.mark.parametrize(
    "choices",
    [
        pytest.param("cat", id="a word"),
        pytest.param("['cat' 'dog']", id="as numpy prints it"),
        pytest.param("[" * 100_000, id="too deep"),
    ],
)
def test_a_text_that_lists_one_choice_is_refused(folder, choices):
    with pytest.raises(BadData, match="two choices or more in 'choices', found"):
        one(folder, {"prompt": "?", "answer": "cat", "choices": choices})


@pytest.mark.parametrize(
    ("regions", "pixels"),
    [
        pytest.param([[8, 6, 40, 30]], [(8, 6, 40, 30)], id="pixels"),
        pytest.param([[0.1, 0.1, 0.5, 0.5]], [(8, 6, 40, 30)], id="shares"),
        pytest.param([[0, 0, 1, 1]], [(0, 0, 1, 1)], id="whole numbers are pixels"),
        pytest.param([[0, 0, 1, 1], [0, 0, 0.5, 1]], [(0, 0, 80, 60), (0, 0, 40, 60)], id="mixed"),
    ],
)
def test_regions_are_pixels_or_shares(folder, regions, pixels):
    row = {"image": "red.png", "question": "?", "answer": "a", "regions": regions}
    assert [each.to_pixels((80, 60)) for each in one(folder, row).regions] == pixels


def test_an_answer_is_one_of_its_choices(folder):
    row = {"image": "red.png", "question": "?", "answer": "bird", "choices": ["cat", "dog"]}
    with pytest.raises(BadData, match=r"one of the choices 'cat', 'dog', found 'bird'"):
        one(folder, row)
    assert one(folder, {**row, "answer": "B"}).answer == "B"


def objects(**changes):
    found = {"ref": ["a dog"], "bbox": [[8, 6, 40, 30], [0, 0, 80, 60]], **changes}
    said = [user("<image>Find <ref-object>."), reply("<bbox> and <bbox>")]
    return {"messages": said, "images": ["red.png"], "objects": found}


def write_box(region, image):
    return str(list(region.to_pixels((1000, 1000))))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="pixels"),
        pytest.param(
            {"bbox": [[0.1, 0.1, 0.5, 0.5], [0, 0, 1, 1]], "bbox_type": "norm1"}, id="norm1"
        ),
        pytest.param({"image_id": [0, 0]}, id="image_id"),
    ],
)
def test_objects_are_written_as_the_model_writes_boxes(folder, changes):
    """ms-swift's <ref-object> and <bbox> (ms-swift#2342, #3732)."""

    data = replace(data_of(folder, objects(**changes)), write_box=write_box)
    assert said(data[0].messages) == [
        ("user", "red", "Find a dog."),
        ("assistant", "[100, 100, 500, 500] and [0, 0, 1000, 1000]"),
    ]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        pytest.param({"bbox": [[8, 6, 40, 30]]}, "too few in 'objects'", id="a tag without box"),
        pytest.param({"bbox": [[8, 6, 40, 30]] * 3}, "a tag in text for each", id="a lost box"),
        pytest.param({"ref": ["a", "b"]}, "a tag in text for each", id="a lost name"),
        pytest.param({"bbox": [[615, 226]] * 2}, "four numbers", id="a point"),
        pytest.param({"bbox": [[0, 0, 81, 9]] * 2}, "inside 80x60", id="outside"),
        pytest.param({"label": ["a"]}, "'label' of 'objects' would be lost", id="key"),
        pytest.param({"image_id": [0, 1]}, "'image_id' below 1, found 1", id="image"),
    ],
)
def test_objects_that_do_not_fit_are_refused(folder, changes, complaint):

    data = replace(data_of(folder, objects(**changes)), write_box=write_box)
    with pytest.raises(BadData, match=complaint):
        data[0]


def test_sides_may_differ_by_their_boxes_alone(folder):
    """Both say <bbox> (ms-swift#5934)."""
    row = {
        "messages": [user("<image>Where?"), reply("<bbox>")],
        "rejected_response": "<bbox>",
        "images": ["red.png"],
        "objects": {"ref": [], "bbox": [[8, 6, 40, 30], [0, 0, 80, 60]]},
    }
    found = replace(data_of(folder, row), write_box=write_box)[0]
    assert said(found.chosen) == [("assistant", "[100, 100, 500, 500]")]
    assert said(found.rejected) == [("assistant", "[0, 0, 1000, 1000]")]


def test_objects_need_a_model(folder):
    with pytest.raises(BadData, match="'objects' needs a model"):
        one(folder, objects())


def image_text() -> str:
    file = io.BytesIO()
    pil.effect_noise((400, 300), 80).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize("start", ["", "data:image/png;base64,"], ids=["bare", "uri"])
def test_a_cell_may_hold_an_image(folder, start):
    assert len(image_text()) > 128 * 1024 / 2
    with (folder / "rows.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["image", "question", "answer"])
        out.writerow([start + image_text() + "\n" * 2**17, "?", "a"])
    assert read_data(folder / "rows.csv")[0].messages[0].images[0].size == (400, 300)


def test_an_error_about_an_image_is_short(folder):
    broken = image_text()[:-400]
    with pytest.raises(BadData) as caught:
        one(folder, {"image": broken, "question": "?", "answer": "a"})
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", "image,question,answer,answer\nred.png,?,a,b\n", "'answer' again"),
        ("a.csv", 'image,question,answer\nred.png,"?,a\nred.png,?,a\n', "expected CSV"),
        ("a.jsonl", '{"answer": "a", "answer": "b"}', "the key 'answer' is there twice"),
        ("a.jsonl", '{"question": "\\ud800"}', "half a character"),
        ("a.jsonl", "[" * 300 + "]" * 300, "nested deeper"),
    ],
    ids=["column twice", "open quote", "key twice", "surrogate", "deep"],
)
def test_what_a_parser_would_drop_is_named(folder, name, content, complaint):
    (folder / name).write_text(content)
    with pytest.raises(BadData, match=complaint):
        read_data(folder / name)[0]


def test_a_column_of_parquet_that_is_there_twice_is_named(folder):
    table = pyarrow.table([["a"], ["b"]], names=["answer", "answer"])
    parquet.write_table(table, folder / "a.parquet")
    with pytest.raises(BadData, match=r"'answer' again|Multiple matches"):
        read_data(folder / "a.parquet")


def test_text_of_parquet_that_is_none_is_named(folder):
    broken = pyarrow.Array.from_buffers(
        pyarrow.string(),
        1,
        [None, pyarrow.py_buffer(b"\0\0\0\0\2\0\0\0"), pyarrow.py_buffer(b"a\xff")],
    )
    parquet.write_table(pyarrow.table({"question": broken}), folder / "a.parquet")
    with pytest.raises(BadData, match="row 1: expected UTF-8 text, found byte 0xff"):
        read_data(folder / "a.parquet")[0]


def test_parts_that_follow_each_other_are_one_text(folder):
    row = one(folder, {"messages": [user([text("a"), text("b")]), GOOD]})
    assert said(row.messages)[0] == ("user", "ab")


def test_a_json_file_of_lines_is_told_its_name(folder):
    (folder / "a.json").write_text(json.dumps({"a": 1}) + "\n" + json.dumps({"a": 1}))
    with pytest.raises(BadData, match=r"one row a line is \.jsonl"):
        read_data(folder / "a.json")
