"""What is saved comes back the same, and damage is noticed."""

import json
from dataclasses import replace

import pytest
from PIL import Image as pil

from mm.errors import BadTrace
from mm.geometry import Region
from mm.origins import Cropped, Drawn, Loaded
from mm.trace import Sample, Step, Trace
from mm.trace_store import append_trace, load_traces, save_traces
from mm.types import Cost, Image, Message, Text, Thinking, ToolCall, ToolSpec, message, user


def picture(colour: str = "red") -> pil.Image:
    pixels = pil.new("RGB", (6, 4), colour)
    pixels.putpixel((1, 2), (0, 10, 20))
    return pixels


def trace(id: str = "a\u2028b", colour: str = "red") -> Trace:
    photo = Image(picture(colour), Loaded("a b.png"))
    crop = Image(picture("blue"), Cropped(photo.id, Region(0.1, 0.2, 0.30000001, 1), (6, 4)))
    depth = Image(picture("grey"), Drawn(photo.id, "depth"))
    call = ToolCall("zoom", {"bbox_2d": [1, 2.5, 3, 4], "kind": "x", "label": "é \ud800"})
    sample = Sample(
        id, (user(photo, "what?"),), "red", ("red", "blue"), {"task": "colour", "level": 2}
    )
    steps = [
        Step(message("system", "look", ToolSpec("zoom", "looks again", {"type": "object"}))),
        Step(
            Message("assistant", (Thinking("hm"), call), (1, 2, 300)),
            0,
            sampled=True,
            logprobs=(-0.1, -1e-9, -12.345678901234567),
            scores={"right": 1.0, "unsure": None},
            cost=Cost(visual_tokens=3, generated_tokens=3, calls=1, seconds=0.25),
        ),
        Step(message("tool", crop, depth, "crop 1"), 1),
        Step(Message("assistant", (Text("red\n"),), ()), 0, sampled=True),
    ]
    return Trace(sample, "zoom", steps, chosen=3)


def tokens(traces: list[Trace]) -> list:
    return [s.message.tokens for t in traces for s in t.steps]


def test_round_trip(tmp_path):
    traces = [trace(), replace(trace("b", "green"), error="out of memory", chosen=None)]
    save_traces(traces, tmp_path)
    loaded = load_traces(tmp_path)
    assert loaded == traces
    assert tokens(loaded) == tokens(traces)
    saved = [i.pixels.tobytes() for t in traces for i in t.sample.images]
    assert [i.pixels.tobytes() for t in loaded for i in t.sample.images] == saved


def test_append_is_save(tmp_path):
    traces = [trace("a"), trace("b", "green")]
    for each in traces:
        append_trace(each, tmp_path / "new")
    save_traces(traces, tmp_path / "saved")
    both = [(tmp_path / name / "traces.jsonl").read_bytes() for name in ("new", "saved")]
    assert both[0] == both[1]


def test_save_replaces(tmp_path):
    save_traces([trace("a"), trace("b")], tmp_path)
    save_traces([trace("c")], tmp_path)
    assert [t.sample.id for t in load_traces(tmp_path)] == ["c"]


def test_a_failed_save_keeps_what_was_there(tmp_path):
    save_traces([trace("a")], tmp_path)
    bad = trace("b")
    bad.sample = replace(bad.sample, tags={"x": object()})
    with pytest.raises(ValueError, match="trace of 'b' cannot be saved"):
        save_traces([bad], tmp_path)
    assert [t.sample.id for t in load_traces(tmp_path)] == ["a"]


@pytest.mark.parametrize("cut", [1, 2, 100], ids=["line break lost", "brace lost", "much lost"])
def test_a_cut_off_line(tmp_path, cut, caplog):
    save_traces([trace("a"), trace("b")], tmp_path)
    file = tmp_path / "traces.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    whole = ["a", "b"] if cut == 1 else ["a"]
    assert [t.sample.id for t in load_traces(tmp_path)] == whole
    assert [f"{file}, line 2 is cut off" in m for m in caplog.messages] == [True] * (cut > 1)
    append_trace(trace("c"), tmp_path)
    assert [t.sample.id for t in load_traces(tmp_path)] == [*whole, "c"]


def test_a_cut_off_only_line(tmp_path):
    (tmp_path / "traces.jsonl").write_bytes(b'{"sam')
    append_trace(trace("c"), tmp_path)
    assert [t.sample.id for t in load_traces(tmp_path)] == ["c"]


def png_of(image: Image, folder) -> str:
    return str(folder / "images" / f"{image.id}.png")


def test_a_changed_picture_of_the_same_size(tmp_path):
    saved = trace()
    save_traces([saved], tmp_path)
    file = png_of(saved.sample.images[0], tmp_path)
    changed = pil.open(file).copy()
    changed.putpixel((0, 0), (254, 0, 0))
    changed.save(file)
    with pytest.raises(ValueError, match="was changed") as error:
        load_traces(tmp_path)
    assert file in str(error.value)
    assert "line 1" in str(error.value)


@pytest.mark.parametrize("left", [None, 0, 30], ids=["missing", "empty", "cut off"])
def test_a_damaged_picture(tmp_path, left):
    saved = trace()
    save_traces([saved], tmp_path)
    file = tmp_path / "images" / f"{saved.sample.images[0].id}.png"
    data = file.read_bytes()
    file.unlink()
    if left is not None:
        file.write_bytes(data[:left])
    with pytest.raises(ValueError, match="cannot be read") as error:
        load_traces(tmp_path)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda row: row.pop("steps"), "line 2: lacks 'steps'", id="key missing"),
        pytest.param(lambda row: row["steps"][1].update(parent=7), "parent 7", id="parent"),
        pytest.param(lambda row: row["steps"][0].update(parent=1), "parent 1", id="ahead"),
        pytest.param(lambda row: row.update(chosen=9), "chosen 9", id="chosen"),
        pytest.param(
            lambda row: row["sample"]["prompt"][0]["parts"][0].update(image="../../etc/x"),
            "sixteen hex digits",
            id="path for an id",
        ),
        pytest.param(
            lambda row: row["sample"]["prompt"][0]["parts"].append({"sound": "x"}),
            "no such part: sound",
            id="unknown part",
        ),
    ],
)
def test_a_line_that_is_no_trace(tmp_path, change, message):
    save_traces([trace("a"), trace("b")], tmp_path)
    file = tmp_path / "traces.jsonl"
    first, second = file.read_text().splitlines()
    row = json.loads(second)
    change(row)
    file.write_text(f"{first}\n{json.dumps(row)}\n")
    with pytest.raises(ValueError, match="line 2") as error:
        load_traces(tmp_path)
    assert message in str(error.value)


def test_an_empty_folder(tmp_path):
    with pytest.raises(BadTrace, match="give a folder that"):
        load_traces(tmp_path)
    save_traces([], tmp_path)
    assert load_traces(tmp_path) == []
