"""What a branch tells about its looks: what was found, and what was thought of it."""

from __future__ import annotations

import PIL.Image
import pytest

from mm.geometry import Region
from mm.markup import parse_parts
from mm.origins import Cropped
from mm.trace import Branch, Sample, Step
from mm.types import Features, Image, Message, message, user
from vision.look_stats import MIN_SHOWN_IOU, found, is_empty_thought, replies_to_looks

PICTURE = Image(PIL.Image.new("RGB", (100, 100)))
OTHER = Image(PIL.Image.new("RGB", (100, 100), "teal"))
PLACE = Region(0.2, 0.2, 0.4, 0.4)


def crop(region: Region, of: Image = PICTURE) -> Image:
    return Image(PIL.Image.new("RGB", (28, 28)), Cropped(of.id, region, (28, 28)))


def branch(*steps: Step) -> Branch:
    sample = Sample("x", (user(PICTURE, OTHER, "?"),))
    return Branch(sample, steps, len(steps) - 1)


def wrote(text: str) -> Step:
    return Step(Message("assistant", parse_parts(text)), sampled=True)


def shown(*seen: Image | Features | str) -> Step:
    return Step(message("tool", *seen))


@pytest.mark.parametrize(
    ("seen", "regions", "expected"),
    [
        pytest.param([crop(PLACE)], [PLACE], 1, id="the place"),
        pytest.param([Features(PICTURE, PLACE)], [PLACE], 1, id="from memory"),
        pytest.param([crop(Region(0.17, 0.17, 0.43, 0.43))], [PLACE], 1, id="with a margin"),
        pytest.param([crop(Region(0.3, 0.3, 0.5, 0.5))], [PLACE], 0, id="a corner of it"),
        pytest.param([crop(Region(0.0, 0.0, 1.0, 1.0))], [PLACE], 0, id="everything"),
        pytest.param([crop(PLACE, of=OTHER)], [PLACE], 0, id="in the other picture"),
        pytest.param([], [PLACE], 0, id="nothing"),
        pytest.param([crop(PLACE)], [PLACE, Region(0.6, 0.6, 0.8, 0.8)], 1, id="one of two"),
        pytest.param([crop(PLACE)], [], 0, id="nobody knows where"),
    ],
)
def test_found(seen: list[Image | Features], regions: list[Region], expected: int) -> None:
    assert found(branch(*(shown(each) for each in seen)), regions) == expected


def test_the_square_rules_own_crop_of_a_place_counts_as_found() -> None:
    """Its margin alone takes the overlap of a perfect box down to 1 / 1.3**2 = 0.59."""
    assert MIN_SHOWN_IOU < 1 / 1.3**2


@pytest.mark.parametrize(
    ("reply", "empty"),
    [
        pytest.param("K", True, id="the answer"),
        pytest.param("<answer>STOP</answer>", True, id="the answer in tags"),
        pytest.param("</think><answer>STOP</answer>", True, id="a thought that only closes"),
        pytest.param("<think> </think>STOP", True, id="a blank thought"),
        pytest.param("Final answer: STOP", True, id="the answer with its word"),
        pytest.param('<tool_call>{"name": "z", "arguments": {}}</tool_call>', True, id="a call"),
        pytest.param('{"bbox_2d": [1, 2, 3, 4]}', True, id="a box"),
        pytest.param("<sot>[0.1, 0.2, 0.3, 0.4]<eot>", True, id="a signal"),
        pytest.param("", True, id="nothing"),
        pytest.param("It says stop.</think><answer>STOP</answer>", False, id="a thought"),
        pytest.param("A sign. <answer>STOP</answer>", False, id="words before the answer"),
        pytest.param("It is red. Final answer: STOP", False, id="words before the word"),
        pytest.param('K.\n<tool_call>{"name": "z", "arguments": {}}</tool_call>', False, id="K."),
        pytest.param('Not here. {"bbox_2d": [1, 2, 3, 4]}', False, id="words before a box"),
        pytest.param("so " * 60, False, id="words without an end"),
    ],
)
def test_an_empty_thought_is_no_more_than_the_answer_or_the_next_look(
    reply: str, empty: bool
) -> None:
    assert is_empty_thought(wrote(reply).message) is empty


def test_only_replies_to_pictures_count() -> None:
    steps = (
        *(wrote("look"), shown(crop(PLACE)), wrote("one")),
        *(shown("a bad box"), wrote("two")),
        *(shown(Features(PICTURE, PLACE)), shown("a bad box"), wrote("three")),
        *(Step(user("really?")), wrote("four")),
    )
    assert [m.text for m in replies_to_looks(branch(*steps))] == ["one", "three"]
