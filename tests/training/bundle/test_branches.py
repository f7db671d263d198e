"""Rows whose branches are gone on from: each path is read as if it stood alone."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from transformers import Qwen3VLForConditionalGeneration

from mm.tokens.builder import TokenBuilder
from mm.tokens.loading import load_builder
from training.bundle.branches import Row
from training.bundle.extend_rows import CLIP_TOKENS, CLIP_VIEWS, clip_row
from training.bundle.language_stage import decode
from training.bundle.packing import Segment, collate
from training.bundle.shards import VIEW, Views, crop_windows, overview, training_scene
from training.bundle.verdict_rows import VERDICT_TOKENS, VERDICT_VIEWS, verdict_row
from training.tabletop.render import render
from vision.crop import square_view


@cache
def builder() -> TokenBuilder:
    return load_builder("mm/bundled/tiny")


@cache
def views(index: int) -> Views:
    scene = training_scene(index)
    image = render(scene)
    crops = [np.asarray(square_view(image, w, VIEW)) for w in crop_windows(scene)]
    return Views(scene, np.asarray(overview(image)), np.stack(crops), np.zeros((0,)))


def verdicts(number: int) -> Row:
    return verdict_row(builder(), views(number), random.Random(number))


def clips(number: int) -> Row:
    return clip_row(builder(), random.Random(number))


def path_to(row: Row, number: int) -> list[int]:
    return [0] if number == 0 else [*path_to(row, row[0][number].parent), number]


def joined(segments: list[Segment]) -> Segment:
    ids, trained, shown = (), (), ()
    for each in segments:
        shown += tuple((len(ids) + at, view) for at, view in each.views)
        ids, trained = ids + each.ids, trained + each.trained
    return Segment(ids, trained, shown)


@pytest.mark.parametrize(
    ("row", "tokens", "views"),
    [
        pytest.param(verdicts(2), VERDICT_TOKENS, VERDICT_VIEWS, id="verdicts"),
        pytest.param(clips(0), CLIP_TOKENS, CLIP_VIEWS, id="a clip that is watched"),
    ],
)
def test_each_path_is_read_as_if_it_stood_alone(row, tokens, views) -> None:
    model = Qwen3VLForConditionalGeneration.from_pretrained("mm/bundled/tiny").float().eval()
    assert any(segment.parent for segment in row[0])
    with torch.no_grad():
        packed = decode(model, collate([row], views, tokens))[0]
        starts = np.cumsum([0, *(len(segment.ids) for segment in row[0])])
        for number, segment in enumerate(row[0]):
            alone = joined([row[0][n] for n in path_to(row, number)])
            (single,) = decode(model, collate([([alone], [""])], views, tokens))
            mine = packed[starts[number] : starts[number + 1]]
            stop = len(alone.ids)
            torch.testing.assert_close(
                mine, single[stop - len(segment.ids) : stop], atol=2e-5, rtol=0
            )


def test_only_verdicts_and_letters_train_until_the_reasoner_is_told_to_go_on() -> None:
    for number in range(8):
        row = verdicts(number)
        for at, (segment, kind) in enumerate(zip(*row, strict=True)):
            said = "".join(builder().decode(row[0][n].ids) for n in path_to(row, at))
            if kind.startswith("verdict"):
                assert sum(segment.trained) == 2  # the word and the end of the turn
            elif kind != "letters":
                assert any(segment.trained) <= ("not certain yet" in said)


def test_a_verdict_is_no_before_the_letter_was_seen_and_yes_from_then_on() -> None:
    for number in range(20):
        row = verdicts(number)
        for at, kind in enumerate(row[1]):
            if kind != "verdict search":
                continue
            said = builder().decode(joined([row[0][n] for n in path_to(row, at)]).ids)
            wanted = said.split("the letter ")[1][0]
            looked = said.count("<tool_response>")
            assert said.endswith(("yes", "no")) or said.rstrip().endswith("<|im_end|>")
            if not looked:
                assert "yes" not in said.rsplit("assistant", 1)[1]
            if f"\n{wanted}." in said and "<answer>" not in said:
                assert "yes" in said.rsplit("assistant", 1)[1]


def test_letters_are_those_of_the_crops_that_were_seen() -> None:
    asked = 0
    for number in range(8):
        row = verdicts(number)
        letters = {thing.letter for thing in views(number).scene.things}
        for at, kind in enumerate(row[1]):
            if kind == "letters":
                said = builder().decode(joined([row[0][n] for n in path_to(row, at)]).ids)
                listed = said.rsplit("assistant\n", 1)[1].removesuffix("<|im_end|>").split()
                assert len(listed) == said.count("<tool_response>")
                assert set(listed) <= letters
                asked += 1
    assert asked > 8


def test_segments_without_parents_go_on_from_the_prefix() -> None:
    one = Segment((1, 2), (False, True), ())
    batch = collate([([one, one, replace(one, parent=1)], ["", "read", "read"])], 1, 8)
    assert batch.positions[0, 0, :6].tolist() == [0, 1, 2, 3, 4, 5]
    assert batch.sees[0].int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 1, 0],
        [1, 0, 0, 1],
    ]
