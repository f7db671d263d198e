"""Depth maps keep their direction and unit; what is not known or cannot be told is said."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as pil

from mm.geometry import Region
from vision.depth import (
    BadDepth,
    DepthMap,
    Kind,
    compare,
    constant,
    depth_map,
    flipped,
    greys,
    nearest_first,
    region_depth,
    resized,
)
from vision.depth_files import open_depth
from vision.draw_depth import coloured
from vision.rationale import rationale

LEFT, RIGHT = Region(0, 0, 0.5, 1), Region(0.5, 0, 1, 1)


def halves(left: float, right: float, kind: Kind = "metric", noise: float = 0.0) -> DepthMap:
    """A map whose left half is at one depth and its right half at another."""
    values = np.full((20, 40), left, np.float32)
    values[:, 20:] = right
    return depth_map(values + np.random.default_rng(0).uniform(0, noise, values.shape), kind)


@pytest.mark.parametrize(
    ("kind", "left", "right", "said"),
    [
        pytest.param("metric", 1.0, 3.0, "nearer", id="metres: smaller is nearer"),
        pytest.param("relative", 1.0, 3.0, "nearer", id="relative: smaller is nearer"),
        pytest.param("inverse", 1.0, 3.0, "farther", id="inverse: larger is nearer"),
        pytest.param("inverse", -3.0, -1.0, "farther", id="inverse, negative"),
        pytest.param("metric", 3.0, 1.0, "farther", id="the other way round"),
    ],
)
def test_nearer_follows_the_kind(kind, left, right, said):
    depth = halves(left, right, kind, noise=0.01)
    assert compare(depth, LEFT, RIGHT) == said
    assert nearest_first(depth, [LEFT, RIGHT]) == ([0, 1] if said == "nearer" else [1, 0])


@pytest.mark.parametrize("kind", ["metric", "relative", "inverse"])
def test_flipped_turns_every_order_over(kind):
    depth = halves(1.0, 3.0, kind, noise=0.01)
    turned = {"nearer": "farther", "farther": "nearer"}
    assert compare(flipped(depth), LEFT, RIGHT) == turned[compare(depth, LEFT, RIGHT)]


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        pytest.param(flipped, [0, 7, 6, 1], id="flipped: near + far - d"),
        pytest.param(constant, [2, 2, 2, 2], id="constant: the median"),
    ],
)
@pytest.mark.parametrize("kind", ["metric", "relative", "inverse"])
def test_a_control_changes_what_is_known_in_the_maps_own_numbers(change, changed, kind):
    depth = depth_map(np.array([[0.0, 1.0, 2.0, 7.0]]), kind)
    made = change(depth)
    assert made.values.tolist() == [changed]
    assert (made.valid.tolist(), made.kind) == (depth.valid.tolist(), kind)


@pytest.mark.parametrize("kind", ["metric", "relative", "inverse"])
def test_of_a_constant_map_nothing_can_be_told_and_all_can_be_drawn(kind):
    flat = constant(halves(1.0, 3.0, kind, noise=0.01))
    assert compare(flat, LEFT, RIGHT) == "cannot tell"
    assert nearest_first(flat, [RIGHT, LEFT]) == [0, 1]  # as they were named
    assert "nearer" not in rationale(flat, [("a", LEFT), ("b", RIGHT)]).replace("nearest", "")
    assert np.ptp(np.asarray(greys(flat))) == 0
    assert coloured(flat).size[1] == 20


def test_spreads_that_overlap_cannot_be_told_apart():
    assert compare(halves(1.0, 1.05, noise=1.0), LEFT, RIGHT) == "cannot tell"
    assert compare(halves(1.0, 1.05, noise=0.01), LEFT, RIGHT) == "nearer"


def test_a_region_with_too_few_known_pixels_has_no_depth():
    values = np.full((10, 10), 2.0)
    values[:, 5:] = 0
    values[0, 9] = 4.0
    depth = depth_map(values, "metric")
    assert region_depth(depth, RIGHT) is None
    assert compare(depth, LEFT, RIGHT) == "cannot tell"
    assert nearest_first(depth, [RIGHT, LEFT]) == [1]


@pytest.mark.parametrize(
    ("right", "kind", "said"),
    [
        pytest.param(1.04, "metric", "cannot tell", id="metres within the error"),
        pytest.param(1.06, "metric", "nearer", id="metres beyond it"),
        pytest.param(1.04, "relative", "nearer", id="no metres"),
    ],
)
def test_an_estimate_tells_apart_no_more_than_its_error(right: float, kind: Kind, said) -> None:
    depth = depth_map(np.repeat([[1.0, right]], 4, 0).repeat(4, 1), kind)
    assert compare(replace(depth, error=0.05), LEFT, RIGHT) == said
    assert compare(depth, LEFT, RIGHT) == "nearer"


def test_quartiles_rise_with_farness():
    near_first = region_depth(halves(1.0, 3.0, "inverse"), Region(0, 0, 1, 1))
    assert near_first is not None
    assert (near_first.low, near_first.high) == (3.0, 1.0)


@pytest.mark.parametrize(
    ("values", "kind", "complaint"),
    [
        pytest.param(np.ones((4, 4)), "metric", "every pixel has the depth 1", id="constant"),
        pytest.param(np.full((4, 4), np.nan), "metric", "no pixel has a depth", id="nan"),
        pytest.param(np.zeros((4, 4)), "inverse", "no pixel has a depth", id="zero"),
        pytest.param(np.full((4, 4), np.inf), "metric", "no pixel has a depth", id="infinite"),
        pytest.param(np.ones((4, 4, 3)), "metric", "found (4, 4, 3)", id="colours"),
        pytest.param(np.array([[-1.0, 2.0]]), "metric", "must not be negative", id="negative"),
        pytest.param(np.array([[1.0, 2.0]]), "metres", "one of metric, relative", id="kind"),
    ],
)
def test_what_is_no_depth_map_is_one_line(values, kind, complaint):
    with pytest.raises(BadDepth, match=re.escape(complaint)):
        depth_map(values, kind, "a.png")


def test_a_map_of_another_shape_is_refused():
    depth = halves(1.0, 3.0)
    assert resized(depth, (80, 40)).size == (80, 40)
    assert compare(resized(depth, (81, 40)), LEFT, RIGHT) == "nearer"
    with pytest.raises(BadDepth, match="is 40 x 20, the image 40 x 40"):
        resized(depth, (40, 40))


def speck(kind: Kind, elsewhere: float) -> DepthMap:
    """A map that is `elsewhere` but at a corner, which a smaller one leaves out."""
    values = np.full((40, 40), elsewhere, np.float32)
    values[0, :2] = 2.0, 3.0
    return depth_map(values, kind)


@pytest.mark.parametrize("kind", ["metric", "relative", "inverse"])
def test_a_map_that_is_flat_once_it_is_smaller_is_drawn(kind):
    flat = resized(speck(kind, 1.0), (4, 4))
    assert np.asarray(greys(flat)).min() == 255  # all of it is as near as anything is
    assert coloured(flat).size[1] == 4


def test_a_map_that_is_empty_once_it_is_smaller_is_refused():
    with pytest.raises(BadDepth, match="too few depths for an image of 4 x 4: give a denser map"):
        resized(speck("metric", 0.0), (4, 4))


@given(st.integers(1, 90), st.integers(1, 60))
def test_resizing_makes_no_new_depths(width, height):
    depth = replace(halves(1.0, 3.0), values=np.arange(1, 801, dtype=np.float32).reshape(20, 40))
    try:
        made = resized(depth, (width, height))
    except BadDepth:
        return
    assert np.isin(made.values, depth.values).all()


def saved(tmp_path, name: str):
    """A map of two metres on the left and four on the right, in the form that `name` says."""
    metres = np.full((4, 8), 2.0, np.float32)
    metres[:, 4:] = 4.0
    metres[0, 0] = 0
    path = tmp_path / name
    if name.endswith("png"):
        pil.fromarray((metres * 1000).astype(np.uint16)).save(path)
    elif name.endswith("npy"):
        np.save(path, metres[None])
    elif name.endswith("npz"):
        np.savez(path, depth=metres, other=metres)
    else:
        pil.fromarray(metres).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        pytest.param("a.png", 1000, id="16-bit PNG"),
        pytest.param("a.png", "nyu", id="by the name of a data set"),
        pytest.param("a.npy", None, id="NPY"),
        pytest.param("a.npz", None, id="NPZ"),
        pytest.param("a.tiff", None, id="float TIFF"),
    ],
)
def test_every_form_gives_the_same_metres(tmp_path, name, scale):
    depth = open_depth(saved(tmp_path, name), scale=scale)
    assert depth.values[1].tolist() == pytest.approx([2, 2, 2, 2, 4, 4, 4, 4])
    assert (depth.valid[0, 0], depth.valid.sum(), depth.kind) == (False, 31, "metric")


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        pytest.param("a.png", {}, "need their scale, units a metre: one of nyu 1000", id="scale"),
        pytest.param("a.png", {"scale": "cm"}, "or one of nyu, ssr, tum, kitti, got 'cm'", id="cm"),
        pytest.param("a.png", {"scale": -1}, "must be a positive number", id="negative"),
        pytest.param("none.png", {}, "there is no such depth map", id="absent"),
        pytest.param(f"{'a' * 300}.png", {}, "there is no such depth map", id="a long name"),
        pytest.param("a.jpg", {}, "as one of .png", id="suffix"),
        pytest.param("eight.png", {"scale": 1000}, "mode L, 8 bits", id="8 bits"),
        pytest.param("text.png", {}, "cannot be read as a depth map", id="no image"),
        pytest.param("text.npy", {}, "cannot be read as a depth map", id="no array"),
        pytest.param("text.npz", {}, "cannot be read as a depth map", id="no archive"),
        pytest.param("words.npy", {}, "depth is real numbers, found an array of <U1", id="words"),
        pytest.param("complex.npy", {}, "real numbers, found an array of complex128", id="complex"),
        pytest.param("flipped.npz", {}, "cannot be read as a depth map", id="a flipped byte"),
        pytest.param("huge.npy", {}, "cannot be read as a depth map", id="terabytes"),
        pytest.param("two.npz", {}, "which of its arrays is the depth? a, b", id="two arrays"),
    ],
)
def test_a_file_that_is_no_depth_map_is_one_line(tmp_path, name, options, complaint):
    saved(tmp_path, "a.png")
    pil.new("L", (4, 4)).save(tmp_path / "eight.png")
    for text in ("text.png", "text.npy", "text.npz"):
        (tmp_path / text).write_text("no depth")
    np.savez(tmp_path / "two.npz", a=np.ones((2, 2)), b=np.ones((2, 2)))
    np.save(tmp_path / "words.npy", np.array([["a", "b"]]))
    np.save(tmp_path / "complex.npy", np.ones((2, 2), complex))
    np.savez(tmp_path / "flipped.npz", depth=np.arange(64.0).reshape(8, 8))
    spoilt = bytearray((tmp_path / "flipped.npz").read_bytes())
    spoilt[200] ^= 255
    (tmp_path / "flipped.npz").write_bytes(spoilt)
    with (tmp_path / "huge.npy").open("wb") as file:
        vast = {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}
        np.lib.format.write_array_header_1_0(file, vast)
    with pytest.raises(BadDepth, match=re.escape(complaint)) as caught:
        open_depth(tmp_path / name, **options)
    assert "\n" not in str(caught.value)
