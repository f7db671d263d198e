"""The sheet of wrong answers."""

from __future__ import annotations

from evaluation_items import GRADIENT, LEFT, item
from PIL import Image as pil

import mm
from training.evaluation.controls import Condition
from training.evaluation.error_sheet import ErrorSheet
from training.evaluation.evaluate import evaluate
from training.evaluation.tasks import Item
from vision.zoom import zoom


def test_errors_are_shown_in_turn_and_controls_are_not(tmp_path):
    seen = ErrorSheet()
    wrong = {"direct": Condition("direct", mm.direct), "zoom": Condition("zoom", zoom)}
    for condition in wrong.values():
        asked = [item(str(i)) for i in range(12)]
        watch = seen.watch("read", condition)
        list(evaluate(condition, asked, mm.ScriptedVLM(["K", *["R"] * 11]), threads=1, watch=watch))
    chosen = [(m.condition.name, m.item.sample.id) for m in seen.chosen()]
    assert chosen == [(name, str(i)) for i in range(1, 6) for name in ("direct", "zoom")]
    assert seen.chosen()[0].caption() == "direct: Which letter? True: K. Said: R."
    assert seen.watch("read", Condition("zoom", zoom, "blind")) is None
    assert seen.save(tmp_path / "errors.png", mm.ScriptedVLM([])) == 10
    with pil.open(tmp_path / "errors.png") as sheet:
        assert sheet.width > 5 * 320


def test_errors_of_locate_show_both_boxes():
    vlm = mm.ScriptedVLM(['{"bbox_2d": [500, 500, 700, 700], "label": "x"}'])
    place = Item(mm.question("Where?", GRADIENT, target="..."), box=LEFT)
    seen = ErrorSheet()
    condition = Condition("direct", mm.direct)
    list(evaluate(condition, [place], vlm, threads=1, watch=seen.watch("locate", condition)))
    (mistake,) = seen.chosen()
    drawn = mistake.image(vlm)
    assert drawn is not None
    # both frames, on an image that is grey
    for x, y in ((64, 100), (448 - 64, 320 + 1)):
        red, green, blue = drawn.crop((x, y, x + 1, y + 1)).split()
        assert len({red.tobytes(), green.tobytes(), blue.tobytes()}) > 1


def test_no_errors_write_nothing(tmp_path):
    assert ErrorSheet().save(tmp_path / "errors.png", mm.ScriptedVLM([])) == 0
    assert not (tmp_path / "errors.png").exists()
