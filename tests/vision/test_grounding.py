"""Boxes in words: what is read, what is dropped, and the way there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm.geometry import BoxFormat, Region, Size
from vision.grounding import Grounded, format_box, parse_boxes, parse_grounding

QWEN3 = BoxFormat()
QWEN25 = BoxFormat(frame=None)
VGR = BoxFormat(key="sot", frame=(1, 1), decimals=2)
GEMINI = BoxFormat(key="box_2d", order="yxyx")
SEEN = (200, 100)


@pytest.mark.parametrize(
    ("text", "box_format", "expected"),
    [
        pytest.param('{"bbox_2d": [0, 100, 500, 200]}', QWEN3, [(0, 0.1, 0.5, 0.2)], id="plain"),
        pytest.param('{"bbox_2d": [20, 10, 100, 50]}', QWEN25, [(0.1, 0.1, 0.5, 0.5)], id="seen"),
        pytest.param("<sot>[0.1, 0.2, 0.5, 0.6]<eot>", VGR, [(0.1, 0.2, 0.5, 0.6)], id="bare"),
        pytest.param('{"box_2d":[100,0,200,500]}', GEMINI, [(0, 0.1, 0.5, 0.2)], id="yxyx"),
        pytest.param('{"bbox": [0, 100, 500, 200]}', QWEN3, [(0, 0.1, 0.5, 0.2)], id="other key"),
        pytest.param('"bbox_2d":[ 0.0  1e2\n500. 2e2 ]', QWEN3, [(0, 0.1, 0.5, 0.2)], id="floats"),
        pytest.param('"box": ["0","100","500","200"]', QWEN3, [(0, 0.1, 0.5, 0.2)], id="quoted"),
        pytest.param("<box>[[0, 100, 500, 200]]</box>", QWEN3, [(0, 0.1, 0.5, 0.2)], id="nested"),
        pytest.param("(0,100),(500,200)", QWEN3, [(0, 0.1, 0.5, 0.2)], id="corners"),
        pytest.param(
            '[{"bbox_2d": [0, 100, 500, 200]}, {"bbox_2d": [1, 2, 3', QWEN3,
            [(0, 0.1, 0.5, 0.2)], id="cut off",
        ),
        pytest.param('{"bbox_2d": [-50, 0, 1200, 500]}', QWEN3, [(0, 0, 1, 0.5)], id="clipped"),
        pytest.param('{"bbox_2d": [1100, 0, 1200, 500]}', QWEN3, [], id="past the edge"),
        pytest.param('{"bbox_2d": [500, 0, 100, 500]}', QWEN3, [], id="inside out"),
        pytest.param('{"bbox_2d": [500, 0, 500, 500]}', QWEN3, [], id="empty"),
        pytest.param('{"bbox_2d": [1, 2, 3]}', QWEN3, [], id="three numbers"),
        pytest.param('{"bbox_2d": [1, 2, 3, 4, 5]}', QWEN3, [], id="five numbers"),
        pytest.param('{"bbox_2d": [0, 0, 1e999, NaN]}', QWEN3, [], id="not numbers"),
        pytest.param('{"bbox_2d": [0, 0, 1e999, 9]}', QWEN3, [], id="infinite"),
        pytest.param('{"sizes": [1, 2, 3, 4]}', QWEN3, [], id="another key's numbers"),
        pytest.param(
            '[1, 2, 3, 4] {"bbox_2d": [0, 100, 500, 200]}', QWEN3,
            [(0, 0.1, 0.5, 0.2)], id="the family's key wins",
        ),
        pytest.param("I see a cat.", QWEN3, [], id="no box"),
        pytest.param("", QWEN3, [], id="nothing"),
    ],
)  # fmt: skip
def test_parse(text: str, box_format: BoxFormat, expected: list[tuple[float, ...]]) -> None:
    found = [(r.x0, r.y0, r.x1, r.y1) for r in parse_boxes(text, box_format, SEEN)]
    assert found == [pytest.approx(box) for box in expected]


def test_labels_stay_with_their_boxes() -> None:
    text = (
        '[{"bbox_2d": [0, 0, 100, 100], "label": "a \\"cat\\""}, '
        '{"label": "dog", "bbox_2d": [1, 2, 300, 400]}, {"bbox_2d": [0, 0, 5, 5]}]'
    )
    assert [g.label for g in parse_grounding(text, QWEN3, SEEN)] == ['a "cat"', "dog", ""]


def test_format_keeps_the_label() -> None:
    region = Region(0.1, 0.2, 0.3, 0.4)
    text = format_box(region, QWEN3, SEEN, "a sign")
    assert text == '{"bbox_2d": [100, 200, 300, 400], "label": "a sign"}'
    assert parse_grounding(text, QWEN3, SEEN) == [Grounded(region, "a sign")]


@given(
    data=st.data(),
    size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    seen=st.tuples(st.integers(28, 2000), st.integers(28, 2000)),
    box_format=st.sampled_from([QWEN3, QWEN25, VGR, GEMINI]),
)
def test_original_to_words_and_back(
    data: st.DataObject, size: Size, seen: Size, box_format: BoxFormat
) -> None:
    x0, y0 = data.draw(st.integers(0, size[0] - 1)), data.draw(st.integers(0, size[1] - 1))
    x1 = data.draw(st.integers(x0 + 1, size[0]))
    y1 = data.draw(st.integers(y0 + 1, size[1]))
    region = Region.from_pixels((x0, y0, x1, y1), size)
    (back,) = parse_boxes(format_box(region, box_format, seen), box_format, seen)
    unit = 10**-box_format.decimals
    width, height = box_format.frame or seen
    assert (back.x0, back.x1) == pytest.approx((region.x0, region.x1), abs=unit / width * 1.01)
    assert (back.y0, back.y1) == pytest.approx((region.y0, region.y1), abs=unit / height * 1.01)
