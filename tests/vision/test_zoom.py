"""Zooming: every path a reply can take through the loop."""

from __future__ import annotations

import json
import math
import re
from functools import partial
from typing import Literal

import numpy as np
import PIL.Image
import pytest

from mm.geometry import BoxFormat, Region
from mm.origins import Cropped
from mm.samples import question
from mm.scripted import ScriptedVLM
from mm.session import run
from mm.trace import Sample, Trace
from mm.types import Image, Sampling, ToolSpec, assistant
from mm.vlm import Traits
from vision.ask_region import NOT_SHOWN
from vision.controls import random_region, shown, true_region
from vision.crop import crop
from vision.draw import draw
from vision.look_loop import NO_MORE, REFUSED
from vision.look_stats import calls, looks, valid_calls
from vision.regions import regions_of
from vision.zoom import zoom
from vision.zoom_tool import ZOOM, ZOOM_TOOL, RegionCall

NOISE = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
PICTURE = Image(PIL.Image.fromarray(NOISE))
OTHER = Image(PIL.Image.fromarray(NOISE[::-1].copy()))
SAMPLE = question("What does the sign say?", PICTURE, id="a sample", target="STOP")
ASKS = Traits(calls_tools=False)
SQUARE = Traits(crop_rule="square")
ENDLESS = "<think>" + "So. " * 20
SHORT = Sampling(max_tokens=40)
CLOSED_AND_OPENED = assistant("\n</think>\n<answer>")


def call(box: object = (100, 200, 300, 400), **more: object) -> str:
    return raw_call({"name": ZOOM, "arguments": {"bbox_2d": box, **more}})


def raw_call(body: object) -> str:
    return f"<tool_call>\n{json.dumps(body)}\n</tool_call>"


def texts(trace: Trace) -> list[str]:
    return [step.message.text for step in trace.best.steps]


def roles(trace: Trace) -> list[str]:
    return [step.message.role for step in trace.best.steps]


def test_a_look_and_an_answer() -> None:
    vlm = ScriptedVLM(["<think>Small.</think>" + call(), "<answer>STOP</answer>"])
    trace = run(zoom, SAMPLE, vlm)
    assert trace.answer == "STOP"
    assert roles(trace) == ["system", "assistant", "tool", "assistant"]
    (seen,) = trace.images
    assert seen == crop(PICTURE, Region(0.1, 0.2, 0.3, 0.4))
    assert vlm.conversations[1][-1].images == (seen,)
    assert vlm.conversations[0][0].parts == (ZOOM_TOOL,)
    assert [s.sampled for s in trace.best.steps] == [False, True, False, True]
    assert regions_of(trace.best) == [(0, seen.origin.region)]  # type: ignore[union-attr]
    assert (looks(trace.best), calls(trace.best), valid_calls(trace.best)) == (1, 1, 1)


def test_an_answer_at_once_is_taken() -> None:
    trace = run(zoom, SAMPLE, ScriptedVLM(["STOP"]))
    assert trace.answer == "STOP"
    assert (looks(trace.best), calls(trace.best)) == (0, 0)


def test_the_prompt_may_offer_the_tool_itself() -> None:
    vlm = ScriptedVLM(["STOP"])
    run(partial(zoom, offer=False), SAMPLE, vlm)
    assert vlm.conversations == [SAMPLE.prompt]


def test_tool_names_the_frame_of_the_family() -> None:
    vlm = ScriptedVLM(["a"], traits=Traits(BoxFormat(key="box_2d", order="yxyx", frame=None)))
    run(zoom, SAMPLE, vlm)
    (spec,) = vlm.conversations[0][0].parts
    assert isinstance(spec, ToolSpec)
    box = spec.parameters["properties"]["box_2d"]["description"]
    assert box == "[y0, x0, y1, x1] in pixels of the image"


def test_boxes_are_in_the_frame_the_model_saw() -> None:
    vlm = ScriptedVLM([call([32, 24, 64, 48]), "b"], traits=Traits(BoxFormat(frame=None)))
    vlm.seen_size = lambda size, kind="overview": (size[0] // 2, size[1] // 2)  # type: ignore[method-assign]
    trace = run(zoom, SAMPLE, vlm)
    assert trace.images == (crop(PICTURE, Region(0.1, 0.1, 0.2, 0.2)),)


BAD = {
    "another tool": (raw_call({"name": "rotate", "arguments": {}}), "'rotate'; the tool is"),
    "not JSON": ("<tool_call>zoom please</tool_call>", "one JSON object"),
    "cut off": ('<tool_call>\n{"name": "image_zoom', "one JSON object"),
    "no box": (raw_call({"name": ZOOM, "arguments": {}}), "four numbers .* got None"),
    "three numbers": (call([1, 2, 3]), r"four numbers \[x0, y0, x1, y1\], got \[1, 2, 3\]"),
    "five numbers": (call([1, 2, 3, 4, 5]), "four numbers"),
    "words": (call(["a", 2, 3, 4]), "four numbers"),
    "truths": (call([True, 2, 3, 4]), "four numbers"),
    "a text": (call("1, 2, 3, 4"), r"four numbers .* got '1, 2, 3, 4'"),
    "NaN": (call([math.nan, 2, 3, 4]), r"finite numbers, got \[nan, 2, 3, 4\]"),
    "infinite": (call([1, 2, math.inf, 4]), "finite numbers"),
    "huge": (call([1, 2, 10**400, 4]), "finite numbers"),
    "empty": (call([300, 200, 300, 400]), r"x0 < x1 and y0 < y1, got \[300, 200, 300, 400\]"),
    "outside": (call([1100, 0, 1200, 100]), r"0 to 1000 across .* got \[1100, 0, 1200, 100\]"),
    "no such picture": (call(img_idx=7), '"img_idx" must be a whole number from 0 to 0, got 7'),
    "negative picture": (call(img_idx=-1), "from 0 to 0, got -1"),
    "half a picture": (call(img_idx=0.5), "whole number"),
    "a picture's name": (call(img_idx="the first"), "whole number .* got 'the first'"),
    "long": (call(list(range(60))), r"12, 13.*\.\.\."),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_call_is_told_what_is_wrong(name: str) -> None:
    reply, error = BAD[name]
    trace = run(zoom, SAMPLE, ScriptedVLM([reply, call(), "STOP"]))
    told = trace.best.steps[2].message
    assert told.role == "tool"
    assert told.images == ()
    assert len(told.text) < 250
    assert re.search(error, told.text), told.text
    assert trace.answer == "STOP"
    assert (looks(trace.best), calls(trace.best), valid_calls(trace.best)) == (1, 2, 1)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        pytest.param([-100, 0, 1500, 500], Region(0, 0, 1, 0.5), id="overshoots: clipped"),
        pytest.param([100.0, 200.5, 300, 400], Region(0.1, 0.2005, 0.3, 0.4), id="floats"),
        pytest.param([500, 500, 500.5, 501], Region(0.5, 0.5, 0.5005, 0.501), id="thin: grown"),
    ],
)
def test_odd_boxes_are_shown(box: list[float], expected: Region) -> None:
    trace = run(zoom, SAMPLE, ScriptedVLM([call(box), "STOP"]))
    assert trace.images == (crop(PICTURE, expected),)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(call(img_idx=None), id="no image named"),
        pytest.param(call(img_idx="0"), id="a number in quotes"),
        pytest.param(call(["100", "200", "300", "400"]), id="numbers in quotes"),
        pytest.param(call("[100, 200, 300, 400]"), id="a box as text"),
        pytest.param(call([300, 400, 100, 200]), id="corners swapped"),
        pytest.param(call([300, 200, 100, 400]), id="one axis swapped"),
    ],
)
@pytest.mark.parametrize("layout", ["tool", "inline"])
def test_calls_whose_meaning_is_plain_are_read(
    reply: str, layout: Literal["tool", "inline"]
) -> None:
    body = json.loads(reply[reply.index("{") : reply.rindex("}") + 1])["arguments"]
    said = [reply, "STOP"] if layout == "tool" else [json.dumps(body), "<answer>STOP</answer>"]
    trace = run(partial(zoom, layout=layout), SAMPLE, ScriptedVLM(said))
    assert trace.images == (crop(PICTURE, Region(0.1, 0.2, 0.3, 0.4)),)


def test_the_same_crop_is_not_shown_twice() -> None:
    trace = run(zoom, SAMPLE, ScriptedVLM([call(), call(), "STOP"]))
    assert "already shown" in texts(trace)[4]
    assert (looks(trace.best), calls(trace.best), valid_calls(trace.best)) == (1, 2, 1)


@pytest.mark.parametrize("traits", [Traits(), SQUARE], ids=["vlm_r3", "square"])
@pytest.mark.parametrize(
    "again",
    [
        pytest.param([call(), call()], id="in one reply"),
        pytest.param([call(), call(), call()], id="again and again"),
        pytest.param([call(), call([0, 0, 1000, 1000], img_idx=1)], id="the crop, whole"),
    ],
)
def test_nothing_is_shown_twice_however_it_is_asked_for(traits: Traits, again: list[str]) -> None:
    trace = run(zoom, SAMPLE, ScriptedVLM(["".join(again), "STOP"], traits=traits))
    if traits == Traits() or "img_idx" not in again[-1]:
        assert looks(trace.best) == 1
        assert "already shown" in texts(trace)[3]
    assert len({image.origin for image in trace.images}) == len(trace.images)
    assert trace.answer == "STOP"


def test_a_region_refused_once_may_be_followed_by_another() -> None:
    trace = run(zoom, SAMPLE, ScriptedVLM([call(), call(), call([500, 500, 700, 700]), "STOP"]))
    assert [image.origin.region.x0 for image in trace.images] == pytest.approx(  # type: ignore[union-attr]
        [0.1, 0.5], abs=0.01
    )
    assert (looks(trace.best), calls(trace.best), valid_calls(trace.best)) == (2, 3, 2)


def test_img_idx_counts_the_prompt_first() -> None:
    sample = question("Which?", PICTURE, OTHER)
    trace = run(zoom, sample, ScriptedVLM([call(img_idx=1), call(img_idx=0), "b"]))
    assert [i.origin.parent for i in trace.images] == [OTHER.id, PICTURE.id]  # type: ignore[union-attr]
    assert [index for index, _ in regions_of(trace.best)] == [1, 0]


@pytest.mark.parametrize("traits", [Traits(), SQUARE], ids=["vlm_r3", "square"])
def test_a_crop_of_a_crop_has_the_originals_pixels(traits: Traits) -> None:
    vlm = ScriptedVLM(
        [call([0, 0, 500, 500]), call([500, 500, 1000, 1000], img_idx=1), "b"], traits=traits
    )
    trace = run(zoom, SAMPLE, vlm)
    first, second = trace.images
    assert isinstance(first.origin, Cropped)
    inner = Region(0.5, 0.5, 1, 1).within(first.origin.region)
    if traits == SQUARE:  # the first view is 390 pixels wide: nothing of the picture was left out
        assert first.size == second.size == (128, 128)
    assert second == crop(PICTURE, inner, rule=traits.crop_rule)
    assert second.origin.parent == PICTURE.id  # type: ignore[union-attr]
    assert regions_of(trace.best)[1] == (0, second.origin.region)  # type: ignore[union-attr]


def test_crops_of_crops_of_the_second_picture_lead_back_to_it() -> None:
    sample = question("Which?", PICTURE, OTHER)
    deeper = [call([0, 0, 500, 500], img_idx=k) for k in (1, 2, 3)]
    trace = run(zoom, sample, ScriptedVLM([*deeper, "b"]))
    wanted = Region(0, 0, 1, 1)
    for image in trace.images:
        assert isinstance(image.origin, Cropped)
        wanted = Region(0, 0, 0.5, 0.5).within(wanted)
        assert image == crop(OTHER, wanted)
        wanted = image.origin.region
    assert [index for index, _ in regions_of(trace.best)] == [1, 1, 1]


def test_a_box_in_the_grey_beside_the_picture_shows_nothing() -> None:
    wide = question("q", Image(PIL.Image.fromarray(NOISE[:100])))
    vlm = ScriptedVLM(
        [call([0, 0, 1000, 1000]), call([0, 0, 900, 100], img_idx=1), "b"], traits=SQUARE
    )
    trace = run(zoom, wide, vlm)
    assert "outside the picture" in texts(trace)[4]


def test_the_last_look_says_so_and_the_answer_is_forced() -> None:
    vlm = ScriptedVLM([call(), call([0, 0, 500, 500]), "STOP"])
    trace = run(partial(zoom, max_looks=2), SAMPLE, vlm)
    assert NO_MORE not in texts(trace)[2]
    assert NO_MORE in texts(trace)[4]
    assert trace.answer == "STOP"


@pytest.mark.parametrize(
    "replies",
    [
        pytest.param([call(), call()], id="a repeated crop"),
        pytest.param([call([1, 2, 3]), call([3, 2, 1, 4])], id="bad boxes"),
        pytest.param([call([1, 2, 3]) + call([3, 2, 1, 4])], id="in one reply"),
    ],
)
def test_looks_that_showed_nothing_count_towards_the_most(replies: list[str]) -> None:
    vlm = ScriptedVLM([*replies, "STOP"])
    trace = run(partial(zoom, max_looks=2), SAMPLE, vlm)
    assert texts(trace)[-2].endswith(NO_MORE)
    assert trace.answer == "STOP"
    assert len(vlm.conversations) == len(replies) + 1


def test_no_look_at_all_is_answered_without_a_call() -> None:
    trace = run(partial(zoom, max_looks=0), SAMPLE, ScriptedVLM(["STOP"]))
    assert (trace.answer, calls(trace.best)) == ("STOP", 0)


@pytest.mark.parametrize("words", ["", "Let me look."])
def test_one_who_calls_to_the_end_has_no_answer(words: str) -> None:
    trace = run(partial(zoom, max_looks=1), SAMPLE, ScriptedVLM([call(), words + call()]))
    assert trace.answer is None
    assert trace.best.steps[-1].message == REFUSED
    assert (looks(trace.best), calls(trace.best), valid_calls(trace.best)) == (1, 2, 1)


def test_several_calls_in_one_reply_are_all_answered() -> None:
    both = call() + "\n" + call([0, 0, 500, 500]) + "\n" + call([0, 0, 50, 50])
    trace = run(partial(zoom, max_looks=2), SAMPLE, ScriptedVLM([both, "STOP"]))
    assert roles(trace)[2:5] == ["tool"] * 3
    assert (looks(trace.best), calls(trace.best), valid_calls(trace.best)) == (2, 3, 2)
    assert trace.answer == "STOP"


def test_looking_ends_when_the_visual_tokens_are_spent() -> None:
    vlm = ScriptedVLM([call(), "STOP"])
    trace = run(partial(zoom, look_tokens=10), SAMPLE, vlm)
    assert NO_MORE in texts(trace)[2]
    assert trace.answer == "STOP"


def test_a_reply_cut_off_while_thinking_is_asked_for_its_answer() -> None:
    trace = run(zoom, SAMPLE, ScriptedVLM([ENDLESS, "STOP"]), sampling=SHORT)
    assert trace.best.steps[2].message == CLOSED_AND_OPENED
    assert trace.answer == "STOP"
    assert calls(trace.best) == 0


def test_a_cancelled_reply_ends_it() -> None:
    vlm = ScriptedVLM([call(), "never asked"])
    trace = run(zoom, SAMPLE, vlm, cancel=lambda: len(vlm.conversations) == 1)
    assert roles(trace) == ["system", "assistant"]


# inline: VLM-R3's own format


@pytest.mark.parametrize(
    ("boxes", "told"),
    [
        pytest.param(
            BoxFormat(frame=None), '{"bbox_2d": [x1, y1, x2, y2]}. Write', id="the paper's"
        ),
        pytest.param(
            BoxFormat("box_2d", "yxyx"),
            '{"box_2d": [y1, x1, y2, x2]} in 0 to 1000 across and 0 to 1000 down the image. Write',
            id="the other order",
        ),
    ],
)
def test_inline_boxes_are_asked_for_as_they_are_read(boxes: BoxFormat, told: str) -> None:
    written = boxes.write(Region(0.1, 0.2, 0.3, 0.4), PICTURE.size)
    reply = f'<think>{{"{boxes.key}": {[round(number) for number in written]}}}'
    vlm = ScriptedVLM([reply, "<answer>STOP</answer>"], traits=Traits(box_format=boxes))
    trace = run(partial(zoom, layout="inline"), SAMPLE, vlm)
    assert told in vlm.conversations[0][-1].text
    assert trace.images == (crop(PICTURE, Region(0.1, 0.2, 0.3, 0.4)),)


def test_inline_crops_stand_in_the_same_turn() -> None:
    box = '<think>The sign. {"bbox_2d": [100, 200, 300, 400]}'
    vlm = ScriptedVLM([box, "It says stop.</think><answer>STOP</answer>"])
    trace = run(partial(zoom, layout="inline"), SAMPLE, vlm)
    assert roles(trace) == ["user", "assistant", "assistant", "assistant"]
    assert trace.images == (crop(PICTURE, Region(0.1, 0.2, 0.3, 0.4)),)
    assert trace.answer == "STOP"
    assert "]}" in vlm.samplings[0].stop
    assert [s.sampled for s in trace.best.steps] == [False, True, False, True]
    assert (looks(trace.best), calls(trace.best), valid_calls(trace.best)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        pytest.param('{"bbox_2d": [300, 200, 300, 400]}', "x0 < x1", id="empty"),
        pytest.param('{"bbox_2d": [300, 200, oops]}', "JSON", id="not JSON"),
        pytest.param('"bbox_2d": [300, 200', "JSON", id="cut off"),
    ],
)
def test_inline_never_shows_the_previous_crop_again(reply: str, error: str) -> None:
    good = '{"bbox_2d": [100, 200, 300, 400]}'
    trace = run(
        partial(zoom, layout="inline"), SAMPLE, ScriptedVLM([good, reply, "<answer>x</answer>"])
    )
    assert error in texts(trace)[4]
    assert (looks(trace.best), calls(trace.best), valid_calls(trace.best)) == (1, 2, 1)
    assert trace.answer == "x"


def test_inline_does_not_show_the_same_crop_twice() -> None:
    good = '{"bbox_2d": [100, 200, 300, 400]}'
    vlm = ScriptedVLM([good, good, "<answer>x</answer>"])
    trace = run(partial(zoom, layout="inline"), SAMPLE, vlm)
    assert "already shown" in texts(trace)[4]
    assert (looks(trace.best), valid_calls(trace.best), trace.answer) == (1, 1, "x")


def test_inline_names_a_picture_and_a_crop_of_it() -> None:
    sample = question("Which?", PICTURE, OTHER)
    first = '{"bbox_2d": [0, 0, 500, 500], "img_idx": 1}'
    second = '{"bbox_2d": [0, 0, 500, 500], "img_idx": 2}'
    vlm = ScriptedVLM([first, second, "<answer>x</answer>"])
    trace = run(partial(zoom, layout="inline"), sample, vlm)
    assert [image.origin.parent for image in trace.images] == [OTHER.id, OTHER.id]  # type: ignore[union-attr]
    outer, inner = (region for _, region in regions_of(trace.best))
    assert (inner.x1, inner.y1) == pytest.approx((outer.x1 / 2, outer.y1 / 2), abs=0.01)


def test_inline_last_look_opens_the_answer() -> None:
    good = '{"bbox_2d": [100, 200, 300, 400]}'
    vlm = ScriptedVLM([good, '{"bbox_2d": [1, 2, 3, 4]}', "</answer>"])
    trace = run(partial(zoom, layout="inline", max_looks=1), SAMPLE, vlm)
    assert trace.answer == '{"bbox_2d": [1, 2, 3, 4]}'
    assert calls(trace.best) == 1


def test_inline_reply_cut_off_is_forced_to_answer() -> None:
    vlm = ScriptedVLM([ENDLESS, "STOP</answer>"])
    trace = run(partial(zoom, layout="inline"), SAMPLE, vlm, sampling=SHORT)
    assert trace.best.steps[2].message == CLOSED_AND_OPENED
    assert trace.answer == "STOP"
    assert calls(trace.best) == 0


def test_inline_box_as_the_answer_is_no_call() -> None:
    vlm = ScriptedVLM(['<answer>{"bbox_2d": [1, 2, 3, 4]}', "</answer>"])
    trace = run(partial(zoom, layout="inline"), SAMPLE, vlm)
    assert trace.answer == '{"bbox_2d": [1, 2, 3, 4]}'


LISTED = '<think>It carries {"letters": ["K", "L"]}'


@pytest.mark.parametrize(
    "replies",
    [
        pytest.param([LISTED, ", so K.</think><answer>K</answer>"], id="an object in a thought"),
        pytest.param(
            ['<think>A "bbox_2d"? {"a": [1]}', "</think><answer>K</answer>"],
            id="a box's key before",
        ),
        pytest.param([LISTED, ' and {"n": [1]}', "</think><answer>K</answer>"], id="twice"),
        pytest.param(['<answer>{"letters": ["K"]}', "</answer>"], id="in the answer"),
    ],
)
def test_inline_goes_on_after_a_pause_that_asks_for_nothing(replies: list[str]) -> None:
    vlm = ScriptedVLM(replies)
    trace = run(partial(zoom, layout="inline"), SAMPLE, vlm)
    assert trace.error is None
    assert "K" in str(trace.answer)
    assert len(vlm.conversations) == len(replies)
    assert calls(trace.best) == 0


def test_inline_pauses_share_the_tokens_of_one_reply() -> None:
    vlm = ScriptedVLM([LISTED, LISTED, LISTED, "K</answer>"])
    limit = Sampling(max_tokens=3 * len(LISTED))
    trace = run(partial(zoom, layout="inline"), SAMPLE, vlm, sampling=limit)
    assert [s.max_tokens for s in vlm.samplings[:3]] == [len(LISTED) * n for n in (3, 2, 1)]
    assert trace.best.steps[-2].message == CLOSED_AND_OPENED
    assert trace.answer == "K"


def test_inline_thoughts_after_a_look_are_no_reply() -> None:
    box = '<think>The sign. {"bbox_2d": [100, 200, 300, 400]}'
    vlm = ScriptedVLM([box, "It says stop, I think.", "STOP</answer>"])
    trace = run(partial(zoom, layout="inline"), SAMPLE, vlm)
    assert (trace.reply, trace.answer) == ("STOP", "STOP")
    assert trace.best.steps[-2].message == CLOSED_AND_OPENED


SEVERAL = ["<answer>STOP</answer>"]


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(call() + call([500, 500, 700, 700]), id="two tags"),
        pytest.param(
            "<tool_call>\n"
            + json.dumps({"name": ZOOM, "arguments": {"bbox_2d": [100, 200, 300, 400]}})
            + "\n"
            + json.dumps({"name": ZOOM, "arguments": {"bbox_2d": [500, 500, 700, 700]}})
            + "\n</tool_call>",
            id="two objects in one tag",
        ),
    ],
)
def test_two_calls_are_two_looks(reply: str) -> None:
    trace = run(zoom, SAMPLE, ScriptedVLM([reply, *SEVERAL]))
    assert (looks(trace.best), calls(trace.best), valid_calls(trace.best)) == (2, 2, 2)


def test_a_raw_line_break_in_a_label_is_read() -> None:
    trace = run(
        zoom, SAMPLE, ScriptedVLM([call(label="the\x00sign").replace("\\u0000", "\n"), "S"])
    )
    assert (looks(trace.best), valid_calls(trace.best)) == (1, 1)
    box = '<think>{"label": "the\nsign", "bbox_2d": [100, 200, 300, 400]}'
    inline = ScriptedVLM([box, "</think><answer>S</answer>"])
    trace = run(partial(zoom, layout="inline"), SAMPLE, inline)
    assert (looks(trace.best), valid_calls(trace.best)) == (1, 1)


# the same pixels twice in a prompt

TWICE = question("Are they the same?", PICTURE, Image(PICTURE.pixels.copy()))


def test_a_look_at_each_of_two_equal_images_is_its_own() -> None:
    vlm = ScriptedVLM([call(img_idx=1), call(img_idx=0), call(img_idx=1), "yes"])
    trace = run(zoom, TWICE, vlm)
    assert [index for index, _ in regions_of(trace.best)] == [1, 0]
    assert "already shown" in texts(trace)[6]


def test_a_crop_of_a_crop_of_the_second_leads_back_to_it() -> None:
    vlm = ScriptedVLM([call(img_idx=1), call([0, 0, 500, 500], img_idx=2), "yes"])
    trace = run(zoom, TWICE, vlm)
    assert [index for index, _ in regions_of(trace.best)] == [1, 1]


def test_looks_are_drawn_on_the_image_that_was_looked_at() -> None:
    trace = run(zoom, TWICE, ScriptedVLM([call(img_idx=1), "yes"]))
    first, second = (draw(image, trace.best) for image in trace.sample.images)
    assert first.tobytes() == PICTURE.pixels.tobytes()
    assert second.tobytes() != PICTURE.pixels.tobytes()


# replies that say nothing

THOUGHT = "<think>It is K.</think>"


@pytest.mark.parametrize("empty", ["", THOUGHT, "<think>It is K.", " \n"])
@pytest.mark.parametrize("before", [[], [call()]], ids=["at once", "after a look"])
def test_a_reply_that_says_nothing_is_opened_for_its_answer(before: list[str], empty: str) -> None:
    trace = run(zoom, SAMPLE, ScriptedVLM([*before, empty, "K</answer>"]))
    assert (trace.reply, trace.answer, trace.error) == ("K", "K", None)
    assert calls(trace.best) == len(before)


@pytest.mark.parametrize("strategy", [partial(zoom, max_looks=1), partial(zoom, max_looks=0)])
def test_the_last_reply_is_opened_too(strategy) -> None:
    before = [call()] * strategy.keywords["max_looks"]
    trace = run(strategy, SAMPLE, ScriptedVLM([*before, THOUGHT, "K</answer>"]))
    assert (trace.reply, trace.answer) == ("K", "K")


def test_what_was_cut_before_its_answer_stays_in_the_reply() -> None:
    words = "word " * 60
    trace = run(zoom, SAMPLE, ScriptedVLM([words, "K</answer>"]), sampling=Sampling(max_tokens=299))
    assert trace.reply.split() == [*words[:299].split(), "K"]
    assert trace.best.finish == "length"
    assert trace.answer == "K"


@pytest.mark.parametrize("replies", [[THOUGHT], ['{"bbox_2d": [100, 200, 300, 400]}', THOUGHT]])
def test_two_steps_open_the_answer_too(replies: list[str]) -> None:
    asked = SAMPLE if len(replies) > 1 else question("Two and two?")
    trace = run(zoom, asked, ScriptedVLM([*replies, "K</answer>"], traits=ASKS))
    assert trace.answer == "K"


# two steps, for models that call no tools


def test_two_steps_ask_where_then_show() -> None:
    vlm = ScriptedVLM(['{"bbox_2d": [100, 200, 300, 400]}', "STOP"], traits=ASKS)
    trace = run(zoom, SAMPLE, vlm)
    assert roles(trace) == ["user", "assistant", "user", "assistant"]
    assert trace.images == (crop(PICTURE, Region(0.1, 0.2, 0.3, 0.4)),)
    assert trace.answer == "STOP"
    assert '{"bbox_2d": [x0, y0, x1, y1]}' in texts(trace)[0]
    assert (looks(trace.best), calls(trace.best), valid_calls(trace.best)) == (1, 1, 1)


def test_two_steps_name_the_picture() -> None:
    sample = question("Which?", PICTURE, OTHER)
    where = '{"bbox_2d": [100, 200, 300, 400], "img_idx": 1}'
    trace = run(zoom, sample, ScriptedVLM([where, "b"], traits=ASKS))
    assert '"img_idx": n}, n from 0 to 1' in texts(trace)[0]
    assert trace.images == (crop(OTHER, Region(0.1, 0.2, 0.3, 0.4)),)


@pytest.mark.parametrize("reply", ["On the left.", '{"bbox_2d": [1, 2, 3, 4], "img_idx": 5}'])
def test_two_steps_without_a_box_answer_without_a_crop(reply: str) -> None:
    trace = run(zoom, SAMPLE, ScriptedVLM([reply, "STOP"], traits=ASKS))
    assert trace.best.steps[2].message == NOT_SHOWN
    assert trace.answer == "STOP"
    assert (looks(trace.best), calls(trace.best), valid_calls(trace.best)) == (0, 1, 0)


def test_two_steps_without_a_look_show_nothing() -> None:
    vlm = ScriptedVLM(['{"bbox_2d": [100, 200, 300, 400]}', "STOP"], traits=ASKS)
    trace = run(partial(zoom, max_looks=0), SAMPLE, vlm)
    assert trace.best.steps[2].message == NOT_SHOWN
    assert trace.images == ()


def test_two_steps_take_where_to_look_from_elsewhere() -> None:
    vlm = ScriptedVLM(["STOP"], traits=ASKS)
    trace = run(partial(zoom, ground=lambda s: RegionCall(0, Region(0, 0, 0.5, 0.5))), SAMPLE, vlm)
    assert trace.images == (crop(PICTURE, Region(0, 0, 0.5, 0.5)),)


def test_a_question_without_pictures_is_only_asked() -> None:
    trace = run(zoom, question("Two and two?"), ScriptedVLM(["4"], traits=ASKS))
    assert roles(trace) == ["assistant"]


def test_force_asks_one_who_answered_at_once() -> None:
    replies = ["GO", '{"bbox_2d": [100, 200, 300, 400]}', "STOP"]
    trace = run(partial(zoom, force=True), SAMPLE, ScriptedVLM(replies))
    assert trace.answer == "STOP"
    assert (looks(trace.best), calls(trace.best), valid_calls(trace.best)) == (1, 1, 1)


def test_force_leaves_one_alone_who_looked() -> None:
    trace = run(partial(zoom, force=True), SAMPLE, ScriptedVLM([call(), "STOP"]))
    assert trace.answer == "STOP"


# controls


@pytest.mark.parametrize("asked", [Region(0.1, 0.2, 0.3, 0.4), Region(0.4, 0.4, 0.6, 0.6)])
def test_random_region_is_elsewhere_of_the_same_size_and_repeats(asked: Region) -> None:
    region = random_region(SAMPLE, asked)
    assert region == random_region(SAMPLE, asked)
    assert region != random_region(SAMPLE, asked, seed=1)
    assert region != random_region(Sample("other", ()), asked)
    assert (region.x1 - region.x0, region.y1 - region.y0) == pytest.approx((0.2, 0.2))
    assert (
        region.x1 <= asked.x0
        or region.x0 >= asked.x1
        or region.y1 <= asked.y0
        or region.y0 >= asked.y1
    )


def test_random_region_of_the_whole_is_the_whole() -> None:
    assert random_region(SAMPLE, Region(0, 0, 1, 1)) == Region(0, 0, 1, 1)


def test_zoom_shows_the_region_the_control_chose() -> None:
    sign = Region(0.5, 0.5, 0.6, 0.6)
    chosen = partial(true_region, region_of=lambda sample: sign)
    trace = run(partial(zoom, choose_region=chosen), SAMPLE, ScriptedVLM([call(), "STOP"]))
    assert trace.images == (crop(PICTURE, sign),)
    trace = run(partial(zoom, choose_region=random_region), SAMPLE, ScriptedVLM([call(), "STOP"]))
    assert trace.images == (crop(PICTURE, random_region(SAMPLE, Region(0.1, 0.2, 0.3, 0.4))),)


@pytest.mark.parametrize("traits", [Traits(), ASKS], ids=["tool", "two steps"])
def test_shown_puts_the_call_into_the_models_mouth(traits: Traits) -> None:
    vlm = ScriptedVLM(["STOP"], traits=traits)
    trace = run(partial(shown, region_of=lambda s: Region(0.1, 0.2, 0.3, 0.4)), SAMPLE, vlm)
    asked = run(
        zoom,
        SAMPLE,
        ScriptedVLM(
            [call(label="object"), "STOP"]
            if traits.calls_tools
            else ['{"bbox_2d": [100, 200, 300, 400]}', "STOP"],
            traits=traits,
        ),
    )
    assert [s.message.parts for s in trace.best.steps] == [
        s.message.parts for s in asked.best.steps
    ]
    assert [s.sampled for s in trace.best.steps] == [False, False, False, True]
    assert (looks(trace.best), calls(trace.best)) == (1, 0)


def test_shown_refuses_another_call() -> None:
    strategy = partial(shown, region_of=lambda s: Region(0.1, 0.2, 0.3, 0.4))
    trace = run(strategy, SAMPLE, ScriptedVLM([call([1, 2, 30, 40]), "STOP"]))
    assert trace.answer == "STOP"
    assert looks(trace.best) == 1
