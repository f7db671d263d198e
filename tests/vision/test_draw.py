"""Drawings for people: what is inside, what is left alone, what is refused."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm.geometry import Region
from mm.origins import Cropped, Drawn
from mm.samples import question
from mm.trace import Branch, Step
from mm.types import Image, message
from vision.draw import COLOURS, draw, sheet
from vision.regions import regions_of

PICTURE = Image(PIL.Image.new("RGB", (400, 300), "#123456"))
OTHER = Image(PIL.Image.new("RGB", (400, 300), "#654321"))
SIGN = Region(0.25, 0.25, 0.75, 0.75)


def branch(*crops: Image) -> Branch:
    steps = [Step(message("tool", image), parent=None) for image in crops]
    return Branch(question("q", PICTURE, OTHER), tuple(steps), None)


def cut(parent: Image, region: Region, shade: int = 0) -> Image:
    pixels = PIL.Image.new("RGB", (56, 56), (shade, shade, shade))
    return Image(pixels, Cropped(parent.id, region, (56, 56)))


def has(pixels: PIL.Image.Image, colour: str) -> bool:
    rgb = PIL.Image.new("RGB", (1, 1), colour).getpixel((0, 0))
    return bool((np.asarray(pixels) == rgb).all(-1).any())


@pytest.mark.parametrize("background", ["white", "black", "#ffd400"])
def test_a_frame_shows_on_any_background(background: str) -> None:
    drawn = draw(Image(PIL.Image.new("RGB", (400, 300), background)), [SIGN])
    row = np.asarray(drawn)[150, 90:110].tolist()
    assert list(PIL.Image.new("RGB", (1, 1), COLOURS[0]).getpixel((0, 0))) in row  # type: ignore[arg-type]
    assert [0, 0, 0] in row


def test_the_picture_itself_is_left_alone() -> None:
    before = PICTURE.pixels.tobytes()
    drawn = draw(PICTURE, [SIGN])
    assert PICTURE.pixels.tobytes() == before
    assert drawn.getpixel((200, 150)) == PICTURE.pixels.getpixel((0, 0))
    assert drawn.getpixel((10, 290)) == PICTURE.pixels.getpixel((0, 0))


@given(
    size=st.tuples(st.integers(1, 600), st.integers(1, 600)),
    corner=st.tuples(st.floats(0, 0.98), st.floats(0, 0.98)),
    label=st.text(max_size=30),
)
def test_any_region_of_any_picture_can_be_drawn(
    size: tuple[int, int], corner: tuple[float, float], label: str
) -> None:
    image = Image(PIL.Image.new("RGB", size))
    region = Region(*corner, min(corner[0] + 0.1, 1), min(corner[1] + 0.1, 1))
    drawn = draw(image, [region, region], labels=[label, "2"])
    assert drawn.width * size[1] == drawn.height * size[0]
    assert has(drawn, COLOURS[1]) or min(size) < 16


@pytest.mark.parametrize(
    "region",
    [
        pytest.param(Region(0, 0, 0.1, 0.1), id="top left"),
        pytest.param(Region(0.95, 0.95, 1, 1), id="bottom right"),
        pytest.param(Region(0, 0, 1, 1), id="all"),
    ],
)
def test_the_tag_is_whole_wherever_the_region_is(region: Region) -> None:
    bare = draw(PICTURE, [region], labels=[""])
    tagged = draw(PICTURE, [region], labels=["8"])
    middle = draw(PICTURE, [SIGN], labels=["8"])
    strokes = (np.asarray(tagged) != np.asarray(bare)).any(-1).sum()
    expected = (np.asarray(middle) != np.asarray(draw(PICTURE, [SIGN], labels=[""]))).any(-1).sum()
    assert strokes > 0.5 * expected


def test_a_branch_is_drawn_on_the_picture_it_looked_at() -> None:
    looked = branch(cut(PICTURE, SIGN, 1), cut(OTHER, Region(0, 0, 0.1, 0.1), 2))
    assert draw(PICTURE, looked).tobytes() == draw(PICTURE, [SIGN]).tobytes()
    second = draw(OTHER, [Region(0, 0, 0.1, 0.1)], labels=["2"])
    assert draw(OTHER, looked).tobytes() == second.tobytes()


def test_crops_of_crops_are_traced_to_the_picture() -> None:
    outer = cut(PICTURE, SIGN, 1)
    looked = branch(outer, cut(outer, Region(0.5, 0.5, 1, 1), 2))
    assert regions_of(looked) == [(0, SIGN), (0, Region(0.5, 0.5, 0.75, 0.75))]


def test_pictures_from_elsewhere_are_no_regions() -> None:
    depth = Image(PIL.Image.new("RGB", (9, 9)), Drawn(PICTURE.id, "depth"))
    stranger = cut(Image(PIL.Image.new("RGB", (7, 7))), SIGN)
    assert regions_of(branch(depth, stranger)) == []


def test_labels_must_match_the_regions() -> None:
    with pytest.raises(ValueError, match="2 labels for 1 regions"):
        draw(PICTURE, [SIGN], labels=["a", "b"])


@pytest.mark.parametrize(
    ("count", "columns", "across", "down"),
    [
        pytest.param(1, None, 1, 1, id="one"),
        pytest.param(5, None, 3, 2, id="a square grid"),
        pytest.param(5, 5, 5, 1, id="as many columns as asked"),
    ],
)
def test_sheet_is_a_grid(count: int, columns: int | None, across: int, down: int) -> None:
    page = sheet([PICTURE] * count, columns=columns, cell=100)
    assert page.width == 4 + across * 104
    assert page.height == 4 + down * 108


def test_sheet_shows_every_picture_and_its_caption() -> None:
    plain = sheet([PICTURE, OTHER], ["", ""], cell=100)
    page = sheet([PICTURE, OTHER], ["word " * 60, "x" * 5000], cell=100)
    assert has(page, "#123456")
    assert has(page, "#654321")
    assert page.width == plain.width
    assert plain.height + 50 < page.height < plain.height + 100


@pytest.mark.parametrize(("images", "captions"), [([], []), ([PICTURE], ["a", "b"])])
def test_sheet_refuses_what_does_not_match(images: list[Image], captions: list[str]) -> None:
    with pytest.raises(ValueError, match="one caption for each"):
        sheet(images, captions)
