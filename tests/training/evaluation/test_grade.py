"""One judge: what is right, what is wrong, and what is no answer."""

import pytest
from PIL import Image as pil

import mm
from mm.geometry import BoxFormat, Region
from training.evaluation.grade import correct, grade
from training.evaluation.tasks import Item

PICTURE = mm.Image(pil.new("RGB", (200, 100)))
LETTER = Item(mm.question("What letter?", PICTURE, target="K", choices=("K", "R", "X")))
YES = Item(mm.question("The same?", PICTURE, target="yes", choices=("yes", "no")))
WRAPPED = Item(mm.question("Which?", PICTURE, target="<answer>K</answer>", choices=("K", "R", "X")))
WRITTEN_BOX = Item(mm.question("Where?", PICTURE, target="[10, 10, 50, 50]"))
UNKNOWN = Item(mm.question("Which?", PICTURE))
OPEN = Item(mm.question("What does the sign say?", PICTURE, target="No entry"))
# 100..300 of a thousand across, 200..600 down
BOX = Item(mm.question("Where?", PICTURE, target="..."), box=Region(0.1, 0.2, 0.3, 0.6))


def branch(item, reply):
    return mm.run(mm.direct, item.sample, mm.ScriptedVLM([reply])).best


@pytest.mark.parametrize(
    ("item", "reply", "expected"),
    [
        pytest.param(WRAPPED, "K", True, id="a truth in tags"),
        pytest.param(WRITTEN_BOX, "[10, 10, 50, 40]", True, id="a written box, by its overlap"),
        pytest.param(WRITTEN_BOX, "[10, 10, 50, 20]", False, id="a written box, too small"),
        pytest.param(UNKNOWN, "K", None, id="nobody knows what is right"),
        pytest.param(LETTER, "K, R or X", None, id="all of the choices"),
        pytest.param(LETTER, "K", True, id="letter"),
        pytest.param(LETTER, "The letter is K.", True, id="in a sentence"),
        pytest.param(LETTER, "<think>R?</think><answer>K</answer>", True, id="after a thought"),
        pytest.param(LETTER, "R", False, id="another choice"),
        pytest.param(LETTER, "Q", None, id="none of the choices"),
        pytest.param(LETTER, "", None, id="nothing"),
        pytest.param(YES, "Yes.", True, id="yes"),
        pytest.param(YES, "no", False, id="no"),
        pytest.param(OPEN, "no entry!", True, id="open, same words"),
        pytest.param(OPEN, "Entry", False, id="open, other words"),
        pytest.param(
            BOX, '{"bbox_2d": [100, 200, 300, 600], "label": "red square"}', True, id="box"
        ),
        pytest.param(
            BOX, '{"label": "red square", "bbox_2d": [100, 200, 300, 400]}', True, id="half of it"
        ),
        pytest.param(BOX, '{"bbox_2d": [100, 200, 300, 399]}', False, id="less than half"),
        pytest.param(BOX, '{"bbox_2d": [500, 200, 700, 600]}', False, id="elsewhere"),
        pytest.param(BOX, '{"bbox_2d": [300, 600, 100, 200]}', None, id="inside out"),
        pytest.param(BOX, '{"bbox_2d": [1200, 200, 1300, 600]}', None, id="outside"),
        pytest.param(BOX, "on the left", None, id="words for a box"),
    ],
)
def test_grade(item, reply, expected):
    answer = branch(item, reply)
    assert grade(answer, item, mm.ScriptedVLM([])) is expected
    assert correct(answer, item, mm.ScriptedVLM([])) is (expected is True)


def test_a_box_is_read_as_the_family_writes_it():
    # y first, in pixels of the picture as seen (200x100)
    vlm = mm.ScriptedVLM([], traits=mm.Traits(box_format=BoxFormat(order="yxyx", frame=None)))
    answer = branch(BOX, '{"bbox_2d": [20, 20, 60, 60]}')
    assert grade(answer, BOX, vlm) is True
    assert grade(answer, BOX, mm.ScriptedVLM([])) is False
