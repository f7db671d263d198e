"""Strategies over clips: what is shown, what a look in time gives, what the trace says of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from clips import write_clip
from tiny_models import FAMILIES
from tiny_vlm import vlm

import mm
from mm.errors import UserError
from mm.origins import FrameOf
from mm.scripted import ScriptedVLM
from mm.session import run
from mm.strategies import vote
from mm.trace import Trace
from mm.trace_store import load_traces, save_traces
from mm.types import Clip, Sampling, Text
from mm.vlm import Traits
from video import clip_of, uniform, watch
from video.context import Showing, seconds
from video.search import NO_SPAN, SHOWN, WHERE, WHERE_OF
from video.strip import strip
from vision import zoom

ASKS = Traits(calls_tools=False)


def made(count: int = 60, fps: float = 10.0, name: str = "memory") -> Clip:
    """A clip whose frames are shades of their number."""
    frames = [PIL.Image.new("RGB", (64, 48), (n % 256, 0, 0)) for n in range(count)]
    return clip_of(frames, [n / fps for n in range(count)], name)


ASKED = mm.question("When does the light change?", made(), id="q", target="3")


def call(name: str, **arguments: object) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def span(start: float, end: float, **more: object) -> str:
    return call("look_at_span", start_s=start, end_s=end, **more)


def times(images: Sequence[mm.Image]) -> list[float]:
    return [i.origin.time_s for i in images if isinstance(i.origin, FrameOf)]


def spans(trace: Trace) -> list[tuple[float, float]]:
    told = trace.settings.get("spans", [])
    assert isinstance(told, list)
    return [(each["start_s"], each["end_s"]) for each in told]


def test_frames_stand_in_the_clips_place_after_their_times() -> None:
    model = ScriptedVLM(["3"])
    trace = run(partial(uniform, frames=4), ASKED, model)
    (prompt,) = model.conversations[0]
    assert [p.text for p in prompt.parts if isinstance(p, Text)] == [
        "<0.7 seconds>",
        "<2.2 seconds>",
        "<3.7 seconds>",
        "<5.2 seconds>",
        "When does the light change?",
    ]
    assert times(trace.sample.images) == [0.7, 2.2, 3.7, 5.2]
    shades = [np.asarray(image.pixels)[0, 0, 0] for image in trace.sample.images]
    assert shades == [7, 22, 37, 52]
    assert trace.answer == "3"


@pytest.mark.parametrize(
    ("options", "count"),
    [
        pytest.param({}, 16, id="as many as usual"),
        pytest.param({"fps": 1.0}, 6, id="by rate"),
        pytest.param({"fps": 5.0, "frames": 8}, 8, id="by rate, with a cap"),
        pytest.param({"clip_tokens": 12}, 3, id="a budget: four tokens each"),
        pytest.param({"choose": "change", "frames": 5}, 5, id="by change"),
        pytest.param({"choose": "change", "fps": 0.5}, 3, id="by change, so many a second"),
        pytest.param(
            {"choose": "question", "siglip": "tiny-siglip", "fps": 0.5}, 3, id="by question"
        ),
    ],
)
def test_how_many_frames(options, count: int) -> None:
    trace = run(partial(uniform, **options), ASKED, ScriptedVLM(["3"]))
    assert len(trace.sample.images) == count


def test_frames_are_seen_by_any_strategy() -> None:
    look = call("image_zoom_in_tool", bbox_2d=[0, 0, 500, 500], img_idx=2)
    model = ScriptedVLM([look, "3"])
    trace = run(partial(uniform, strategy=zoom, frames=4), ASKED, model)
    assert (len(trace.best.looks), trace.answer) == (1, "3")


def test_a_question_without_a_clip_is_only_asked() -> None:
    for strategy in (uniform, watch):
        assert run(strategy, mm.question("Why?"), ScriptedVLM(["So."])).reply == "So."


def test_a_span_is_seen_in_more_frames() -> None:
    model = ScriptedVLM([span(2, 4), span(2.9, 3.1, fps=10), "3"])
    trace = run(partial(watch, frames=4, look_frames=5), ASKED, model)
    assert trace.answer == "3"
    assert spans(trace) == [(2.0, 4.0), (2.9, 3.1)]
    first, second = (step.message for step in trace.best.steps if step.message.role == "tool")
    assert times(first.images) == [2.6, 3.0, 3.4, 3.8]  # 2.2 was shown before
    assert times(second.images) == [2.9]  # 3.0 was shown before
    assert first.text.startswith("<2.6 seconds>")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        pytest.param(span(7, 9), "The clip is 6.0 s long", id="outside"),
        pytest.param(span(0, 1, clip=1), '"clip" must be from 0 to 0', id="no such clip"),
        pytest.param(call("look_at_span", start_s=1), "end_s", id="one end"),
        pytest.param(call("look_at_span", start_s="a", end_s=2), "start_s", id="no number"),
        pytest.param(span(0, 1, fps=float("inf")), '"fps" must be a finite number', id="no rate"),
        pytest.param(call("rewind"), "rewind", id="no such tool"),
    ],
)
def test_a_wrong_call_is_told_what_is_wrong(wrong: str, reason: str) -> None:
    model = ScriptedVLM([wrong, "3"])
    trace = run(watch, ASKED, model)
    assert reason in model.conversations[1][-1].text
    assert (trace.answer, spans(trace)) == ("3", [])


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(4, 2, (2.0, 4.0)), (3, 3, (2.75, 3.25)), (-5, 1, (0.0, 1.0)), (5, 90, (5.0, 6.0))],
    ids=["swapped", "a moment", "begins before", "ends after"],
)
def test_a_span_is_read_as_it_is_meant(start: float, end: float, expected) -> None:
    trace = run(partial(watch, frames=2), ASKED, ScriptedVLM([span(start, end), "3"]))
    assert spans(trace) == [expected]


def test_a_huge_rate_gives_as_many_frames_as_are_allowed() -> None:
    trace = run(
        partial(watch, frames=2, look_frames=4), ASKED, ScriptedVLM([span(2, 4, fps=1e308), "3"])
    )
    assert len(trace.images) == 4


def test_the_same_again_is_refused_and_looks_end() -> None:
    model = ScriptedVLM([span(2, 4), span(2, 4), "3"])
    trace = run(partial(watch, frames=2, max_looks=2, look_frames=64), ASKED, model)
    assert "already shown above" in model.conversations[2][-1].text
    assert trace.answer == "3"


def test_a_span_that_was_seen_is_seen_more_finely() -> None:
    model = ScriptedVLM(['{"start_s": 0, "end_s": 8}', "3"], traits=ASKS)
    trace = run(partial(watch, frames=4, look_frames=4), ASKED, model)
    shown = (*trace.sample.images, *trace.images)
    times = [i.origin.time_s for i in shown if isinstance(i.origin, FrameOf)]
    assert len(times) == len(set(times)) == 8


def test_a_model_that_was_taught_other_tools_is_asked_for_a_span() -> None:
    taught = Traits(tools=("image_zoom_in_tool",))
    model = ScriptedVLM(['{"start_s": 2, "end_s": 3}', "3"], traits=taught)
    assert run(watch, ASKED, model).answer == "3"
    assert model.conversations[0][-1].text == WHERE


def test_a_model_without_tools_is_asked_for_a_span() -> None:
    model = ScriptedVLM(['{"start_s": 2, "end_s": 3}', "3"], traits=ASKS)
    trace = run(partial(watch, frames=2), ASKED, model)
    assert model.conversations[0][-1].text == WHERE
    assert model.conversations[1][-1].text.endswith(SHOWN)
    assert (trace.answer, spans(trace)) == ("3", [(2.0, 3.0)])


@pytest.mark.parametrize("options", [{"max_looks": 0}, {"look_tokens": 0}])
def test_a_model_without_tools_sees_no_span_where_no_look_is_allowed(options) -> None:
    model = ScriptedVLM(['{"start_s": 2, "end_s": 3}', "3"], traits=ASKS)
    trace = run(partial(watch, **options), ASKED, model)
    assert (trace.answer, trace.images, spans(trace)) == ("3", (), [])


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param('{"start_s": "00:04", "end_s": "00:05.5"}', (4.0, 5.5), id="a clock's"),
        pytest.param('{"start_s": "0:00:01", "end_s": 2.}', (1.0, 2.0), id="with hours"),
        pytest.param('{"start_s": .5, "end_s": 1}', (0.5, 1.0), id="no digit before the point"),
        pytest.param('{"start_s": "4 s", "end_s": "5 s"}', (4.0, 5.0), id="with its unit"),
        pytest.param('{"end_s": 5, "start_s": 4}', (4.0, 5.0), id="the end first"),
        pytest.param("start_s = 4, then end_s = 5", (4.0, 5.0), id="no JSON"),
        pytest.param("{'start_s': 4, 'end_s': 5}", (4.0, 5.0), id="as Python writes it"),
        pytest.param('{"clip": 1, "start_s": 4, "end_s": 5}', (4.0, 5.0), id="the only clip, by 1"),
        pytest.param('{"start_s": 4}', None, id="one end"),
        pytest.param(WHERE, None, id="the question again"),
        pytest.param('{"start_s": 7, "end_s": 9}', None, id="outside"),
    ],
)
def test_a_span_is_read_however_it_is_written(reply: str, expected) -> None:
    model = ScriptedVLM([reply, "3"], traits=ASKS)
    trace = run(partial(watch, frames=2), ASKED, model)
    assert spans(trace) == ([expected] if expected else [])
    assert (model.conversations[1][-1] == NO_SPAN) == (expected is None)


@pytest.mark.parametrize(
    ("named", "seen"),
    [
        pytest.param('"clip": 1, ', "b", id="the second"),
        pytest.param('"clip": "0", ', "a", id="the first"),
        pytest.param("", "a", id="none: the first"),
        pytest.param('"clip": 2, ', None, id="no such clip"),
        pytest.param('"clip": -1, ', None, id="below the first"),
        pytest.param('"clip": 0.5, ', None, id="no whole number"),
    ],
)
def test_of_several_clips_a_model_without_tools_says_which(named: str, seen: str | None) -> None:
    two = mm.question("Which is longer?", made(name="a"), made(20, name="b"))
    model = ScriptedVLM([f'{{{named}"start_s": 0, "end_s": 1}}', "a"], traits=ASKS)
    trace = run(partial(watch, frames=2), two, model)
    assert model.conversations[0][-1].text == WHERE_OF
    told = trace.settings.get("spans", [])
    assert told == ([{"clip": seen, "start_s": 0.0, "end_s": 1.0}] if seen else [])
    assert (model.conversations[1][-1] == NO_SPAN) == (seen is None)


def test_a_span_of_a_very_short_clip_is_seen() -> None:
    """Its end, rounded, was its start: a `ValueError`."""
    short = made(2, fps=5e3)
    model = ScriptedVLM([span(0, 1), "3"])
    trace = run(partial(watch, frames=1), mm.question("?", short), model)
    assert (trace.error, trace.answer, len(trace.images)) == (None, "3", 1)


def test_no_span_is_no_end() -> None:
    model = ScriptedVLM(["Hm.", "3"], traits=ASKS)
    assert run(watch, ASKED, model).answer == "3"
    assert model.conversations[1][-1] == NO_SPAN


def test_a_long_clip_is_gone_through_in_windows() -> None:
    model = ScriptedVLM(["A lamp.", "", "It is dark.", "3"])
    trace = run(partial(watch, frames=3, window_s=2.0), ASKED, model)
    windows = model.conversations[:3]
    assert [times(c[0].images) for c in windows] == [
        [0.3, 1.0, 1.6],
        [2.3, 3.0, 3.6],
        [4.3, 5.0, 5.6],
    ]
    assert "When does the light change?" in windows[0][0].text
    assert "Notes so far:\n0.0 s to 2.0 s: A lamp." in windows[1][0].text
    told = model.conversations[3][0].text
    assert told.splitlines()[1:] == [
        "0.0 s to 2.0 s: A lamp.",
        "2.0 s to 4.0 s: nothing",
        "4.0 s to 6.0 s: It is dark.",
    ]
    assert trace.cost.calls == 4
    plain = run(partial(watch, frames=3), ASKED, ScriptedVLM(["3"]))
    assert trace.cost.visual_tokens == 4 * plain.cost.visual_tokens


CUT = f"<think>{'a' * 128}"


@pytest.mark.parametrize(
    ("said", "note"),
    [
        pytest.param(["<think>b</think>", "A lamp."], "A lamp.", id="thought"),
        pytest.param([CUT, "A lamp.</answer>"], "A lamp.", id="a thought that is closed"),
        pytest.param(["<think>b</think>", "<answer>A lamp.</answer>"], "A lamp.", id="tags"),
        pytest.param(["a" * 300], "a" * 96, id="too long"),
        pytest.param(["<think>b</think>", "a" * 300], "a" * 96, id="too long behind a thought"),
    ],
)
def test_a_note_is_what_follows_the_thought(said: list[str], note: str) -> None:
    model = ScriptedVLM([*said, "", "", "3"])
    trace = run(partial(watch, frames=1, window_s=2.0), ASKED, model)
    notes = trace.settings["windows"]
    assert isinstance(notes, list)
    assert [each["note"] for each in notes] == [note, "nothing", "nothing"]


def test_draws_share_their_notes_which_say_of_which_clip() -> None:
    two = mm.question("Which is longer?", made(name="a"), made(20, name="b"))
    model = ScriptedVLM(["n", "n", "n", "a", "b"])
    strategy = partial(vote, strategy=partial(watch, frames=2, window_s=2.0), n=2)
    trace = run(strategy, two, model, sampling=Sampling(temperature=1.0))
    assert trace.error is None
    first, second = (conversation[0].text for conversation in model.conversations[3:])
    assert first == second
    assert "clip 0, 4.0 s to 6.0 s: n" in first


@pytest.mark.parametrize(
    ("options", "frames"),
    [
        pytest.param({"clip_tokens": 12}, 3, id="a budget: four tokens each"),
        pytest.param({"fps": 1.0}, 2, id="so many a second"),
    ],
)
def test_every_window_is_shown_within_the_same_bounds(options, frames: int) -> None:
    model = ScriptedVLM(["a", "b", "c", "3"])
    run(partial(watch, frames=8, window_s=2.0, **options), ASKED, model)
    assert [len(c[0].images) for c in model.conversations[:3]] == [frames] * 3


def test_a_window_that_cannot_be_read_is_noted_as_such(tmp_path: Path) -> None:
    for n in range(4):
        PIL.Image.new("RGB", (32, 32)).save(tmp_path / f"{n}.png")
    (tmp_path / "3.png").write_bytes(b"broken")
    model = ScriptedVLM(["A lamp.", "3"])
    strategy = partial(watch, frames=1, window_s=2.0)
    trace = run(strategy, mm.question("?", str(tmp_path)), model)
    notes = trace.settings["windows"]
    assert isinstance(notes, list)
    assert [(note["end_s"], note["times_s"], note["note"]) for note in notes] == [
        (2.0, [1.0], "A lamp."),
        (4.0, [], "cannot be read"),
    ]
    assert trace.answer == "3"


def test_a_broken_image_of_a_folder_fails_that_question_alone(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"broken")
    trace = run(uniform, mm.question("?", Clip(str(tmp_path))), ScriptedVLM([]))
    assert "0.png" in str(trace.error)


def test_every_draw_may_look_again() -> None:
    model = ScriptedVLM([span(2, 3), "3", span(4, 5), "3"])
    strategy = partial(vote, strategy=partial(watch, frames=2), n=2)
    trace = run(strategy, ASKED, model, sampling=Sampling(temperature=1.0))
    assert [len(branch.images) > 0 for branch in trace.branches] == [True, True]
    assert spans(trace) == [(2.0, 3.0), (4.0, 5.0)]


def test_frames_keep_the_times_that_they_were_given() -> None:
    clip = clip_of([PIL.Image.new("RGB", (64, 48), (n, 0, 0)) for n in range(6)], range(10, 22, 2))
    model = ScriptedVLM(["n", "n", span(14, 18), span(0, 4), "3"])
    trace = run(partial(watch, frames=1, window_s=6.0), mm.question("?", clip), model)
    assert times(trace.sample.images) == [16.0]
    assert "10.0 s to 16.0 s: n" in model.conversations[2][0].text
    assert spans(trace) == [(14.0, 18.0)]
    assert times(trace.images) == [14.0]
    told = model.conversations[-1][-1].text
    assert "The clip is 12.0 s long: name a span from 10.0 to 22.0." in told
    given: list[object] = []

    def choose(sample, asked, whole):
        given.extend([asked, whole])
        return 12.0, 14.0

    chosen = partial(watch, frames=1, choose_span=choose)
    trace = run(chosen, mm.question("?", clip), ScriptedVLM([span(14, 18), "3"]))
    assert (given, spans(trace)) == ([(14.0, 18.0), (10.0, 22.0)], [(12.0, 14.0)])


@pytest.mark.parametrize("window_s", [float("inf"), 1e12])
def test_a_window_longer_than_any_clip_is_none(window_s: float) -> None:
    trace = run(partial(watch, frames=2, window_s=window_s), ASKED, ScriptedVLM(["3"]))
    assert (trace.answer, trace.error) == ("3", None)
    assert "windows" not in trace.settings


def test_two_clips_have_numbers() -> None:
    two = mm.question("Which is longer?", made(name="a"), made(20, name="b"))
    model = ScriptedVLM([span(0, 1, clip=1), "a"])
    trace = run(partial(watch, frames=2), two, model)
    told = trace.settings["spans"]
    assert told == [{"clip": "b", "start_s": 0.0, "end_s": 1.0}]


def test_clips_of_one_name_are_told_apart() -> None:
    """Both are named "frames" where nobody names them."""
    red, blue = ([PIL.Image.new("RGB", (64, 48), c)] * 2 for c in ("red", "blue"))
    both = mm.question("Which is blue?", *(clip_of(frames, [0.0, 1.0]) for frames in (red, blue)))
    model = ScriptedVLM([span(0, 2, clip=1), "1"])
    trace = run(partial(watch, frames=1, look_frames=4), both, model)
    shown = [*trace.sample.images, *trace.images]
    assert [image.pixels.getpixel((0, 0)) for image in shown] == [
        (255, 0, 0),
        (0, 0, 255),
        (0, 0, 255),
    ]
    named = [image.origin.video for image in shown if isinstance(image.origin, FrameOf)]
    assert named == ["frames", "frames 2", "frames 2"]
    told = trace.settings["clips"]
    assert isinstance(told, list)
    assert [each["source"] for each in told] == ["frames", "frames 2"]


def test_a_trace_keeps_frames_and_their_times(tmp_path: Path) -> None:
    trace = run(partial(watch, frames=2), ASKED, ScriptedVLM([span(2, 3), "3"]))
    save_traces([trace], tmp_path)
    (read,) = load_traces(tmp_path)
    assert times(read.images) == times(trace.images)
    assert read.settings["spans"] == trace.settings["spans"]
    unopened = Trace(ASKED)
    save_traces([unopened], tmp_path)
    assert load_traces(tmp_path)[0].sample.clips == (Clip("memory"),)


def test_a_strip_has_every_frame_in_order() -> None:
    trace = run(partial(watch, frames=3), ASKED, ScriptedVLM([span(2, 3), "3"]))
    pixels = np.asarray(strip(trace.best))
    assert pixels.shape[1] > pixels.shape[0]
    assert (pixels == (214, 40, 40)).all(-1).any()  # the border of a look


def test_a_strip_may_be_narrower_with_larger_words() -> None:
    trace = run(partial(watch, frames=8), ASKED, ScriptedVLM(["3"]))
    usual, page = strip(trace.best), strip(trace.best, across=4, letters=32)
    assert page.size[0] < usual.size[0]
    assert page.size[1] - 8 > 2 * (usual.size[1] - 8)  # two rows, each with room for the words


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strategy", [uniform, watch], ids=["uniform", "watch"])
def test_every_family_ends_in_a_reply(family: str, strategy) -> None:
    model = vlm(family)
    options = {"frames": 3, "side": 28}
    trace = run(partial(strategy, **options), ASKED, model, sampling=Sampling(max_tokens=8))
    assert trace.error is None
    assert trace.cost.generated_tokens > 0


def test_a_bare_clip_is_refused_with_the_remedy() -> None:
    trace = run(mm.direct, ASKED, vlm("qwen3_vl"), sampling=Sampling(max_tokens=8))
    assert trace.error == (
        "the clip 'memory' goes to a model as frames: use the strategy uniform or watch"
    )


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        pytest.param("gone.mp4", "there is no such clip", id="missing"),
        pytest.param("http://example.com/a.mp4", "addresses are not opened", id="address"),
        pytest.param("file:///etc/a.mp4", "addresses are not opened", id="file address"),
        pytest.param("broken.mp4", "broken.mp4", id="broken"),
    ],
)
def test_what_cannot_be_read_fails_that_question(tmp_path: Path, source: str, reason: str) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no clip at all")
    place = source if "://" in source else str(tmp_path / source)
    trace = run(watch, mm.question("?", Clip(place)), ScriptedVLM([]))
    assert trace.error is not None
    assert reason in trace.error
    assert "\n" not in trace.error


def test_a_budget_that_pays_for_nothing_is_told() -> None:
    large = mm.question("?", clip_of([PIL.Image.new("RGB", (900, 900))], [0.0]))
    trace = run(partial(uniform, clip_tokens=1), large, ScriptedVLM([]))
    assert "a budget of 1 visual tokens pays for no frame" in str(trace.error)


@pytest.mark.parametrize(
    "options", [{"frames": 0}, {"fps": -1.0}, {"clip_tokens": 0}, {"side": 0}, {"choose": "best"}]
)
def test_bad_numbers_are_refused(options) -> None:
    with pytest.raises(UserError, match="must be"):
        Showing(**options)


@pytest.mark.parametrize("options", [{"window_s": 0.0}, {"look_frames": 0}, {"max_looks": -1}])
def test_bad_numbers_of_looks_are_refused(options) -> None:
    asked = mm.question("?", clip_of([PIL.Image.new("RGB", (90, 90))], [0.0]))
    with pytest.raises(UserError, match="window_s must be over 0"):
        run(partial(watch, **options), asked, ScriptedVLM([]))


@pytest.mark.parametrize(
    ("time", "written"),
    [(1.5, "1.5"), (0.0, "0.0"), (1 / 3, "0.33"), (2.04, "2.04"), (9.99, "10.0")],
)
def test_times_are_written_as_exactly_as_they_must(time: float, written: str) -> None:
    assert seconds(time) == written


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
@pytest.mark.parametrize(("frames", "clips"), [(1, 0), (3, 1)], ids=["still", "animated"])
def test_an_animated_image_is_a_clip(tmp_path: Path, name: str, frames: int, clips: int) -> None:
    first, *rest = (PIL.Image.new("RGB", (64, 48), (n * 80, 0, 0)) for n in range(frames))
    more = {"append_images": rest, "save_all": True} if rest else {}
    first.save(tmp_path / name, duration=100, lossless=True, **more)
    asked = mm.question("?", tmp_path / name)
    assert (len(asked.clips), len(asked.images)) == (clips, 1 - clips)


@pytest.mark.parametrize("name", ["a.MXF", "a.3g2", "a.asf", "a.vob", "a.m2v", "a.h264", "a.y4m"])
def test_what_the_reader_opens_is_a_clip_by_its_name(name: str) -> None:
    assert mm.question("?", name).clips


def test_a_long_name_is_no_clip() -> None:
    with pytest.raises(mm.BadImage, match="cannot be opened"):
        mm.question("?", f"{'a' * 300}.gif")


def test_a_path_of_a_clip_is_one(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.MP4", frames=24, size=(64, 48), fps=12)
    asked = mm.question("?", str(path))
    assert asked.clips == (Clip(str(path)),)
    trace = run(partial(uniform, frames=2), asked, ScriptedVLM(["x"]))
    assert times(trace.sample.images) == [0.5, 1.5]
    folder = tmp_path / "frames"
    folder.mkdir()
    for n in range(3):
        PIL.Image.new("RGB", (32, 32)).save(folder / f"{n}.png")
    trace = run(uniform, mm.question("?", folder), ScriptedVLM(["x"]))
    assert times(trace.sample.images) == [0.0, 1.0, 2.0]
