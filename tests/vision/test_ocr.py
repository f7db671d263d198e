"""Reading text: with RapidOCR's own models and the network shut off, and without it."""

from __future__ import annotations

import socket
import sys

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import pytest

from mm.errors import UserError
from mm.geometry import Region, iou
from mm.types import Image
from vision import ocr


@pytest.fixture(autouse=True)
def fresh():
    ocr._engine.cache_clear()
    yield
    ocr._engine.cache_clear()


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **options):
        raise OSError("the network is shut off")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def sign() -> Image:
    pixels = PIL.Image.new("RGB", (400, 200), "white")
    pen = PIL.ImageDraw.Draw(pixels)
    pen.text((20, 20), "STOP HERE", fill="black", font=PIL.ImageFont.load_default(40))
    pen.text((20, 120), "Total 42.50", fill="black", font=PIL.ImageFont.load_default(30))
    return Image(pixels)


def test_lines_are_read_without_the_network(no_network) -> None:
    pytest.importorskip("rapidocr", reason="pip install -e '.[ocr]'")
    first, second = ocr.read_lines(sign())
    assert (first.label, second.label) == ("STOP HERE", "Total 42.50")
    assert iou(first.region, Region(20 / 400, 24 / 200, 236 / 400, 66 / 200)) > 0.6


def test_an_image_without_text_has_no_lines(no_network) -> None:
    pytest.importorskip("rapidocr", reason="pip install -e '.[ocr]'")
    assert list(ocr.read_lines(Image(PIL.Image.new("RGB", (40, 40), "white")))) == []


def test_without_the_extra_the_remedy_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(UserError, match=r"needs rapidocr: pip install '.*\[ocr\]'"):
        ocr.read_lines(sign())
