"""Actions: what each gives, how calls are read, and the loop around them."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Literal

import numpy as np
import PIL.Image
import pytest
from images import noise

from mm.errors import CannotScore, ModelError, ModelUnavailable
from mm.geometry import BoxFormat, Region
from mm.origins import Cropped, Drawn
from mm.samples import question
from mm.scripted import ScriptedVLM
from mm.session import Session, run
from mm.trace import Trace
from mm.trace_store import load_traces, save_traces
from mm.types import Image, Message, Sampling, ToolSpec
from mm.vlm import Traits
from vision.act import act
from vision.action_schema import Action, Point, Seen, tool_of
from vision.actions import ACTIONS, actions_with, crop, enhance, mark, visual_search
from vision.crop import crop as enlarged
from vision.depth import depth_map as map_of
from vision.grounding import Grounded
from vision.look_loop import NO_MORE
from vision.zoom_tool import BadCall

PHOTO, OTHER = noise(1, (640, 480)), noise(2, (320, 240))
SAMPLE = question("What does it say?", PHOTO)
PAIR = question("Which?", PHOTO, OTHER)
BOX = [100, 200, 300, 400]
REGION = Region(0.1, 0.2, 0.3, 0.4)


def call(name: str, **arguments: object) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def observed(reply: str, *, sample=SAMPLE, actions=ACTIONS, before=()) -> Message:
    """What the call in `reply` is answered with."""
    vlm = ScriptedVLM([*before, reply, "done"])
    trace = run(partial(act, actions=actions), sample, vlm)
    assert trace.error is None
    at = 2 + 2 * len(before)
    return trace.best.steps[at].message


def grey(image: Image) -> Image:
    """Show an image without its colours.

    It has two paragraphs.
    """
    return Image(image.pixels.convert("L").convert("RGB"), Drawn(image.id, "grey"))


def first_lines(image: Image) -> list[Grounded]:
    return [Grounded(Region(0.25, 0.5, 0.5, 0.75), "STOP")]


def slope(image: Image):
    return map_of(np.linspace(1, 2, 12, dtype=np.float32).reshape(3, 4), "metric")


# --- schema -------------------------------------------------------------------------------------


def test_a_schema_is_made_from_types_and_docstring() -> None:
    def spot(
        session: Session,
        image: Image,
        box: Region,
        dots: list[Point] | None = None,
        how: Literal["a", "b"] = "a",
        many: list[str] | None = None,
        *,
        secret: int = 3,
    ) -> Seen:
        """Spot it
        somewhere.

        Args:
            box: where
                to look.
            many: words.
        """
        return "x"

    tool = tool_of(spot, BoxFormat())
    assert tool.name == "spot"
    assert tool.description.startswith("Spot it somewhere. Boxes")
    properties = tool.parameters["properties"]
    assert list(properties) == ["img_idx", "bbox_2d", "dots", "how", "many"]
    assert properties["bbox_2d"]["description"].startswith(
        "where to look; [x0, y0, x1, y1] in 0 to"
    )
    assert properties["dots"]["items"]["maxItems"] == 2
    assert properties["how"] == {"enum": ["a", "b"]}
    assert properties["many"] == {
        "type": "array",
        "items": {"type": "string"},
        "description": "words",
    }
    assert tool.parameters["required"] == ["bbox_2d"]
    assert "secret" not in json.dumps(tool.json)


def test_the_family_names_boxes() -> None:
    tool = tool_of(crop, BoxFormat(key="box_2d", order="yxyx", frame=None))
    box = tool.parameters["properties"]["box_2d"]
    assert box["description"] == "[y0, x0, y1, x1] in pixels of the image"


def no_words(image: Image) -> Image:
    return image


def odd_type(image: Image, when: complex) -> Image:
    """Odd."""
    return image


def box_alone(box: Region) -> str:
    """A box in no image."""
    return ""


@pytest.mark.parametrize(
    ("action", "complaint"),
    [
        pytest.param(no_words, "no_words has no docstring", id="no docstring"),
        pytest.param(odd_type, "odd_type: parameter when", id="a type no schema has"),
        pytest.param(box_alone, "parameter box", id="a box in no image"),
    ],
)
def test_what_cannot_be_offered_is_refused(action: Action, complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        tool_of(action, BoxFormat())


@pytest.mark.parametrize("action", actions_with(estimate=slope, reader=first_lines))
def test_every_schema_is_json_and_says_what_it_does(action: Action) -> None:
    tool = tool_of(action, BoxFormat())
    assert json.loads(json.dumps(tool.json)) == tool.json
    assert tool.description


def test_models_are_offered_only_what_there_is() -> None:
    vlm = ScriptedVLM(["done"])
    run(act, SAMPLE, vlm)
    offered = [p.name for p in vlm.conversations[0][0].parts if isinstance(p, ToolSpec)]
    assert offered == [
        "zoom_in", "crop", "visual_search", "mark", "enhance", "locate", "compare", "terminate",
    ]  # fmt: skip
    more = actions_with(estimate=slope, reader=first_lines)
    assert [tool_of(a, BoxFormat()).name for a in more[-2:]] == ["depth_map", "read_text"]


# --- reading calls ------------------------------------------------------------------------------

CROPPED = enlarged(PHOTO, REGION)
BODY = json.dumps({"name": "zoom_in", "arguments": {"bbox_2d": BOX}})
ZOOM = f"<tool_call>\n{BODY}\n</tool_call>"


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(ZOOM, id="as offered"),
        pytest.param(call("zoom_in", bbox_2d=BOX, img_idx=0), id="image named"),
        pytest.param(call("zoom_in", bbox_2d=BOX, img_idx="0"), id="a number in quotes"),
        pytest.param(call("zoom_in", bbox_2d=BOX, img_idx=None), id="null"),
        pytest.param(call("zoom_in", bbox_2d=[300, 400, 100, 200]), id="corners swapped"),
        pytest.param(call("zoom_in", bbox_2d=[300, 200, 100, 400]), id="one axis swapped"),
        pytest.param(call("zoom_in", bbox_2d="[100, 200, 300, 400]"), id="box as text"),
        pytest.param(call("zoom_in", bbox_2d=["100", "200", "300", "400"]), id="quoted numbers"),
        pytest.param(call("zoom_in", bbox=BOX), id="another family's key"),
        pytest.param(call("zoom_in", bbox_2d=BOX, label="the sign"), id="a label"),
        pytest.param(call("image_zoom_in_tool", bbox_2d=BOX, label="x"), id="Qwen's tool"),
        pytest.param(
            call("crop_image_normalized", bbox_2d=[0.1, 0.2, 0.3, 0.4], target_image=1),
            id="Pixel-Reasoner's tool",
        ),
        pytest.param(ZOOM.replace("\n</tool_call>", " I look.\n</tool_call>"), id="text after"),
        pytest.param(ZOOM.replace("\n</tool_call>", " Looking"), id="text, not closed"),
        pytest.param(ZOOM.replace("\n</tool_call>", " [I look] {so}"), id="text in brackets"),
        pytest.param(f"<tool_call>[{BODY}] done</tool_call>", id="a list, text after"),
        pytest.param(f"<tool_call>\n```json\n{BODY}\n```\n</tool_call>", id="a fence"),
        pytest.param(f"<tool_call>``` {BODY}```", id="a fence, not closed"),
        pytest.param(
            f'<tool_call>{BODY[:-2]}, "label": "a\nb"}}}} done</tool_call>',
            id="a raw line break, text after",
        ),
    ],
)
def test_calls_whose_meaning_is_plain_are_read(reply: str) -> None:
    assert observed(reply).parts == (CROPPED,)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        pytest.param(call("draw", bbox_2d=BOX), "no tool 'draw'; the tools are zoom_in", id="name"),
        pytest.param("<tool_call>zoom!</tool_call>", "one JSON object", id="not JSON"),
        pytest.param(call("zoom_in"), 'zoom_in needs "bbox_2d"', id="no box"),
        pytest.param(call("zoom_in", bbox_2d=[1, 2, 3]), "four numbers", id="three numbers"),
        pytest.param(call("zoom_in", bbox_2d=[5, 5, 5, 9]), "x0 < x1", id="empty"),
        pytest.param(call("zoom_in", bbox_2d=[1e400, 5, 5, 9]), "finite", id="infinite"),
        pytest.param(call("zoom_in", bbox_2d=[1100, 0, 1200, 9]), "lie inside", id="outside"),
        pytest.param(call("zoom_in", bbox_2d=BOX, img_idx=4), "from 0 to 0, got 4", id="image"),
        pytest.param(call("zoom_in", bbox_2d=BOX, img_idx=True), "whole number", id="true"),
        pytest.param(call("zoom_in", bbox_2d=BOX, zoom=3), "takes no 'zoom'; it takes", id="extra"),
        pytest.param(call("enhance", rotate=45), "one of 0, 90, 180, 270, got 45", id="no literal"),
        pytest.param(call("enhance", contrast="high"), "must be a number", id="no number"),
        pytest.param(call("enhance", contrast=float("inf")), "finite", id="no finite number"),
        pytest.param(call("enhance", contrast=float("nan")), "finite", id="not a number"),
        pytest.param(call("enhance", contrast=10**400), "finite", id="longer than any float"),
        pytest.param(call("enhance", contrast="1e400"), "finite", id="infinite, in quotes"),
        pytest.param(call("enhance"), "would change nothing", id="nothing to do"),
        pytest.param(call("mark"), "Nothing to mark", id="no marks"),
        pytest.param(call("mark", boxes=[BOX], labels=["a", "b"]), "1 marks need", id="labels"),
        pytest.param(call("mark", points=[[1, 2, 3]]), "two numbers", id="no point"),
        pytest.param(call("mark", points=[[1, 2000]]), "lie inside", id="point outside"),
        pytest.param(call("crop", bbox_2d=BOX, padding=7), "from 0 to 1, got 7", id="padding"),
        pytest.param(call("locate", what=["a"]), "must be text", id="no text"),
        pytest.param(call("terminate"), 'terminate needs "answer"', id="no answer"),
        pytest.param(
            call("zoom_in", bbox_2d=BOX, img_idx=0).replace('"arguments"', '"args"'),
            'needs "bbox_2d"',
            id="misnamed arguments",
        ),
    ],
)
def test_anything_else_is_told_to_the_model(reply: str, error: str) -> None:
    told = observed(reply)
    assert told.role == "tool"
    assert told.images == ()
    assert re.search(error, told.text), told.text
    assert len(told.text) < 250


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(f"{BODY}\n{{other}} done", id="lines"),
        pytest.param(f"{BODY}, {{other}}, done", id="commas"),
        pytest.param(f"[{BODY}, {{other}}] done", id="a list"),
        pytest.param(f"```json\n{BODY}\n{{other}}\n```", id="a fence"),
    ],
)
@pytest.mark.parametrize(
    ("other", "seen"),
    [
        pytest.param(BODY.replace("100", "150"), 2, id="two calls"),
        pytest.param('{"name": 3}', 1, id="the second is no call"),
    ],
)
def test_no_call_of_several_is_dropped(said: str, other: str, seen: int) -> None:
    reply = f"<tool_call>{said.replace('{other}', other)}</tool_call>"
    trace = run(act, SAMPLE, ScriptedVLM([reply, "done"]))
    told = [step.message for step in trace.best.steps if step.message.role == "tool"]
    assert (len(told), len(trace.best.images)) == (2, seen)


def test_a_second_call_that_breaks_off_is_told() -> None:
    trace = run(act, SAMPLE, ScriptedVLM([f'<tool_call>{BODY} {{"name": "zo', "done"]))
    assert "one JSON object" in trace.best.steps[3].message.text


def test_of_several_images_one_must_be_named() -> None:
    assert "Say which image" in observed(ZOOM, sample=PAIR).text
    named = observed(call("zoom_in", bbox_2d=BOX, img_idx=1), sample=PAIR)
    assert named.parts == (enlarged(OTHER, REGION),)


def test_boxes_lie_in_the_original_also_where_a_crop_is_named() -> None:
    second = call("zoom_in", bbox_2d=[500, 500, 700, 700], img_idx=1)
    assert observed(second, before=[ZOOM]).parts == (enlarged(PHOTO, Region(0.5, 0.5, 0.7, 0.7)),)


def test_without_a_box_the_crop_itself_is_meant() -> None:
    (seen,) = observed(call("enhance", rotate=90, img_idx=1), before=[ZOOM]).images
    assert seen.origin == Drawn(CROPPED.id, "contrast 1, rotated 90, flipped none")
    assert seen.size == CROPPED.size[::-1]


def test_a_drawing_is_an_original_of_its_own() -> None:
    turned = call("enhance", rotate=180)
    (seen,) = observed(call("zoom_in", bbox_2d=BOX, img_idx=1), before=[turned]).images
    assert seen == enlarged(enhance(PHOTO, rotate=180), REGION)


def test_what_was_shown_is_not_shown_again() -> None:
    assert "already shown" in observed(ZOOM, before=[ZOOM]).text


# --- actions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "origin"),
    [
        pytest.param(ZOOM, CROPPED.origin, id="zoom_in"),
        pytest.param(
            call("crop", bbox_2d=BOX, padding=0), Cropped(PHOTO.id, REGION, (129, 97)), id="crop"
        ),
        pytest.param(call("mark", boxes=[BOX]), Drawn(PHOTO.id, "marks"), id="mark"),
        pytest.param(call("mark", points=[5, 990]), Drawn(PHOTO.id, "marks"), id="mark a point"),
        pytest.param(
            call("compare", bbox_2d=BOX, other_bbox_2d=[0, 0, 99, 99]),
            Drawn(PHOTO.id, "two parts side by side"),
            id="compare",
        ),
        pytest.param(
            call("enhance", contrast=2, flip="Vertical"),
            Drawn(PHOTO.id, "contrast 2, rotated 0, flipped vertical"),
            id="enhance",
        ),
        pytest.param(call("depth_map"), Drawn(PHOTO.id, "depth"), id="depth_map"),
    ],
)
def test_images_say_where_they_come_from_and_are_the_same_each_time(reply: str, origin) -> None:
    more = actions_with(estimate=slope)
    first, again = (observed(reply, actions=more).images for _ in range(2))
    assert first == again
    (seen,) = first
    if isinstance(origin, Cropped) and isinstance(seen.origin, Cropped):
        assert seen.origin.parent == origin.parent
        assert seen.origin.size == seen.size == origin.size
    else:
        assert seen.origin == origin


def test_parts_of_two_images_are_compared() -> None:
    reply = call("compare", bbox_2d=BOX, other_bbox_2d=BOX, img_idx=1, other_img_idx=0)
    (seen,) = observed(reply, sample=PAIR).images
    other = call("compare", bbox_2d=BOX, other_bbox_2d=BOX, img_idx=0, other_img_idx=1)
    assert seen.origin == Drawn(OTHER.id, "two parts side by side")
    assert observed(other, sample=PAIR).images != (seen,)


def test_a_crop_keeps_its_pixels() -> None:
    made = crop(PHOTO, REGION, 0.0)
    assert np.array_equal(np.asarray(made.pixels), np.asarray(PHOTO.pixels)[96:193, 64:193])
    assert crop(PHOTO, Region(0, 0, 0.001, 0.001)).size == (28, 28)


@pytest.mark.parametrize(
    ("options", "same"),
    [
        pytest.param({"rotate": 90}, lambda p: np.rot90(p, -1), id="clockwise"),
        pytest.param({"rotate": 270}, lambda p: np.rot90(p, 1), id="anticlockwise"),
        pytest.param({"flip": "horizontal"}, lambda p: p[:, ::-1], id="left and right"),
        pytest.param({"flip": "vertical"}, lambda p: p[::-1], id="top and bottom"),
        pytest.param(
            {"rotate": 90, "flip": "vertical"}, lambda p: np.rot90(p, -1)[::-1], id="both"
        ),
    ],
)
def test_enhance_turns(options, same) -> None:
    made = np.asarray(enhance(OTHER, **options).pixels)
    assert np.array_equal(made, same(np.asarray(OTHER.pixels)))


def test_marks_are_drawn_where_they_belong() -> None:
    white = Image(PIL.Image.new("RGB", (300, 300), "white"))
    drawn = np.asarray(mark(white, points=[Point(0.9, 0.1), Point(1.0, 1.0)]).pixels)
    changed = (drawn != 255).any(axis=2)
    assert changed[20:40, 250:290].any()
    assert changed[280:, 280:].any()
    assert not changed[100:200, :200].any()


def test_a_search_shows_the_best_windows_enlarged() -> None:
    def bright(window: Image, what: str) -> float:
        assert what == "a sign"
        return float(np.asarray(window.pixels).mean())

    pixels = np.zeros((480, 640, 3), np.uint8)
    pixels[320:, 430:] = 255  # the last window of sixteen
    sample = question("q", Image(PIL.Image.fromarray(pixels)))
    search = partial(ACTIONS[2], rank=bright, show=1)
    told = observed(call("visual_search", what="a sign"), sample=sample, actions=[search])
    assert told.images == (enlarged(sample.images[0], Region(2 / 3, 2 / 3, 1, 1)),)
    assert '"bbox_2d": [667, 667, 1000, 1000]' in told.text


def test_a_search_in_a_crop_is_cut_from_the_original() -> None:
    search = partial(visual_search, rank=lambda window, what: _last_corner(window), show=1)
    reply = call("visual_search", what="x", img_idx=1)
    told = observed(reply, actions=[search, ACTIONS[0]], before=[ZOOM])
    assert isinstance(CROPPED.origin, Cropped)
    window = Region(2 / 3, 2 / 3, 1, 1).within(CROPPED.origin.region)
    assert told.images == (enlarged(PHOTO, window),)


def test_a_search_asks_the_model_about_each_window_and_records_it() -> None:
    vlm = ScriptedVLM([call("visual_search", what="a sign"), "done"], scores={"yes": -1, "no": -3})
    trace = run(act, SAMPLE, vlm)
    asked = [step for step in trace.steps if "Does this part" in step.message.text]
    assert [step.scores for step in asked] == [{"visual_search": 2.0}] * 16
    assert len(trace.best.images) == 2
    assert trace.answer == "done"


class Unscored(ScriptedVLM):
    """Behind a server that gives no log-probabilities of prompts."""

    def score(self, conversation, continuations):
        raise CannotScore("scripted cannot score")


class Gone(ScriptedVLM):
    """Its server fell over in the meantime."""

    def score(self, conversation, continuations):
        raise ModelUnavailable("cannot reach the server")


def test_a_search_by_a_model_that_cannot_score_is_told_what_to_do_instead() -> None:
    trace = run(act, SAMPLE, Unscored([call("visual_search", what="a sign"), ZOOM, "done"]))
    assert "use zoom_in" in trace.best.steps[2].message.text
    assert (trace.answer, trace.error) == ("done", None)
    assert trace.images == (CROPPED,)


def test_a_search_names_no_action_that_is_not_on_offer() -> None:
    vlm = Unscored([call("visual_search", what="a sign"), "done"])
    trace = run(partial(act, actions=[visual_search]), SAMPLE, vlm)
    assert trace.best.steps[2].message.text == (
        "visual_search does not work with this model: answer from what you see."
    )


def test_a_search_by_a_model_that_is_gone_ends_the_question() -> None:
    trace = run(act, SAMPLE, Gone([call("visual_search", what="a sign"), ZOOM, "done"]))
    assert (trace.reply, trace.error) == ("", "cannot reach the server")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        pytest.param(
            '[{"bbox_2d": [10, 20, 30, 40], "label": "cup"}]',
            '{"bbox_2d": [10, 20, 30, 40], "label": "cup"}\n',
            id="a box",
        ),
        pytest.param("I see none.", "No 'a cup' was found.", id="none"),
    ],
)
def test_the_model_locates_beside_the_branch(said: str, told: str) -> None:
    vlm = ScriptedVLM([call("locate", what="a cup"), said, "done"])
    trace = run(act, SAMPLE, vlm, sampling=Sampling(temperature=1.0))
    assert trace.best.steps[2].message.text == told
    assert trace.answer == "done"
    assert len(trace.best.steps) == 4
    assert [sampling.temperature for sampling in vlm.samplings] == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("reply", "before", "box"),
    [
        pytest.param(
            call("locate", what="x", img_idx=1), [ZOOM], [201, 301, 301, 402], id="locate"
        ),
        pytest.param(call("read_text", img_idx=1), [ZOOM], [201, 301, 301, 402], id="read_text"),
        pytest.param(
            call("visual_search", what="x", img_idx=1), [ZOOM], [234, 335, 301, 402], id="search"
        ),
        pytest.param(
            call("locate", what="x", img_idx=2),
            [call("crop", bbox_2d=[0, 0, 499, 999], padding=0), call("locate", what="x"), ZOOM],
            [201, 301, 301, 402],
            id="after another crop",
        ),
    ],
)
def test_boxes_found_in_a_crop_are_told_in_the_original(reply, before, box) -> None:
    """A box of the next call lies there too, whichever image it names."""
    corner = [Grounded(Region(0.5, 0.5, 1, 1), "x")]
    search = partial(visual_search, rank=lambda window, what: _last_corner(window), show=1)
    more = actions_with(detect=lambda *_: corner, reader=lambda _: corner)
    actions = [search if action is visual_search else action for action in more]
    told = observed(reply, actions=actions, before=before).text
    found = json.loads(told[told.index("{") : told.index("}") + 1])
    assert found["bbox_2d"] == pytest.approx(box, abs=1)


def _last_corner(window: Image) -> float:
    assert isinstance(window.origin, Cropped)
    return window.origin.region.x1 + window.origin.region.y1


def test_a_box_in_the_grey_beside_a_crop_is_said_to_be_there() -> None:
    wide = question("q", noise(3, (640, 120)))
    vlm = ScriptedVLM(
        [call("zoom_in", bbox_2d=[0, 0, 999, 999]), call("locate", what="x", img_idx=1), "done"],
        traits=Traits(crop_rule="square"),
    )
    actions = actions_with(detect=lambda *_: [Grounded(Region(0, 0, 1, 0.2), "x")])
    trace = run(partial(act, actions=actions), wide, vlm)
    assert trace.best.steps[4].message.text == "One box lies in the grey beside the image.\n"


def test_a_detector_replaces_the_models_own_grounding() -> None:
    actions = actions_with(detect=lambda image, what: [Grounded(REGION, what)])
    assert observed(call("locate", what="x"), actions=actions).text == (
        '{"bbox_2d": [100, 200, 300, 400], "label": "x"}\n'
    )


@pytest.mark.parametrize(
    ("arguments", "box"),
    [
        pytest.param({}, [250, 500, 500, 750], id="the whole image"),
        pytest.param({"bbox_2d": [0, 0, 500, 500]}, [125, 251, 251, 377], id="a part, in it all"),
    ],
)
def test_text_is_told_with_boxes_in_the_original(arguments, box) -> None:
    told = observed(call("read_text", **arguments), actions=actions_with(reader=first_lines))
    read = json.loads(told.text)
    assert read["label"] == "STOP"
    assert read["bbox_2d"] == pytest.approx(box, abs=1)


def test_an_image_without_text_is_said_to_have_none() -> None:
    told = observed(call("read_text"), actions=actions_with(reader=lambda image: []))
    assert told.text == "No text was found there."


def test_what_cannot_be_used_is_told_to_the_model() -> None:
    def flat(image: Image):
        return map_of(np.ones((3, 4), np.float32), "metric")

    assert (
        "nothing is nearer" in observed(call("depth_map"), actions=actions_with(estimate=flat)).text
    )


# --- the loop -----------------------------------------------------------------------------------


def test_a_user_adds_an_action_by_passing_it() -> None:
    (seen,) = observed(call("grey"), actions=[grey]).images
    assert seen.origin == Drawn(PHOTO.id, "grey")


@pytest.mark.parametrize(
    ("replies", "answer"),
    [
        pytest.param([ZOOM, call("terminate", answer="STOP")], "STOP", id="terminate"),
        pytest.param([call("terminate", answer=42)], "42", id="a number"),
        pytest.param(["So " + call("terminate", answer="a") + ZOOM], "a", id="beside another"),
        pytest.param([call("terminate", answer=" "), "b"], "b", id="an empty answer"),
        pytest.param([ZOOM, "<answer>STOP</answer>"], "STOP", id="in words"),
        pytest.param([call("terminate"), "c"], "c", id="asked again"),
    ],
)
def test_the_loop_ends_in_an_answer(replies: list[str], answer: str) -> None:
    trace = run(act, SAMPLE, ScriptedVLM(replies))
    assert (trace.answer, trace.error) == (answer, None)


def test_the_limit_forces_the_answer() -> None:
    vlm = ScriptedVLM([ZOOM, call("enhance", rotate=90), "STOP"])
    trace = run(partial(act, max_steps=2), SAMPLE, vlm)
    assert NO_MORE in trace.best.steps[4].message.text
    assert trace.answer == "STOP"


def test_a_model_that_writes_no_calls_is_refused_by_name() -> None:
    trace = run(act, SAMPLE, ScriptedVLM([], traits=Traits(calls_tools=False)))
    assert trace.error == "scripted writes no tool calls, which act needs: use zoom or attend"


def test_a_models_failure_in_an_action_ends_the_trace() -> None:
    def failing(image: Image) -> str:
        """Fail."""
        raise ModelError("out of memory")

    trace = run(partial(act, actions=[failing]), SAMPLE, ScriptedVLM([call("failing")]))
    assert trace.error == "out of memory"


def test_a_wrong_use_may_be_told_by_the_action() -> None:
    def picky(image: Image) -> str:
        """Refuse."""
        raise BadCall("Not this one.")

    assert observed(call("picky"), actions=[picky]).text == "Not this one."


def test_a_trace_of_actions_is_stored_and_read_back(tmp_path) -> None:
    replies = [ZOOM, call("mark", boxes=[BOX]), call("terminate", answer="STOP")]
    trace = run(act, SAMPLE, ScriptedVLM(replies))
    save_traces([trace], tmp_path)
    (back,) = load_traces(tmp_path)
    assert isinstance(back, Trace)
    assert back.answer == "STOP"
    assert back.images == trace.images


def test_no_image_is_an_observation() -> None:
    bare = question("What?")
    assert observed(ZOOM, sample=bare).text == "There is no image."
