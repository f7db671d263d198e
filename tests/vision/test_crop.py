"""Crops: the paper's numbers, thin boxes, square views, and crops of crops."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm.geometry import Region, smart_resize
from mm.origins import Cropped
from mm.types import Image
from vision.crop import (
    GREY,
    crop,
    enlargement,
    in_original,
    inclusive_box,
    square_view,
    square_window,
    sturdy,
)

SIZES = st.tuples(st.integers(1, 900), st.integers(1, 900))


def picture(width: int = 640, height: int = 480) -> Image:
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    pixels = np.stack([x % 256, y % 256, (x // 256) * 16 + y // 256], -1).astype(np.uint8)
    return Image(PIL.Image.fromarray(pixels))


@st.composite
def regions(draw: st.DrawFn) -> Region:
    x0, y0 = draw(st.floats(0, 0.98)), draw(st.floats(0, 0.98))
    return Region(x0, y0, draw(st.floats(x0 + 0.01, 1)), draw(st.floats(y0 + 0.01, 1)))


@pytest.mark.parametrize(
    ("share", "times"),
    [
        pytest.param(0.05, 2.0, id="small"),
        pytest.param(0.125, 2.0, id="an eighth"),
        pytest.param(0.3125, 1.5, id="between"),
        pytest.param(0.5, 1.0, id="half"),
        pytest.param(1.0, 1.0, id="whole"),
    ],
)
def test_enlargement_follows_the_paper(share: float, times: float) -> None:
    assert enlargement(share) == pytest.approx(times)


def test_papers_picture_gives_the_papers_crop() -> None:
    image = Image(PIL.Image.new("RGB", (2000, 1500)))
    assert smart_resize(image.size, 28, 4 * 784, 2048 * 784, least=28) == (1456, 1092)
    region = Region.from_pixels((100, 100, 300, 250), (1456, 1092))
    assert inclusive_box(region, image.size) == (137, 137, 413, 344)  # 276 x 207
    made = crop(image, region)
    assert made.size == (560, 420)
    assert isinstance(made.origin, Cropped)
    assert made.origin.parent == image.id
    assert made.origin.region.to_pixels(image.size) == (137, 137, 413, 344)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        pytest.param((100, 100), (112, 112), id="rounded"),
        pytest.param((10, 10), (56, 56), id="too small"),
        pytest.param((4000, 3000), (1008, 756), id="too large"),
        pytest.param((5000, 10), (5012, 28), id="a strip keeps one factor"),
    ],
)
def test_smart_resize(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert smart_resize(size, 28, 4 * 784, 1024 * 784, least=28) == expected


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        pytest.param((100, 100, 200, 200), (100, 100, 200, 200), id="good as it is"),
        pytest.param((100, 100, 200, 102), (100, 87, 200, 115), id="thin: grown around its centre"),
        pytest.param((100, 0, 200, 1), (100, 0, 200, 28), id="at the edge: shifted inside"),
        pytest.param((0, 300, 4000, 328), (0, 294, 4000, 334), id="beyond the longest aspect"),
    ],
)
def test_thin_boxes_grow(box: tuple[int, int, int, int], expected: tuple[int, ...]) -> None:
    assert sturdy(box, (4000, 480), minimum=28) == expected


def test_thin_box_in_a_tiny_picture_is_the_picture() -> None:
    assert sturdy((3, 3, 4, 4), (10, 8), minimum=28) == (0, 0, 10, 8)


@given(size=SIZES, region=regions(), rule=st.sampled_from(["vlm_r3", "square"]))
def test_crop_says_what_it_cut(size: tuple[int, int], region: Region, rule: str) -> None:
    image = Image(PIL.Image.new("RGB", size))
    made = crop(image, region, rule=rule)  # type: ignore[arg-type]
    assert isinstance(made.origin, Cropped)
    assert made.origin.size == made.size
    cut, asked = made.origin.region.to_pixels(size), inclusive_box(region, size)
    assert cut[0] <= asked[0] + 1
    assert cut[1] <= asked[1] + 1
    assert cut[2] >= asked[2] - 1
    assert cut[3] >= asked[3] - 1


@pytest.mark.parametrize(
    ("box", "size", "window"),
    [
        pytest.param((100, 100, 200, 150), (640, 480), (85, 60, 215, 190), id="margin around"),
        pytest.param((100, 100, 110, 105), (640, 480), (81, 79, 129, 127), id="at least 48"),
        pytest.param((0, 0, 100, 100), (640, 480), (0, 0, 130, 130), id="shifted from the corner"),
        pytest.param((540, 380, 640, 480), (640, 480), (510, 350, 640, 480), id="far corner"),
        pytest.param((0, 0, 600, 10), (640, 480), (0, -80, 640, 560), id="longer than the picture"),
        pytest.param((5, 5, 9, 9), (32, 20), (0, -6, 32, 26), id="a picture under 48 pixels"),
    ],
)
def test_square_window(
    box: tuple[int, int, int, int], size: tuple[int, int], window: tuple[int, ...]
) -> None:
    assert square_window(box, size) == window


@given(size=SIZES, region=regions())
def test_square_window_is_square_and_inside_where_it_fits(
    size: tuple[int, int], region: Region
) -> None:
    x0, y0, x1, y1 = square_window(region.to_pixels(size), size)
    assert x1 - x0 == y1 - y0
    for low, high, length in ((x0, x1, size[0]), (y0, y1, size[1])):
        assert 0 <= low < high <= length or (low <= 0 and high >= length)


def test_square_view_is_letterboxed_in_grey() -> None:
    white = PIL.Image.new("RGB", (640, 480), "white")
    seen = square_view(white, (0, -80, 640, 560))
    assert seen.size == (128, 128)
    assert seen.getpixel((64, 2)) == GREY
    assert seen.getpixel((64, 125)) == GREY
    assert seen.getpixel((64, 64)) == (255, 255, 255)


def test_square_view_without_scaling_is_the_pixels() -> None:
    image = picture()
    seen = square_view(image.pixels, (10, 20, 138, 148))
    assert np.array_equal(np.asarray(seen), np.asarray(image.pixels)[20:148, 10:138])


@given(size=SIZES, first=regions(), second=regions())
def test_region_of_a_square_crop_maps_to_where_it_is(
    size: tuple[int, int], first: Region, second: Region
) -> None:
    window = square_window(first.to_pixels(size), size)
    side = window[2] - window[0]
    cut = Region.from_pixels(
        (max(window[0], 0), max(window[1], 0), min(window[2], size[0]), min(window[3], size[1])),
        size,
    )
    expected = (
        window[0] + second.x0 * side,
        window[1] + second.y0 * side,
        window[0] + second.x1 * side,
        window[1] + second.y1 * side,
    )
    try:
        region = Region.from_pixels(expected, size)
    except ValueError:
        with pytest.raises(ValueError, match="empty inside"):
            in_original(second, cut, size, "square")
        return
    mapped = in_original(second, cut, size, "square")
    assert (mapped.x0, mapped.y0, mapped.x1, mapped.y1) == pytest.approx(
        (region.x0, region.y0, region.x1, region.y1)
    )
