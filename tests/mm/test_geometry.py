"""Boxes in every frame, and back."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm.geometry import BoxFormat, Region, iou

sides = st.integers(1, 5000)
sizes = st.tuples(sides, sides)
wholes = Region(0, 0, 1, 1)


@st.composite
def pixel_boxes(draw):
    """A size, and a whole-pixel box that is not empty inside it."""
    width, height = draw(sizes)
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x1, y1 = draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))
    return (width, height), (x0, y0, x1, y1)


@st.composite
def regions(draw, least: float = 1e-3):
    x0, y0 = draw(st.floats(0, 1 - least)), draw(st.floats(0, 1 - least))
    return Region(
        x0, y0, draw(st.floats(min(x0 + least, 1), 1)), draw(st.floats(min(y0 + least, 1), 1))
    )


@given(pixel_boxes())
def test_pixels_come_back(box):
    size, xyxy = box
    assert Region.from_pixels(xyxy, size).to_pixels(size) == xyxy


@given(regions(least=1e-9), sizes)
def test_pixels_cover_and_are_never_empty(region, size):
    x0, y0, x1, y1 = region.to_pixels(size)
    width, height = size
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    slack = 1e-5
    assert x0 - slack <= region.x0 * width
    assert region.x1 * width <= x1 + slack
    assert y0 - slack <= region.y0 * height
    assert region.y1 * height <= y1 + slack


@given(st.tuples(*[st.floats(width=32)] * 4), sizes)
def test_any_numbers_clip_or_are_refused(numbers, size):
    try:
        region = Region.from_pixels(numbers, size)
    except ValueError:
        x0, y0, x1, y1 = numbers
        width, height = size
        finite = all(map(math.isfinite, numbers))
        inside = finite and max(x0, 0) < min(x1, width) and max(y0, 0) < min(y1, height)
        assert not inside or x1 - x0 < 1e-6 or y1 - y0 < 1e-6
    else:
        assert region.area > 0


@pytest.mark.parametrize(
    ("xyxy", "region"),
    [
        pytest.param((0, 0, 200, 100), (0, 0, 1, 1), id="whole"),
        pytest.param((50, 25, 100, 50), (0.25, 0.25, 0.5, 0.5), id="inside"),
        pytest.param((-50, -1e9, 100, 50), (0, 0, 0.5, 0.5), id="past the near edge"),
        pytest.param((100, 50, 1e9, 101), (0.5, 0.5, 1, 1), id="past the far edge"),
    ],
)
def test_clips(xyxy, region):
    assert Region.from_pixels(xyxy, (200, 100)) == Region(*region)


@pytest.mark.parametrize(
    ("xyxy", "why"),
    [
        pytest.param((100, 10, 50, 20), "empty inside an image of 200x100", id="inside out"),
        pytest.param((10, 20, 50, 10), "empty", id="upside down"),
        pytest.param((10, 10, 10, 20), "empty", id="no width"),
        pytest.param((200, 0, 300, 100), "empty", id="outside at the edge"),
        pytest.param((-9, 0, -1, 100), "empty", id="outside"),
        pytest.param((math.nan, 0, 10, 10), "finite", id="nan"),
        pytest.param((0, 0, math.inf, 10), "finite", id="infinite"),
    ],
)
def test_refuses(xyxy, why):
    with pytest.raises(ValueError, match=why):
        Region.from_pixels(xyxy, (200, 100))


@pytest.mark.parametrize(
    "corners",
    [(0.5, 0, 0.5, 1), (0.6, 0, 0.5, 1), (-0.1, 0, 1, 1), (0, 0, 1, 1.1), (0, 0, math.nan, 1)],
    ids=["empty", "inverted", "below 0", "above 1", "nan"],
)
def test_region_quotes_what_it_was_given(corners):
    with pytest.raises(ValueError, match=r"ordered and inside \[0, 1\], got Region"):
        Region(*corners)


@given(regions(), regions(), regions())
def test_within_nests(a, b, c):
    once, twice = a.within(b).within(c), a.within(b.within(c))
    assert once.area == pytest.approx(twice.area, rel=1e-6, abs=1e-12)
    assert a.within(b).area == pytest.approx(a.area * b.area, rel=1e-6)
    assert a.within(wholes) == a
    assert wholes.within(a).area == pytest.approx(a.area)


def test_within_maps_a_crops_box_back():
    crop = Region.from_pixels((100, 200, 300, 400), (1000, 800))
    found = Region.from_pixels((50, 0, 100, 50), (200, 200)).within(crop)
    assert found.to_pixels((1000, 800)) == (150, 200, 200, 250)


@given(regions(), regions())
def test_iou_is_symmetric_and_bounded(a, b):
    assert iou(a, b) == pytest.approx(iou(b, a))
    assert 0 <= iou(a, b) <= 1 + 1e-9
    assert iou(a, a) == pytest.approx(1)


@pytest.mark.parametrize(
    ("b", "value"),
    [
        pytest.param((0.5, 0, 1, 1), 0.5, id="half"),
        pytest.param((0.5, 0.5, 1, 1), 0.25, id="quarter"),
    ],
)
def test_iou(b, value):
    assert iou(wholes, Region(*b)) == value


def test_iou_of_neighbours_is_nothing():
    assert iou(Region(0, 0, 0.5, 1), Region(0.5, 0, 1, 1)) == 0


@pytest.mark.parametrize(
    ("form", "numbers"),
    [
        pytest.param(BoxFormat(), [250, 500, 500, 1000], id="thousandths"),
        pytest.param(BoxFormat(order="yxyx"), [500, 250, 1000, 500], id="y first"),
        pytest.param(BoxFormat(frame=None), [70, 70, 140, 140], id="pixels as seen"),
        pytest.param(BoxFormat(frame=(1, 1), decimals=2), [0.25, 0.5, 0.5, 1.0], id="fractions"),
        pytest.param(BoxFormat(frame=None, order="yxyx"), [70, 70, 140, 140], id="pixels, y first"),
    ],
)
def test_formats_on_a_picture_that_is_not_square(form, numbers):
    seen, region = (280, 140), Region(0.25, 0.5, 0.5, 1)
    assert form.write(region, seen) == numbers
    a, b, c, d = numbers
    assert form.read((a, b, c, d), seen) == region


@given(regions(least=0.01), st.sampled_from(["xyxy", "yxyx"]), sizes)
def test_formats_come_back_within_a_unit(region, order, seen):
    form = BoxFormat(order=order)
    a, b, c, d = form.write(region, seen)
    back = form.read((a, b, c, d), seen)
    pairs = zip(vars(back).values(), vars(region).values(), strict=True)
    assert all(abs(a - b) <= 1e-3 for a, b in pairs)


@given(regions(least=1e-9), st.sampled_from([BoxFormat(), BoxFormat(frame=(1, 1), decimals=2)]))
def test_a_sliver_is_never_written_as_nothing(region, form):
    a, b, c, d = form.write(region, (64, 64))
    assert form.read((a, b, c, d), (64, 64)).area > 0
