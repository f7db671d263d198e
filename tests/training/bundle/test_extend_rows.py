"""Rows of the extend stage: what the strategies show is what is trained on, and the answers are
right."""

from __future__ import annotations

import random
import re
from functools import cache
from itertools import islice

import pytest

from mm.tokens.builder import TokenBuilder
from mm.tokens.loading import load_builder
from training.bundle.extend_rows import (
    CLIP_TOKENS,
    CLIP_VIEWS,
    DEPTH_TOKENS,
    DEPTH_VIEWS,
    clip_row,
    depth_row,
    span_to_watch,
)
from training.bundle.packing import KINDS, collate
from training.tabletop.clip_questions import clip_stream
from training.tabletop.motion import FLASH_S, SECONDS


@cache
def builder() -> TokenBuilder:
    return load_builder("mm/bundled/tiny")


@pytest.mark.parametrize(
    ("make", "tokens", "views"),
    [
        pytest.param(depth_row, DEPTH_TOKENS, DEPTH_VIEWS, id="depth"),
        pytest.param(clip_row, CLIP_TOKENS, CLIP_VIEWS, id="clips"),
    ],
)
def test_rows_fit_and_train_something(make, tokens, views) -> None:
    for number in range(6):
        segments, kinds = make(builder(), random.Random(number))
        assert sum(len(each.ids) for each in segments) <= tokens
        assert sum(len(each.views) for each in segments) <= views
        assert all(any(each.trained) for each in segments[1:])
        assert not any(segments[0].trained)
        assert set(kinds[1:]) <= set(KINDS)
        batch = collate([(segments, kinds)], views, tokens)
        assert batch.trained.sum() == sum(sum(each.trained) for each in segments)


def test_a_row_is_a_function_of_its_seed() -> None:
    one, other = (clip_row(builder(), random.Random(4)) for _ in range(2))
    assert [s.ids for s in one[0]] == [s.ids for s in other[0]]
    assert [at for s in one[0] for at, _ in s.views] == [at for s in other[0] for at, _ in s.views]


def test_conversations_about_depth_stand_alone() -> None:
    segments, kinds = depth_row(builder(), random.Random(1))
    assert len(segments[0].ids) == 0
    batch = collate([(segments, kinds)], DEPTH_VIEWS, DEPTH_TOKENS)
    starts = [int((batch.segments[0] == n).nonzero()[0]) for n in range(1, len(segments))]
    assert all(batch.positions[:, 0, start].eq(0).all() for start in starts)


def test_what_is_told_tells_the_answer() -> None:
    said = [
        (kind, builder().decode(segment.ids))
        for number in range(30)
        for segment, kind in zip(*depth_row(builder(), random.Random(number)), strict=True)
    ]
    nearer = [text for kind, text in said if kind == "depth nearer"]
    assert len(nearer) > 10
    right = 0
    for text in nearer:
        first = re.search(r"farthest: (\w+ \w+)", text)
        assert first is not None
        right += text.rstrip().removesuffix("<|im_end|>").endswith(first[1])
    assert right >= 0.9 * len(nearer)  # what is told errs a little


def test_the_span_to_watch_shows_the_flash() -> None:
    for item in islice(clip_stream("moment", 3, 40), 40):
        (flash,) = item.motion.flashes
        start, end = span_to_watch(item.motion, item.question)
        assert 0 <= start < end <= SECONDS
        seen = [(k + 0.5) for k in range(8)]
        shown = any(flash.start_s <= t < flash.start_s + FLASH_S for t in seen)
        assert shown or start < flash.start_s + FLASH_S <= end + FLASH_S


def test_other_questions_are_watched_over_the_whole_clip() -> None:
    (item,) = clip_stream("tally", 0, 1)
    assert span_to_watch(item.motion, item.question) == (0.0, SECONDS)
