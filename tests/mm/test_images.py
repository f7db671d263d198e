"""Images people have: opened as a person sees them, or refused in one line."""

import io
import os
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image as pil

from mm.errors import BadImage
from mm.images import open_image, to_rgb
from mm.origins import Loaded
from mm.samples import question
from mm.types import Image, user


def noise(width: int = 40, height: int = 30) -> pil.Image:
    rng = np.random.default_rng(0)
    return pil.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(pixels: pil.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    pixels.save(file, format, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def with_chunk(added: bytes, before: bytes = b"IDAT") -> bytes:
    """The PNG of `noise` with another chunk."""
    png = encoded(noise())
    at = png.index(before) - 4
    return png[:at] + added + png[at:]


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is and has no pixels: decoding it must fail."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def sixteen_bits() -> pil.Image:
    return pil.fromarray(np.array([[0, 257, 32768, 65535]], dtype=np.uint16))


def palette() -> pil.Image:
    pixels = pil.new("P", (2, 1))
    pixels.putpalette([255, 0, 0, 0, 0, 255])
    pixels.putpixel((1, 0), 1)
    return pixels


def rotated(orientation: int) -> bytes:
    pixels = pil.new("RGB", (16, 8), "white")
    pixels.paste("black", (0, 0, 8, 8))
    exif = pixels.getexif()
    exif[0x0112] = orientation
    return encoded(pixels, exif=exif)


WHITE, RED, BLUE, BLACK = (255, 255, 255), (255, 0, 0), (0, 0, 255), (0, 0, 0)


@pytest.mark.parametrize(
    ("data", "size", "at", "colour"),
    [
        pytest.param(encoded(sixteen_bits()), (4, 1), (2, 0), (128,) * 3, id="16 bits"),
        pytest.param(encoded(sixteen_bits()), (4, 1), (1, 0), (1,) * 3, id="16 bits, dark"),
        pytest.param(encoded(sixteen_bits(), "TIFF"), (4, 1), (3, 0), WHITE, id="16-bit TIFF"),
        pytest.param(
            encoded(pil.fromarray(np.array([[0, 0.5, 1]], dtype=np.float32)), "TIFF"),
            (3, 1),
            (1, 0),
            (128,) * 3,
            id="floats",
        ),
        pytest.param(
            encoded(pil.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"),
            (8, 8),
            (1, 1),
            RED,
            id="CMYK",
        ),
        pytest.param(encoded(palette()), (2, 1), (1, 0), BLUE, id="palette"),
        pytest.param(
            encoded(palette(), transparency=0), (2, 1), (0, 0), WHITE, id="palette with alpha"
        ),
        pytest.param(
            encoded(palette(), transparency=b"\x80\xff"),
            (2, 1),
            (0, 0),
            (255, 127, 127),
            id="palette with half an alpha",
        ),
        pytest.param(
            encoded(pil.new("LA", (2, 2), (0, 0))), (2, 2), (0, 0), WHITE, id="grey with alpha"
        ),
        pytest.param(
            encoded(pil.new("RGBA", (2, 2), (255, 0, 0, 255))), (2, 2), (0, 0), RED, id="RGBA"
        ),
        pytest.param(
            encoded(pil.new("RGB", (2, 2), RED), transparency=RED), (2, 2), (0, 0), WHITE, id="key"
        ),
        pytest.param(rotated(6), (8, 16), (4, 12), WHITE, id="turned right"),
        pytest.param(rotated(8), (8, 16), (4, 12), BLACK, id="turned left"),
        pytest.param(rotated(3), (16, 8), (2, 2), WHITE, id="upside down"),
        pytest.param(
            encoded(
                pil.new("RGB", (8, 8), RED),
                "GIF",
                save_all=True,
                append_images=[pil.new("RGB", (8, 8), BLUE)],
            ),
            (8, 8),
            (0, 0),
            RED,
            id="animated",
        ),
        pytest.param(encoded(pil.new("1", (2, 2), 1)), (2, 2), (0, 0), WHITE, id="one bit"),
        pytest.param(encoded(pil.new("L", (1, 1), 7)), (1, 1), (0, 0), (7,) * 3, id="one pixel"),
    ],
)
def test_seen_as_a_person_sees_it(tmp_path, data, size, at, colour):
    file = tmp_path / "a picture"
    file.write_bytes(data)
    image = open_image(file)
    assert image.pixels.mode == "RGB"
    assert image.size == size
    assert image.pixels.getpixel(at) == colour
    assert image.origin == Loaded(str(file))


PNG, JPEG = encoded(noise()), encoded(noise(), "JPEG")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(b"", "it is empty", id="zero bytes"),
        pytest.param(PNG[: len(PNG) // 2], "cut off or damaged", id="PNG cut in half"),
        pytest.param(JPEG[: len(JPEG) // 2], "cut off or damaged", id="JPEG cut in half"),
        pytest.param(PNG[:40], "not an image", id="PNG with a header only"),
        pytest.param(JPEG[:100], "not an image", id="JPEG with a header only"),
        pytest.param(b"hello, world", "not an image", id="text"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an im", id="EPS"),
        pytest.param(b"\0\0\0\x1cftypheic\0\0\0\0mif1heic", "save it as JPEG or PNG", id="HEIC"),
        pytest.param(png_header(12_000, 12_000), "144,000,000 pixels", id="bomb"),
        pytest.param(png_header(60_000, 60_000), "3600000000 pixels", id="bomb Pillow refuses"),
        pytest.param(png_header(60_000, 1), "60000 times as long as wide", id="strip"),
        pytest.param(png_header(1, 60_000), "60000 times as long as wide", id="upright strip"),
    ],
)
def test_refused_in_one_line(tmp_path, data, why):
    file = tmp_path / "a.png"
    file.write_bytes(data)
    with pytest.raises(BadImage, match=why) as error:
        open_image(str(file))
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def outcome(data: bytes) -> str:
    try:
        open_image(data)
    except BadImage as error:
        return str(error)
    return "opened"


def test_no_cut_and_no_flipped_byte_ends_in_another_error():
    flipped = [PNG[:at] + bytes([PNG[at] ^ 0xFF]) + PNG[at + 1 :] for at in range(0, len(PNG), 31)]
    outcomes = [outcome(data) for data in (*flipped, *(JPEG[:at] for at in range(len(JPEG))))]
    assert not any("\n" in each for each in outcomes)
    assert {"opened"} < set(outcomes)


@pytest.mark.parametrize(
    ("data", "raised", "variable"),
    [
        pytest.param(
            encoded(noise()), {"max_pixels": 1200}, ("MM_MAX_PIXELS", "1199"), id="pixels"
        ),
        pytest.param(
            encoded(noise(300, 1)), {"max_aspect": 300}, ("MM_MAX_ASPECT", "299.5"), id="aspect"
        ),
    ],
)
def test_limits_and_how_to_raise_them(monkeypatch, data, raised, variable):
    monkeypatch.setenv(*variable)
    with pytest.raises(BadImage, match=variable[0]) as error:
        open_image(data)
    assert next(iter(raised)) in str(error.value)
    assert open_image(data, **raised)
    monkeypatch.setenv(variable[0], "300000")
    assert open_image(data)
    monkeypatch.setenv(variable[0], "many")
    with pytest.raises(ValueError, match=f"{variable[0]} must be a number, got 'many'"):
        open_image(data)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        pytest.param("nowhere.png", "does not exist", id="missing"),
        pytest.param("folder", "is a folder", id="folder"),
        pytest.param("pipe", "is a device or a pipe", id="pipe"),
        pytest.param("a\0b", "is no path", id="NUL"),
        pytest.param("x" * 300, "cannot be opened", id="too long"),
        pytest.param("http://example.org/a.png", "is a URL", id="http"),
        pytest.param("file:///etc/passwd", "is a URL", id="file"),
        pytest.param("data:image/png;base64," + "A" * 9999, "is a URL", id="data"),
    ],
)
def test_paths_that_lead_nowhere(tmp_path, monkeypatch, path, why):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadImage, match=why) as error:
        open_image(path)
    assert path[:80].replace("\0", "\\x00") in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(BadImage, match="may not be read"):
        open_image(tmp_path / "a.png")


def test_every_kind_of_source(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(PNG)
    with file.open("rb") as opened:
        images = [open_image(s) for s in (file, str(file), PNG, opened, io.BytesIO(PNG), noise())]
    assert {image.id for image in images} == {Image(noise()).id}
    assert open_image(images[0]) is images[0]
    with pytest.raises(TypeError, match="ndarray"):
        open_image(np.zeros((2, 2, 3)))  # pyright: ignore[reportArgumentType]


def test_a_picture_in_memory_is_copied_and_checked():
    pixels = noise()
    image = open_image(pixels)
    pixels.putpixel((0, 0), (0, 0, 0))
    assert image.id == Image(image.pixels).id
    with pytest.raises(BadImage, match="no pixels"):
        open_image(pil.new("RGB", (0, 5)))
    assert to_rgb(pil.new("LA", (1, 1), (9, 255))).getpixel((0, 0)) == (9, 9, 9)


def test_no_warning_leaks(monkeypatch):
    monkeypatch.setattr(pil, "MAX_IMAGE_PIXELS", 900)  # Pillow warns of more
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_image(PNG)
        open_image(encoded(palette(), transparency=b"\x80\xff"))


def test_threads_decode_at_the_same_time_and_leave_one_warning_filter(monkeypatch):
    met = threading.Barrier(3)
    monkeypatch.setattr(pil.Image, "load", lambda self: met.wait(10))
    with warnings.catch_warnings():
        warnings.resetwarnings()
        with ThreadPoolExecutor(3) as pool:
            opened = list(pool.map(open_image, [noise() for _ in range(3)]))
        assert len(opened) == 3
        assert len(warnings.filters) == 1


LONG = zlib.compress(b"x" * 2_000_000)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(with_chunk(chunk(b"zTXt", b"a\0\0" + LONG)), id="a long text"),
        pytest.param(with_chunk(chunk(b"iTXt", b"a\0\1\0\0\0" + LONG)), id="a long iTXt"),
        pytest.param(with_chunk(chunk(b"zTXt", b"a\0\0" + LONG), b"IEND"), id="a long last text"),
        pytest.param(with_chunk(chunk(b"iCCP", b"a\0\0" + LONG)), id="a long profile"),
        pytest.param(with_chunk(chunk(b"tEXt", b"a\0b")[:-1] + b"?"), id="a note's wrong checksum"),
        pytest.param(with_chunk(chunk(b"acTL", b"")), id="half an animation"),
    ],
)
def test_notes_of_a_png_do_not_spoil_its_pixels(data):
    assert open_image(data).id == Image(noise()).id


def test_a_png_with_long_notes_is_still_turned_upright():
    turned = rotated(6)
    at = turned.index(b"IDAT") - 4
    data = turned[:at] + chunk(b"zTXt", b"a\0\0" + LONG) + turned[at:]
    assert open_image(data).id == open_image(turned).id
    assert open_image(data).size == (8, 16)


def test_more_pixels_than_pillow_allows_can_be_asked_for(monkeypatch):
    monkeypatch.setattr(pil, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(BadImage, match="raise max_pixels or MM_MAX_PIXELS"):
        open_image(PNG, max_pixels=1000)
    assert open_image(PNG, max_pixels=1200).size == (40, 30)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(b"<!DOCTYPE html><html>", "is a web page", id="web page"),
        pytest.param(b"\n<html lang='en'>", "is a web page", id="web page of old"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull", id="LFS"),
    ],
)
def test_what_was_saved_in_its_place_is_named(data, why):
    with pytest.raises(BadImage, match=why):
        open_image(data)


def test_the_hint_of_a_narrow_image_says_what_raising_the_limit_cannot_do():
    with pytest.raises(BadImage, match=r"cut it into pieces.*Qwen's take 200"):
        open_image(png_header(201, 1))


def test_question_puts_pictures_first():
    sample = question("What?", noise(), target="red", choices=["red", "blue"])
    assert sample.prompt == (user(Image(noise()), "What?"),)
    assert (sample.target, sample.choices) == ("red", ("red", "blue"))


def test_question_id_is_its_content():
    asked = question("What?", noise())
    assert asked.id == question("What?", noise(), target="red").id
    assert asked.id != question("Where?", noise()).id
    assert asked.id != question("What?", noise(30, 40)).id
    assert asked.id != question("What?", noise(), choices=["red"]).id
    assert question("What?", id="q7").id == "q7"
