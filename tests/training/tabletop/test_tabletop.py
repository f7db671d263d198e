"""Tabletop: scenes are pure functions of their seeds, and what is said about them is true."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from itertools import combinations, count, islice

import numpy as np
import pytest

from mm.geometry import Region, iou
from mm.types import Image
from training.bundle.shards import (
    crop_windows,
    grid_box,
    overview,
    tile_windows,
    training_scene,
)
from training.tabletop import COLOURS, LETTERS, SHAPES, SIDE, TASKS, Level, make_scene, stream
from training.tabletop.questions import FIRST_TEST_SEED, ask
from training.tabletop.render import depth_map, render
from training.tabletop.scene import FAR_M, NEAR_M
from training.tabletop.traces import answered, caption, solved

SCENES = [make_scene(seed, level) for seed in range(60) for level in Level]


def test_the_world_is_as_large_as_promised():
    assert len(set(LETTERS)) >= 16
    assert len(set(COLOURS)) >= 6
    assert len(set(SHAPES)) >= 4


@pytest.mark.parametrize("level", list(Level), ids=lambda level: level.name.lower())
def test_a_scene_is_a_pure_function_of_its_seed(level):
    assert make_scene(11, level) == make_scene(11, level)
    assert make_scene(11, level) != make_scene(12, level)
    first, again = render(make_scene(11, level)), render(make_scene(11, level))
    assert first.tobytes() == again.tobytes()


def test_scenes_hold_three_to_eight_different_objects_large_enough_to_see():
    for scene in SCENES:
        assert 3 <= len(scene.things) <= 8
        assert len({t.name for t in scene.things}) == len(scene.things)
        assert all(t.side >= 0.08 for t in scene.things)
        assert all(NEAR_M <= t.depth <= FAR_M for t in scene.things)
        assert [t.x for t in scene.things] == sorted(t.x for t in scene.things)


@pytest.mark.parametrize("level", [level for level in Level if level < Level.CLUTTER])
def test_objects_do_not_overlap_before_the_last_level(level):
    for seed in range(40):
        for a, b in combinations(make_scene(seed, level).things, 2):
            assert iou(a.region, b.region) == 0


def test_pictures_are_drawn_fast_enough():
    scenes = [make_scene(seed, Level.CLUTTER) for seed in range(20)]
    render(scenes[0])
    start = time.process_time()
    for scene in scenes:
        render(scene)
    assert len(scenes) / (time.process_time() - start) >= 30


def test_the_depth_map_has_each_objects_depth_where_it_stands_in_front():
    scene = make_scene(3, Level.PLAIN)
    depth = depth_map(scene)
    assert depth.shape == (SIDE, SIDE)
    for thing in scene.things:
        at = depth[round(thing.y * SIDE), round(thing.x * SIDE)]
        assert at == pytest.approx(thing.depth)


def test_nothing_but_the_grain_tells_how_far_a_thing_is():
    asked = list(islice(_questions("nearer", Level.GRAIN), 400))
    pairs = [([s.things[i] for i in q.about], q.answer) for s, q in asked]
    for guess in ("side", "y"):
        right = sum(max(both, key=lambda t: getattr(t, guess)).name == a for both, a in pairs)
        assert 0.4 < right / len(pairs) < 0.6


def test_an_overview_does_not_show_the_grain():
    scene = make_scene(5, Level.GRAIN)
    things = (replace(t, depth=(t.depth + NEAR_M) / 2) for t in scene.things)  # in the same order
    near = replace(scene, things=tuple(things))
    shown, seen_near = (render(s) for s in (scene, near))
    assert np.abs(np.subtract(*(np.asarray(i, int) for i in (shown, seen_near)))).max() > 10
    small = [np.asarray(overview(i), int) for i in (shown, seen_near)]
    changed = np.abs(np.subtract(*small))
    assert changed.max() <= 8
    assert changed.mean() < 0.05


def _questions(task, level):
    for seed in count(FIRST_TEST_SEED):
        scene = make_scene(seed, level)
        if question := ask(task, scene, random.Random(seed)):
            yield scene, question


def test_the_picture_shows_each_object_in_its_box_and_nothing_beside_it():
    scene = make_scene(3, Level.PLAIN)
    pixels = np.asarray(render(scene)).astype(int)
    background = pixels[0, 0]
    inside = np.zeros((SIDE, SIDE), bool)
    for thing in scene.things:
        x0, y0, x1, y1 = thing.region.to_pixels((SIDE, SIDE))
        inside[y0:y1, x0:x1] = True
        assert (np.abs(pixels[y0:y1, x0:x1] - background).sum(-1) > 60).mean() > 0.3
    assert (pixels[~inside] == background).all()


@pytest.mark.parametrize("task", TASKS)
def test_streams_are_repeatable_and_share_no_scene(task):
    items = [list(stream(task, seed, 5)) for seed in (0, 0, 1)]
    scenes = [[item.scene.seed for item in made] for made in items]
    assert scenes[0] == scenes[1]
    assert not set(scenes[0]) & set(scenes[2])
    assert all(seed >= FIRST_TEST_SEED for made in scenes for seed in made)
    assert items[0][0].sample == items[1][0].sample


def test_training_scenes_lie_below_the_first_test_seed():
    assert all(training_scene(index).seed < FIRST_TEST_SEED for index in (0, 1, 10**6))


@pytest.mark.parametrize(
    ("task", "seed", "message"),
    [
        pytest.param("reed", 0, "task must be one of colour, .* got 'reed'", id="no such task"),
        pytest.param("read", -1, "seed must not be negative, got -1", id="negative seed"),
    ],
)
def test_a_stream_that_cannot_be_is_refused(task, seed, message):
    with pytest.raises(ValueError, match=message):
        next(stream(task, seed, 1))


def questions(task: str, count: int = 300):
    scenes = (make_scene(seed) for seed in range(100_000))
    asked = ((s, ask(task, s, random.Random(s.seed))) for s in scenes)
    return list(islice(((s, q) for s, q in asked if q), count))


def test_answers_are_true():
    for scene, q in questions("colour"):
        (thing,) = [t for t in scene.things if t.shape in q.text]
        assert q.answer == thing.colour
    for scene, q in questions("count"):
        words = q.text.replace("crosses", "cross")
        named = [
            t
            for t in scene.things
            if (not any(c in words for c in COLOURS) or t.colour in words)
            and (not any(s in words for s in SHAPES) or t.shape in words)
        ]
        assert q.answer == str(len(named))
    for scene, q in questions("same"):
        letters = {t.letter for t in scene.things if t.name in q.text}
        assert q.answer == ("yes" if len(letters) == 1 else "no")
    for scene, q in questions("search"):
        (thing,) = [t for t in scene.things if t.letter == q.text.rstrip("?").split()[-1]]
        assert q.answer == thing.colour
    for scene, q in questions("nearer"):
        asked = [t for t in scene.things if t.name in q.text]
        assert q.answer == min(asked, key=lambda t: t.depth).name
    for scene, q in questions("read_nearest"):
        assert q.answer == min(scene.things, key=lambda t: t.depth).letter


def test_same_is_a_fair_coin():
    answers = [q.answer for _, q in questions("same", 1000)]
    assert 0.45 < answers.count("yes") / len(answers) < 0.55


def test_a_perfect_reasoner_looks_where_it_must_and_says_what_it_read():
    scene, question = questions("same", 1)[0]
    picture = Image(render(scene))
    crops = [picture] * len(scene.things)
    messages = solved(scene, question, picture, crops, step=20)
    assert [m.role for m in messages] == [
        "user", "assistant", "tool", "assistant", "tool", "assistant",
    ]  # fmt: skip
    (first,) = messages[1].tool_calls
    thing = scene.things[question.looks[0]]
    assert first.arguments["label"] == thing.name
    assert (
        iou(Region.from_pixels(tuple(first.arguments["bbox_2d"]), (1000, 1000)), thing.region) > 0.6
    )
    assert messages[3].text == thing.letter + ".\n"
    assert messages[-1].text.endswith(f"<answer>{question.answer}</answer>")


def test_one_look_is_enough_for_questions_about_what_is_large():
    scene, question = questions("locate", 1)[0]
    picture = Image(render(scene))
    asked, answer = answered(scene, question, picture, step=20)
    assert asked.images == (picture,)
    assert f'"label": "{scene.things[question.about[0]].name}"' in answer.text


def test_a_caption_names_everything_from_left_to_right():
    scene = make_scene(4)
    named = [part.rsplit(" ", 4)[0] for part in caption(scene, 20).split("; ")]
    assert named == [t.name for t in scene.things]


def test_boxes_on_the_grid_stay_close_to_the_truth():
    for scene in SCENES:
        for thing in scene.things:
            box = grid_box(thing.region)
            assert all(v % 20 == 0 for v in box)
            assert iou(Region.from_pixels(box, (1000, 1000)), thing.region) > 0.6


def test_training_windows_lie_in_the_picture_and_crops_hold_their_object():
    for scene in SCENES:
        for thing, (x0, y0, x1, y1) in zip(scene.things, crop_windows(scene), strict=True):
            assert 0 <= x0 < x1 <= SIDE
            assert x1 - x0 == y1 - y0
            assert x0 < thing.x * SIDE < x1
            assert y0 < thing.y * SIDE < y1
        for x0, y0, x1, y1 in tile_windows(scene):
            assert (x1 - x0, y1 - y0) == (128, 128)
            assert min(x0, y0) >= 0
            assert max(x1, y1) <= SIDE
