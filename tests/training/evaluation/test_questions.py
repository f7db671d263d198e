"""A person's own questions: what is read, and what is refused before anything runs."""

import json
from dataclasses import replace

import pytest
from PIL import Image as pil

from mm.types import Image, Text, assistant, user
from training.data import Access, BadData, Row
from training.evaluation.questions import read_questions, target_of


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "set").mkdir()
    pil.new("RGB", (8, 6), "red").save(tmp_path / "set" / "red.png")
    pil.new("RGB", (8, 6), "blue").save(tmp_path / "blue.png")
    (tmp_path / "set" / "torn.png").write_bytes(b"\x89PNG")
    return tmp_path / "set"


def write(folder, name, content):
    text = content if isinstance(content, str) else "\n".join(json.dumps(row) for row in content)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


CALL = {"function": {"name": "zoom", "arguments": "{}"}}
NATIVE = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Colour?"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": [{"type": "image"}]},
        {"role": "assistant", "content": "red"},
    ],
    "images": ["red.png", {"crop_of": 0, "bbox": [0, 0, 4, 4]}],
    "answer": "red",
}
ROW = {"image": "red.png", "question": "Colour?", "answer": "red"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("a.csv", "image,question,answer\nred.png,Colour?,red\n", id="csv"),
        pytest.param(
            "a.csv", "\ufeffImage; Question; Answer\nred.png;Colour?;red\n", id="from a spreadsheet"
        ),
        pytest.param("a.csv", "answer,image,question\n\nred,red.png,Colour?", id="other order"),
        pytest.param("a.jsonl", [ROW], id="jsonl"),
        pytest.param("a.json", json.dumps([ROW]), id="json"),
        pytest.param("a.jsonl", [{**ROW, "images": ["red.png"]}], id="list of pictures"),
    ],
)
def test_a_question_is_read(folder, name, content):
    (item,) = read_questions(write(folder, name, content))
    (said,) = item.sample.prompt
    assert said.role == "user"
    assert isinstance(said.parts[0], Image)
    assert said.parts[0].size == (8, 6)
    assert said.parts[1:] == (Text("Colour?"),)
    assert item.sample.target == "red"
    assert (item.regions, item.box) == ((), None)


def test_a_native_row_is_asked_without_its_reply(folder):
    (item,) = read_questions(write(folder, "a.jsonl", [NATIVE]))
    assert [m.role for m in item.sample.prompt] == ["system", "user"]
    assert item.sample.prompt[1].text == "Colour?"
    assert len(item.sample.images) == 1


def test_a_long_reply_is_the_truth_as_a_whole(folder):
    said = "the table is wide and stands left of a door " * 5
    reply = {"role": "assistant", "content": f"<think>so</think>{said}"}
    row = {key: value for key, value in NATIVE.items() if key != "answer"}
    row["messages"] = [*NATIVE["messages"][:-1], reply]
    (item,) = read_questions(write(folder, "a.jsonl", [row]))
    assert item.sample.target == said.strip()


def test_what_is_right_of_a_pair_is_what_its_chosen_side_says(folder):
    image = Image(pil.new("RGB", (8, 6)))
    asked = (user(image, "Colour?"), assistant("Let me see 12 of them."))
    row = Row("a", asked, chosen=(assistant("red"),), rejected=(assistant("blue"),))
    assert target_of(row) == "red"
    more = (user("And this one?"), assistant("blue"))
    with pytest.raises(ValueError, match="'answer' beside a 'chosen' in which the user speaks"):
        target_of(replace(row, chosen=row.chosen + more))
    assert target_of(replace(row, chosen=row.chosen + more, answer="red")) == "red"
    look = (user(image), assistant("red"))
    assert target_of(replace(row, chosen=look)) == "red"


def test_choices_numbers_and_names(folder):
    csv = "image,question,answer,choices\nred.png,How many?,1,1 | 2\nred.png,How many?,2,\n"
    first, second = read_questions(write(folder, "mine.csv", csv))
    assert (first.sample.choices, second.sample.choices) == (("1", "2"), ())
    assert (first.sample.id, second.sample.id) == ("mine-2", "mine-3")
    (third,) = read_questions(write(folder, "a.jsonl", [{**ROW, "answer": 3}]))
    assert third.sample.target == "3"


def test_only_the_first_rows_are_checked_and_asked(folder):
    path = write(folder, "a.jsonl", [ROW, ROW, {"image": 3}])
    assert len(read_questions(path, limit=2)) == 2


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        pytest.param({**ROW, "image": "no.png"}, "no.png' does not exist", id="no such picture"),
        pytest.param({**ROW, "image": "torn.png"}, "expected an image, found that", id="torn"),
        pytest.param({**ROW, "image": 3}, "expected the path of an image, found 3", id="number"),
        pytest.param({**ROW, "image": ""}, "expected the path of an image, found ''", id="blank"),
        pytest.param({**ROW, "question": " "}, "text in 'question', found ' '", id="no question"),
        pytest.param({**ROW, "answer": None}, "text in 'answer', found nothing", id="no answer"),
        pytest.param({**ROW, "answer": True}, "text in 'answer', found True", id="a truth"),
        pytest.param({**ROW, "choices": 3}, "a list in 'choices', found 3", id="bad choices"),
        pytest.param(["red.png"], "an object, found ['red.png']", id="a list"),
        pytest.param({**ROW, "image": "../blue.png"}, "inside the file's folder", id="dot dot"),
        pytest.param({**ROW, "image": "a\\..\\..\\b.png"}, "inside the file's", id="backslashes"),
        pytest.param({**ROW, "image": "/etc/hosts"}, "inside the file's folder", id="absolute"),
        pytest.param({**ROW, "image": "C:\\a.png"}, "inside the file's folder", id="drive"),
        pytest.param({**ROW, "image": "http://a/b.png"}, "found the URL", id="web"),
        pytest.param({**ROW, "image": "file:///a.png"}, "found the URL", id="file URL"),
        pytest.param({**NATIVE, "images": ["red.png"]}, "expected 2 images", id="too few"),
        pytest.param({**NATIVE, "messages": []}, "expected 0 images", id="no messages"),
        pytest.param({**NATIVE, "messages": 3}, "a list in 'messages', found 3", id="messages 3"),
        pytest.param({"messages": [3], "answer": "a"}, "expected a message, found 3", id="no dict"),
        pytest.param(
            {"messages": [{"role": "assistant", "content": "hi"}], "answer": "a"},
            "expected a user message, found none",
            id="nobody asks",
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "video"}]}], "answer": "a"},
            "tag '<video>' in text: clips are named in the column 'video'",
            id="video",
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "audio"}]}], "answer": "a"},
            "expected a text, image or video part, found {'type': 'audio'}",
            id="audio",
        ),
    ],
)
def test_a_bad_row_is_named(folder, row, complaint):
    path = write(folder, "a.jsonl", [ROW, row])
    with pytest.raises(BadData) as caught:
        read_questions(path)
    (line,) = str(caught.value).split("\n")
    assert line.startswith(f"{path}, row 2: ")
    assert complaint in line


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        pytest.param("a.txt", "", "expected a file that ends in .csv, .tsv, .jsonl", id="suffix"),
        pytest.param("a.csv", "", "row 1: expected columns image,question,answer", id="empty csv"),
        pytest.param(
            "a.csv", "image,answer\n", "question,answer, found 'image,answer'", id="column"
        ),
        pytest.param(
            "a.csv", "image,question,answer\n", "at least one row, found none", id="header alone"
        ),
        pytest.param(
            "a.csv",
            "image,question,answer\nred.png,Red, or blue?,red\n",
            "row 2: expected 3 columns, found ['red'] too many",
            id="unquoted comma",
        ),
        pytest.param(
            "a.csv", "image,question,answer\nred.png,Red?\n", "in 'answer', found nothing", id="cut"
        ),
        pytest.param("a.jsonl", '{"image": \n', "row 1: expected JSON, found that", id="bad json"),
        pytest.param("a.json", "{}", "expected a list of rows, found {}", id="json object"),
        pytest.param("a.json", "[", "expected a list of rows, found expected JSON", id="cut json"),
    ],
)
def test_a_bad_file_is_refused(folder, name, content, complaint):
    with pytest.raises(BadData) as caught:
        read_questions(write(folder, name, content))
    assert complaint in str(caught.value)


def test_every_bad_row_is_listed_up_to_a_limit(folder):
    path = write(folder, "a.jsonl", [ROW, {}, ROW, *[{"image": 1}] * 30])
    with pytest.raises(BadData) as caught:
        read_questions(path)
    lines = str(caught.value).split("\n")
    assert [line.split(":")[0] for line in lines[:2]] == [f"{path}, row 2", f"{path}, row 4"]
    assert (len(lines), lines[-1]) == (21, "... and 11 more bad rows")


def test_pictures_may_lie_anywhere_when_allowed(folder):
    rows = [{**ROW, "image": "../blue.png"}, {**ROW, "image": str(folder.parent / "blue.png")}]
    assert (
        len(
            list(read_questions(write(folder, "a.jsonl", rows), access=Access(absolute_paths=True)))
        )
        == 2
    )


def test_other_text_than_utf8_is_refused(folder):
    (folder / "a.csv").write_bytes(b"image,question,answer\nred.png,Colour?,gr\xfcn\n")
    with pytest.raises(BadData, match="UTF-8"):
        read_questions(folder / "a.csv")


def test_a_missing_file_is_refused(folder):
    with pytest.raises(BadData, match=r"none\.csv cannot be read: No such file"):
        read_questions(folder / "none.csv")
