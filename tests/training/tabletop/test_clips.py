"""Clips: what is said of them is true of their frames, and cannot be guessed without looking."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from itertools import islice

import numpy as np
import pytest

from mm.scripted import ScriptedVLM
from mm.session import run
from training.evaluation.controls import Condition, conditions_of
from training.evaluation.tasks import tabletop_suites
from training.tabletop import CLIP_TASKS, clip_stream
from training.tabletop.clip_questions import ask_clip
from training.tabletop.motion import FPS, FRAME_SIDE, SECONDS, frames_of, make_motion
from training.tabletop.render import RGB
from video import uniform, watch

LAMP = (round(0.09 * FRAME_SIDE), round(0.5 * FRAME_SIDE))


def lamps(motion) -> list[tuple[int, ...]]:
    return [tuple(np.asarray(frame)[LAMP].tolist()) for frame in frames_of(motion)]


@pytest.mark.parametrize("seed", range(4))
def test_what_is_true_shows_in_the_frames(seed: int) -> None:
    motion = make_motion(seed)
    shown = lamps(motion)
    assert len(shown) == SECONDS * FPS
    coloured = [colour for colour in shown if colour in RGB.values()]
    assert len(coloured) == 2 * len(motion.flashes)  # a quarter of a second each
    for flash in motion.flashes:
        assert shown[round(flash.start_s * FPS)] == RGB[flash.colour]
    first, second = motion.slides
    assert first.start_s + 1 < second.start_s
    before, after = (np.asarray(frames_of(motion)[n]).astype(int) for n in (0, -1))
    assert abs(before - after).sum() > 10_000


def test_the_same_seed_is_the_same_clip() -> None:
    one, other = (np.stack([np.asarray(f) for f in frames_of(make_motion(5))]) for _ in range(2))
    assert (one == other).all()


@pytest.mark.parametrize("task", CLIP_TASKS)
def test_answers_are_spread(task: str) -> None:
    motions = map(make_motion, range(1 << 20, 1 << 21))  # no clip is drawn
    asked = (ask_clip(task, motion, random.Random(motion.seed)) for motion in motions)
    questions = list(islice(filter(None, asked), 120))
    counts = Counter(question.answer for question in questions)
    if task == "order":
        first = sum(question.answer == question.choices[0] for question in questions)
        assert 40 < first < 80
    else:
        assert max(counts.values()) < 1.7 * len(questions) / len(questions[0].choices)


def test_few_frames_miss_most_flashes() -> None:
    seen = 0
    for item in clip_stream("moment", 0, 60):
        trace = run(partial(uniform, frames=8), item.sample, ScriptedVLM(["x"]))
        lamp = [tuple(np.asarray(i.pixels)[LAMP].tolist()) for i in trace.sample.images]
        seen += RGB[item.question.answer] in lamp
    assert seen < 0.4 * 60


def test_streams_share_no_clip() -> None:
    seeds = [
        {item.motion.seed for item in clip_stream(task, seed, 5)}
        for task in CLIP_TASKS
        for seed in (0, 1)
    ]
    assert sum(map(len, seeds)) == len(set().union(*seeds))


def test_the_true_span_shows_the_flash() -> None:
    (suite,) = tabletop_suites(["moment"], seed=0, limit=1, level=3)
    labels = [c.control for c in conditions_of(suite, [("watch", watch)], controls=True)]
    assert labels == ["", "random", "true", "blind", "middle-frame", "shuffled", "reversed"]
    (item,) = suite.items()
    call = (
        '<tool_call>{"name": "look_at_span", "arguments": {"start_s": 0, "end_s": 1}}</tool_call>'
    )
    strategy, sample = Condition("watch", partial(watch, frames=2, look_frames=12), "true").meet(
        item
    )
    trace = run(strategy, sample, ScriptedVLM([call, str(item.sample.target)]))
    lamp = [tuple(np.asarray(i.pixels)[LAMP].tolist()) for i in trace.best.images]
    assert RGB[str(item.sample.target)] in lamp


def test_a_reversed_clip_moves_the_other_way() -> None:
    (suite,) = tabletop_suites(["direction"], seed=0, limit=1, level=3)
    (item,) = suite.items()
    shown = []
    for control in ("", "reversed"):
        strategy, sample = Condition("uniform", partial(uniform, frames=4), control).meet(item)
        trace = run(strategy, sample, ScriptedVLM(["left"]))
        shown.append([np.asarray(image.pixels) for image in trace.sample.images])
    assert all((a == b).mean() > 0.9 for a, b in zip(shown[0], shown[1][::-1], strict=True))
