"""Frames chosen by each rule: spread, capped, at changes, by a question, within a budget."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as pil

from video.decode import Video, video_of
from video.frames import ClipInfo
from video.sampling import (
    around,
    by_change,
    by_question,
    by_rate,
    plan_frames,
    uniform,
    within,
)

TEN_S = ClipInfo("ten.mp4", (640, 360), tuple(i / 10 for i in range(100)), 10.0)
ONE = ClipInfo("one.mp4", (8, 8), (0.0,), 0.04)


def scenes(*lengths: int) -> Video:
    """A second a frame; each scene of another shade."""
    shades = [place * 60 for place, length in enumerate(lengths) for _ in range(length)]
    frames = [pil.new("RGB", (16, 16), (shade, shade, shade)) for shade in shades]
    return video_of(frames, [float(i) for i in range(len(frames))])


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        pytest.param(uniform(TEN_S, 4), [1.2, 3.7, 6.2, 8.7], id="uniform"),
        pytest.param(uniform(TEN_S, 1), [5.0], id="one: the middle"),
        pytest.param(uniform(ONE, 5), [0.0], id="more than there are"),
        pytest.param(by_rate(TEN_S, 0.5, 99), [0.0, 2.0, 4.0, 6.0, 8.0], id="rate"),
        pytest.param(by_rate(TEN_S, 5, 2), [2.5, 7.5], id="rate, capped"),
        pytest.param(around(TEN_S, 5, 2, 2), [4.5, 5.5], id="around"),
        pytest.param(around(TEN_S, 0, 2, 2), [0.5, 1.5], id="around the start"),
        pytest.param(around(TEN_S, 99, 2, 2), [8.5, 9.5], id="around what is outside"),
        pytest.param(within(TEN_S, 2, 3, 2), [2.2, 2.7], id="within"),
    ],
)
def test_times(times, expected):
    assert times == pytest.approx(expected)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        pytest.param(lambda: uniform(TEN_S, 0), "at least 1, got 0", id="no frames"),
        pytest.param(lambda: by_rate(TEN_S, 0, 9), "positive number, got 0", id="no rate"),
        pytest.param(lambda: by_rate(TEN_S, float("nan"), 9), "got nan", id="nan"),
        pytest.param(lambda: within(TEN_S, 4, 4, 1), "must rise", id="empty span"),
        pytest.param(lambda: within(TEN_S, 9, 11, 1), "inside 0 to 10 s", id="span outside"),
    ],
)
def test_what_cannot_be_is_refused(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()


def test_each_scene_gives_a_frame():
    times = by_change(scenes(10, 3, 7), 3)
    assert [t // 1 for t in times] == [5, 11, 16]


def test_more_frames_than_scenes_split_the_longest():
    times = by_change(scenes(12, 4), 4)
    assert len(times) == 4
    assert sum(t < 12 for t in times) == 3


def test_a_still_clip_is_spread_over():
    assert by_change(scenes(8), 2) == pytest.approx([2, 6])


def test_a_question_finds_its_moment_and_keeps_spread():
    video = scenes(10, 10, 10)

    def bright(images, question):
        return [image.getpixel((0, 0))[0] for image in images]

    times = by_question(video, "when is it bright?", 4, bright)
    assert len(times) == 4
    assert sum(t >= 20 for t in times) == 3  # the bright scene, seen three times
    assert all(later - earlier > 3.75 for earlier, later in pairwise(times))


def test_frames_are_compared_with_a_question_small():
    large = video_of([pil.new("RGB", (1600, 900))] * 2, [0.0, 1.0])
    sizes = set()

    def noted(images, question):
        sizes.update(image.size for image in images)
        return [0.0] * len(images)

    by_question(large, "what?", 1, noted)
    assert sizes == {(683, 384)}


def tokens_of(size):
    return -(-size[0] // 32) * -(-size[1] // 32)


@pytest.mark.parametrize(
    ("budget", "count"),
    [
        pytest.param(100_000, 20, id="plenty: all that the rate wants"),
        pytest.param(20 * 28, 20, id="smaller frames first"),
        pytest.param(5 * 28, 5, id="then fewer"),
    ],
)
def test_a_budget_trades_size_before_length(budget, count):
    plan = plan_frames(TEN_S, budget, tokens_of)
    assert plan.count == count
    assert plan.visual_tokens == count * tokens_of(plan.size) <= budget
    assert min(plan.size) >= 112


def test_a_budget_for_nothing_is_refused():
    with pytest.raises(ValueError, match="a budget of 3 visual tokens pays for no frame"):
        plan_frames(TEN_S, 3, tokens_of)


@given(st.integers(1, 400), st.floats(0.05, 30), st.integers(1, 300))
def test_no_budget_is_overspent_and_times_rise(count, fps, budget):
    plan = plan_frames(TEN_S, 28 * budget, tokens_of, fps=fps)
    assert plan.visual_tokens <= 28 * budget
    times = uniform(TEN_S, count)
    assert times == sorted({*times})
    assert 0 <= times[0] <= times[-1] < TEN_S.duration_s
