"""What a rationale states is true of its map, whatever the map's kind; what it cannot tell it
does not state."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm.geometry import Region
from vision.depth import KINDS, DepthMap, Kind, compare, depth_map, flipped
from vision.draw_depth import coloured
from vision.rationale import rationale, whole_view

PLACES = [Region(x / 4, 0.25, (x + 0.9) / 4, 0.75) for x in range(4)]
NAMES = ("chair", "lamp", "door", "cat")
NAMED = list(zip(NAMES, PLACES, strict=True))


def scene(metres: tuple[float, ...], kind: Kind = "metric", floor: float = 9.0) -> DepthMap:
    """Things at so many metres before a wall, as a map of `kind`."""
    values = np.full((40, 80), floor)
    for region, depth in zip(PLACES, metres, strict=False):
        x0, y0, x1, y1 = region.to_pixels((80, 40))
        values[y0:y1, x0:x1] = depth
    return depth_map(1 / values if kind == "inverse" else values, kind, "a test")


DEPTHS = st.lists(st.integers(1, 80), min_size=4, max_size=4).map(
    lambda n: tuple(v / 10 for v in n)
)


@given(DEPTHS, st.sampled_from(KINDS))
def test_every_stated_relation_is_true(metres, kind) -> None:
    text = rationale(scene(metres, kind), NAMED)
    true = dict(zip(NAMES, metres, strict=True))
    stated = re.findall(r"The (\w+) is (nearer|farther) than the (\w+)", text)
    for a, word, b in stated:
        assert (true[a] < true[b]) == (word == "nearer")
    pairs = [(a, b) for a, b in combinations(metres, 2) if a != b]
    assert bool(stated) == bool(pairs)
    assert ("m" in re.findall(r"\d (m)\b", text)) == (kind == "metric")


@given(DEPTHS, st.sampled_from(KINDS))
def test_a_flipped_map_tells_the_opposite(metres, kind) -> None:
    depth = scene(metres, kind)
    for a, b in combinations(PLACES, 2):
        opposite = {"nearer": "farther", "farther": "nearer", "cannot tell": "cannot tell"}
        assert compare(flipped(depth), a, b) == opposite[compare(depth, a, b)]


def test_the_words() -> None:
    assert rationale(scene((1.4, 2.6)), NAMED[:2]) == (
        "From the nearest to the farthest: chair 1.40 m, lamp 2.60 m.\n"
        "The chair is nearer than the lamp by 1.20 m and to the left of it."
    )
    assert rationale(scene((1.4, 2.6), "inverse"), NAMED[:2]) == (
        "From the nearest to the farthest: chair, lamp.\n"
        "The chair is nearer than the lamp and to the left of it."
    )


@pytest.mark.parametrize(
    ("gap", "written"),
    [
        pytest.param(0.1, " by 0.10 m", id="a tenth"),
        pytest.param(0.012, " by 0.01 m", id="as tiny was taught"),
        pytest.param(0.0051, " by 0.01 m", id="rounded up"),
        pytest.param(0.002, " by 0.002 m", id="millimetres"),
        pytest.param(0.0002, "", id="too little to be said"),
    ],
)
def test_a_gap_is_never_nothing(gap: float, written: str) -> None:
    text = rationale(scene((0.25, 0.25 + gap), floor=0.5), NAMED[:2])
    assert f"nearer than the lamp{written} and to the left" in text


def test_neighbours_in_the_order_that_the_map_cannot_tell_apart_are_about_as_far() -> None:
    text = rationale(replace(scene((2.0, 2.05, 3.0)), error=0.05), NAMED[:3])
    assert "The chair is about as far as the lamp" in text
    assert "The lamp is nearer than the door by 0.95 m" in text


ORDER, TIED = "From the nearest to the farthest", "About as far as each other"


@pytest.mark.parametrize(
    ("metres", "kind", "line"),
    [
        pytest.param((2.0, 2.0), "relative", f"{TIED}: chair, lamp.", id="two tie"),
        pytest.param((2.0, 2.0), "inverse", f"{TIED}: chair, lamp.", id="two tie, inverse"),
        pytest.param((2.0,) * 3, "relative", f"{TIED}: chair, lamp, door.", id="all tie"),
        pytest.param(
            (2.0, 2.0, 1.0), "relative", f"{ORDER}: door, chair, lamp.", id="one is nearer"
        ),
        pytest.param((2.0,), "relative", f"{ORDER}: chair.", id="one thing"),
        pytest.param(
            (2.0, 2.0), "metric", f"{ORDER}: chair 2.00 m, lamp 2.00 m.", id="metres tell the tie"
        ),
    ],
)
def test_an_order_is_told_where_something_is_nearer(metres, kind, line) -> None:
    assert rationale(scene(metres, kind), NAMED[: len(metres)]).split("\n")[0] == line


def test_what_cannot_be_told() -> None:
    depth = scene((2.0, 2.0))
    assert "The chair is about as far as the lamp" in rationale(depth, NAMED[:2])
    x0, y0, x1, y1 = PLACES[0].to_pixels(depth.size)
    depth.valid[y0:y1, x0:x1] = False
    assert rationale(depth, NAMED[:2]).endswith("Not known: chair.")
    assert rationale(depth, []) == ""


def test_an_image_has_nine_parts() -> None:
    parts = whole_view()
    assert [name for name, _ in parts][:5] == [
        "top left",
        "top middle",
        "top right",
        "middle left",
        "middle",
    ]
    assert sum((r.x1 - r.x0) * (r.y1 - r.y0) for _, r in parts) == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_nearest_is_the_lightest_in_a_picture(kind: Kind) -> None:
    pixels = np.asarray(coloured(scene((1.0, 8.0), kind))).astype(int).sum(-1)
    near, far = (pixels[20, int((r.x0 + r.x1) * 40)] for r in PLACES[:2])
    assert near > far
    assert pixels.shape[1] > 80  # a scale beside it
