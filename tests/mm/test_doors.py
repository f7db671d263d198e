"""Foreign data at its doors: whatever is wrong with it, one line, in little time."""

from __future__ import annotations

import io
import json
import random
import warnings

import pytest
from fuzzing import mutated, rounds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as pil

from mm.errors import BadImage, BadTrace, UserError, door
from mm.images import open_image
from mm.samples import question
from mm.scripted import ScriptedVLM
from mm.session import run
from mm.strategies.single import direct
from mm.trace_store import append_trace, load_traces

ROUNDS = rounds(100)
"""How many mutations of each file."""


def encoded(format: str, **options: object) -> bytes:
    file = io.BytesIO()
    pixels = pil.effect_noise((24, 16), 60).convert("RGB")
    exif = pixels.getexif()
    exif[0x0112] = 6
    pixels.save(file, format, exif=exif, **options) if format in EXIF else pixels.save(file, format)
    return file.getvalue()


EXIF = ("PNG", "JPEG", "WEBP", "TIFF", "AVIF", "MPO")
FORMATS = (*EXIF, "GIF", "BMP", "JPEG2000", "PPM", "ICO")


def opened(data: bytes) -> str:
    try:
        open_image(data, max_pixels=1_000_000)
    except BadImage as error:
        return str(error)
    return "opened"


@pytest.mark.parametrize("format", FORMATS)
def test_a_mutated_image_is_opened_or_refused_in_one_line(format):
    pil.init()
    if format not in pil.SAVE:
        pytest.skip(f"this Pillow writes no {format}")
    data, rng = encoded(format), random.Random(format)
    said = [opened(mutated(data, rng)) for _ in range(ROUNDS)]
    assert not any("\n" in line or len(line) > 600 for line in said)


@settings(max_examples=rounds(200), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"GIF89a", b"II*\0"]),
)
def test_any_bytes_are_an_image_or_one_line(data, magic):
    assert "\n" not in opened(magic + data)


def test_a_mutated_folder_of_traces_is_read_or_refused_in_one_line(tmp_path):
    image = pil.effect_noise((8, 6), 60).convert("RGB")
    trace = run(direct, question("What?", image), ScriptedVLM(["<think>a</think>b"]))
    append_trace(trace, tmp_path)
    file = tmp_path / "traces.jsonl"
    whole, rng = file.read_bytes(), random.Random(0)
    said = []
    for _ in range(10 * ROUNDS):
        file.write_bytes(mutated(whole, rng))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                load_traces(tmp_path)
            except BadTrace as error:
                said.append(str(error))
    assert said
    assert not any("\n" in line for line in said)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("[" * 100_000, id="deep"),
        pytest.param("[]", id="a list"),
        pytest.param("null", id="nothing"),
        pytest.param('{"sample": 1}', id="no object"),
        pytest.param("1" * 5000, id="a long number"),
    ],
)
def test_a_line_that_is_something_else(tmp_path, line):
    (tmp_path / "traces.jsonl").write_text(line + "\n")
    with pytest.raises(BadTrace, match="line 1: "):
        load_traces(tmp_path)


@pytest.mark.parametrize("damage", ["bytes", "folder", "other"])
def test_a_damaged_image_of_a_trace_is_one_line(tmp_path, damage):
    image = pil.effect_noise((8, 6), 60).convert("RGB")
    append_trace(run(direct, question("What?", image), ScriptedVLM(["b"])), tmp_path)
    (file,) = (tmp_path / "images").iterdir()
    data = file.read_bytes()
    if damage == "bytes":
        file.write_bytes(data[:50] + b"\xff\xff\xff\xff" + data[54:])
    else:
        file.unlink()
        file.mkdir() if damage == "folder" else image.save(file, "BMP")
    with pytest.raises(BadTrace, match=file.name) as error:
        load_traces(tmp_path)
    assert "\n" not in str(error.value)


def test_a_trace_folder_that_cannot_be_is_refused_before_and_after(tmp_path):
    (tmp_path / "file").write_text("x")
    trace = run(direct, question("What?"), ScriptedVLM(["b"]))
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        with pytest.raises(BadTrace):
            append_trace(trace, folder)


def test_a_door_names_the_thing_and_keeps_what_is_behind():
    with (
        pytest.raises(BadTrace, match="the thing: boom: mend it") as error,
        door("the thing", BadTrace, "mend it"),
    ):
        raise OverflowError("boom\nand more")
    assert isinstance(error.value.__cause__, OverflowError)
    with pytest.raises(UserError, match=r"^told already$"), door("the thing", BadTrace):
        raise UserError("told already")
    with pytest.raises(BadTrace, match="lacks 'steps'"), door("a line", BadTrace):
        json.loads("{}")["steps"]
