"""Depth from files, rows and models to the words that a model is told, and what goes wrong."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from app.cli.main import run as mm_run
from mm.errors import ModelUnavailable, UserError
from mm.geometry import WHOLE, Region
from mm.samples import question
from mm.scripted import ScriptedVLM
from mm.session import Session, run
from mm.strategies import vote
from mm.trace import Branch, Sample
from mm.types import Features, Image, Latents, user
from mm.vlm import Memory, Traits
from vision.depth import flipped, noisy
from vision.depth_source import TINY, ChangedDepth, DepthSource, bind_depth, untold
from vision.depth_strategies import (
    depth_latent,
    depth_text,
    depth_zoom,
    make_ready,
    with_latents,
)
from vision.replay import replay

GREY = Image(PIL.Image.new("RGB", (80, 40), "grey"))
ASKED = question("Which is nearer, the chair or the lamp?", GREY, target="chair")
BOXES = (
    '[{"bbox_2d": [0, 0, 400, 1000], "label": "chair"},'
    ' {"bbox_2d": [600, 0, 1000, 1000], "label": "lamp"}]'
)
TOLD = (
    "What a depth map of the image shows:\n"
    "From the nearest to the farthest: chair 1.00 m, lamp 3.00 m.\n"
    "The chair is nearer than the lamp by 2.00 m and to the left of it."
)


def values() -> np.ndarray:
    made = np.full((40, 80), 3.0)
    made[:, :40] = 1.0
    return made


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "room.png"
    PIL.Image.fromarray((values() * 1000).astype(np.uint16)).save(path)
    return str(path)


def test_the_model_is_asked_for_the_things_and_told_their_depth(file: str) -> None:
    vlm = ScriptedVLM([BOXES, "chair"])
    trace = run(partial(depth_text, depth=DepthSource(file, scale=1000)), ASKED, vlm)
    assert (trace.answer, trace.error) == ("chair", None)
    asked, answered = vlm.conversations
    assert "Locate each object that this question is about" in asked[-1].text
    assert answered[0].text == TOLD
    assert [m.role for m in answered] == ["system", "user"]  # nothing of the side question
    note = trace.settings["depth"]
    assert isinstance(note, dict)
    assert (note["kind"], note["regions"][0]) == (
        "metric",
        {"name": "chair", "region": [0.0, 0.0, 0.4, 1.0], "depth": 1.0},
    )
    assert note["told"] == TOLD.split("\n")[1:]


def test_of_several_images_the_first_is_asked_about_alone(file: str) -> None:
    """The map is the first one's; boxes in another one would be read in it."""
    other = Image(PIL.Image.new("RGB", (80, 40), "white"))
    both = question("Which is nearer, the chair or the lamp?", GREY, other)
    vlm = ScriptedVLM([BOXES, "chair"])
    trace = run(partial(depth_text, depth=DepthSource(file, scale=1000)), both, vlm)
    asked, answered = vlm.conversations
    assert [image for said in asked for image in said.images] == [GREY]
    assert "the chair or the lamp?" in asked[0].text
    assert "Locate each object" in asked[-1].text
    assert (answered[0].text, answered[1].images) == (TOLD, (GREY, other))
    assert (trace.answer, trace.cost.calls) == ("chair", 2)


def test_parts_are_told_where_nothing_is_found(file: str) -> None:
    vlm = ScriptedVLM(["none", "chair"])
    run(partial(depth_text, depth=DepthSource(file, scale="nyu")), ASKED, vlm)
    assert "middle left 1.00 m" in vlm.conversations[1][0].text


def test_a_thing_named_twice_is_numbered(file: str) -> None:
    vlm = ScriptedVLM([BOXES.replace("lamp", "chair"), "chair"])
    run(partial(depth_text, depth=DepthSource(file, scale=1000)), ASKED, vlm)
    assert "chair 1 1.00 m, chair 2 3.00 m" in vlm.conversations[1][0].text


def test_depth_then_zoom(file: str) -> None:
    call = json.dumps({"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 400, 1000]}})
    vlm = ScriptedVLM([BOXES, f"<tool_call>{call}</tool_call>", "chair"])
    trace = run(partial(depth_zoom, depth=DepthSource(file, scale=1000)), ASKED, vlm)
    assert (trace.answer, len(trace.best.looks)) == ("chair", 1)


def test_depth_then_replay(file: str) -> None:
    """It rewords the question, on which the words of depth and the question aside stand."""
    call = json.dumps({"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 400, 1000]}})
    traits = Traits(memory=Memory(tile=336, local=4, replay=2))
    vlm = ScriptedVLM([BOXES, f"<tool_call>{call}</tool_call>", "chair"], traits=traits)
    strategy = partial(depth_text, depth=DepthSource(file, scale=1000), strategy=replay)
    trace = run(strategy, ASKED, vlm)
    assert (trace.answer, trace.error, len(trace.best.looks)) == ("chair", None, 1)
    assert trace.sample.prompt[0].visuals == (Features(GREY, WHOLE, 4),)


def test_latents_are_put_into_a_question_once() -> None:
    """A draw of a clip's question begins with what the one before has put there."""
    latents = Latents(GREY, "a key", None)
    once = with_latents(ASKED.prompt, latents)
    assert with_latents(once, Latents(GREY, "a key", None)) == once
    assert once[0].visuals == (GREY, latents)


def test_a_question_that_was_talked_about_is_not_reworded() -> None:
    def late(session: Session) -> Branch:
        session.generate()
        return replay(session)

    vlm = ScriptedVLM(["chair"], traits=Traits(memory=Memory(tile=336, local=4, replay=2)))
    with pytest.raises(UserError, match="let the strategy that does so"):
        run(late, ASKED, vlm)


def test_a_samples_own_map_comes_first(tmp_path: Path, file: str) -> None:
    turned = tmp_path / "own.npy"
    np.save(turned, values()[:, ::-1])
    sample = Sample("q", ASKED.prompt, tags={"depth": str(turned)})
    shown = DepthSource(file)(sample, GREY)
    assert shown.values[0, 0] == 3.0


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        pytest.param({"file": "gone.png"}, "there is no such depth map", id="missing"),
        pytest.param({"file": "constant.npy"}, "every pixel has the depth 2", id="constant"),
        pytest.param({"file": "nan.npy"}, "no pixel has a depth", id="nothing known"),
        pytest.param({"file": "tall.npy"}, "the image 80 x 40: give the map of this", id="size"),
        pytest.param({"file": "room.png"}, "whole numbers need their scale", id="no scale"),
    ],
)
def test_a_map_that_cannot_be_used_fails_that_question_in_one_line(
    tmp_path: Path, file: str, source, reason: str
) -> None:
    np.save(tmp_path / "constant.npy", np.full((40, 80), 2.0))
    np.save(tmp_path / "nan.npy", np.full((40, 80), np.nan))
    np.save(tmp_path / "tall.npy", values().T)
    source = DepthSource(str(tmp_path / source["file"]))
    trace = run(partial(depth_text, depth=source), ASKED, ScriptedVLM([]))
    assert trace.error is not None
    assert reason in trace.error
    assert "\n" not in trace.error


def test_a_question_without_an_image_fails() -> None:
    trace = run(depth_text, Sample("q", (user("How far?"),)), ScriptedVLM([]))
    assert trace.error == "depth needs an image, and the question has none"


def things(session, image) -> list[tuple[str, Region]]:
    return [("left", Region(0, 0, 0.4, 1)), ("right", Region(0.6, 0, 1, 1))]


def test_a_program_may_name_the_things(file: str) -> None:
    vlm = ScriptedVLM(["left"])
    source = DepthSource(file, scale=1000, kind="relative")
    run(partial(depth_text, depth=source, things=things), ASKED, vlm)
    assert "From the nearest to the farthest: left, right." in vlm.conversations[0][0].text


@pytest.mark.torch
def test_ask_and_a_batch_take_a_persons_map(
    tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    GREY.pixels.save(tmp_path / "a.png")
    how = ["--strategy", "depth", "--depth-scale", "1000", "--max-tokens", "4"]
    asked = ["ask", str(tmp_path / "a.png"), "Which?", "--depth", file, "--json", *how]
    drawn = tmp_path / "drawn.png"
    mm_run([*asked, "--draw", str(drawn)])
    said = json.loads(capsys.readouterr().out)
    assert said["depth"]["kind"] == "metric"
    assert said["depth"]["regions"]
    assert PIL.Image.open(drawn).size > (160, 40)
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"image": "a.png", "question": "Which?", "depth": "room.png"}))
    out = tmp_path / "answers.jsonl"
    assert mm_run(["ask", "--batch", str(rows), "--out", str(out), *how]) == 0
    assert json.loads(out.read_text())["depth"]["source"].endswith("room.png")


def test_flags_that_nothing_uses_are_refused(tmp_path: Path, capsys) -> None:
    GREY.pixels.save(tmp_path / "a.png")
    assert mm_run(["ask", str(tmp_path / "a.png"), "Which?", "--depth", "x.png"]) == 2
    assert "direct uses none; use depth-text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "depth", "reason"),
    [
        pytest.param("tiny", DepthSource(), None, id="the bundled models, together"),
        pytest.param("qwen", DepthSource(model=TINY), None, id="named for another model"),
        pytest.param("qwen", DepthSource(), "no depth map: give one", id="unasked for another"),
        pytest.param(
            "qwen",
            ChangedDepth(ChangedDepth(DepthSource(), flipped), noisy),
            "no depth map: give one",
            id="unasked under controls",
        ),
    ],
)
@pytest.mark.torch
def test_the_bundled_depth_model_is_for_the_bundled_model(name, depth, reason) -> None:
    vlm = ScriptedVLM(["none", "left"])
    vlm.name = name
    scene = question("Which is nearest?", "app/examples/grain.png")
    trace = run(partial(depth_text, depth=depth), scene, vlm)
    assert (reason in trace.error) if reason else trace.error is None, trace.error


@pytest.mark.parametrize(
    "strategy", [depth_text, depth_zoom, partial(depth_latent, midi=lambda *_: None)]
)
def test_where_nothing_is_to_be_told_the_question_alone_is_asked(strategy) -> None:
    vlm = ScriptedVLM(["chair"])
    trace = run(partial(strategy, depth=untold), ASKED, vlm)
    assert (trace.answer, trace.error) == ("chair", None)
    assert not [said for said in vlm.conversations[0] if "depth map" in said.text]


@pytest.mark.torch
def test_the_kind_of_files_turns_no_known_model_over(tmp_path: Path) -> None:
    source = DepthSource(kind="inverse", model=TINY)
    scene = question("Which is nearest?", "app/examples/grain.png")
    assert source(scene, scene.images[0]).kind == "metric"
    np.save(tmp_path / "map.npy", np.linspace(1, 3, 3200).reshape(40, 80))
    own = Sample("q", ASKED.prompt, tags={"depth": str(tmp_path / "map.npy")})
    assert source(own, GREY).kind == "inverse"


@pytest.mark.torch
def test_a_depth_model_runs_where_it_is_told() -> None:
    """ "meta" stands for an accelerator."""
    model: Any = DepthSource(model=TINY, device="meta").loaded()
    assert model._model.device.type == "meta"
    assert DepthSource(device="cpu") == DepthSource()  # which is how flags are told from none


@pytest.mark.parametrize(
    ("strategy", "error", "told"),
    [
        pytest.param(depth_latent, UserError, "depth-latent needs the module", id="no module"),
        pytest.param(
            partial(depth_latent, midi="/nosuch"), ModelUnavailable, "/nosuch", id="no such module"
        ),
        pytest.param(
            partial(depth_text, depth=DepthSource(model="/nosuch")),
            ModelUnavailable,
            "/nosuch",
            id="no such depth model",
        ),
        pytest.param(
            partial(vote, strategy=depth_latent), UserError, "needs the module", id="inside another"
        ),
    ],
)
@pytest.mark.torch
def test_a_wrong_set_up_is_told_before_the_first_question(strategy, error, told) -> None:
    with pytest.raises(error, match=told):
        make_ready(strategy, "mine")


@pytest.mark.parametrize(
    "strategy",
    [
        pytest.param(depth_text, id="nothing named"),
        pytest.param(partial(depth_latent, midi=lambda *_: None), id="a function"),
        pytest.param(partial(vote, strategy=depth_text), id="inside another"),
    ],
)
def test_what_names_no_model_loads_none(strategy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundled depth model is loaded where a question turns out to need it."""
    loaded: list[object] = []
    monkeypatch.setattr("vision.depth_source._loaded", lambda *named: loaded.append(named))
    make_ready(strategy, "mine")
    assert not loaded


@pytest.mark.parametrize(
    "strategy",
    [
        pytest.param(depth_text, id="alone"),
        pytest.param(partial(vote, strategy=depth_text, n=2), id="inside another"),
        pytest.param(partial(vote, strategy=partial(vote, strategy=depth_text)), id="deeper"),
    ],
)
def test_depth_is_bound_however_deep_a_strategy_lies(strategy) -> None:
    bound = bind_depth(strategy, untold)
    inner = bound
    while isinstance(inner, partial) and "strategy" in inner.keywords:
        inner = inner.keywords["strategy"]
    assert isinstance(inner, partial)
    assert (inner.func, inner.keywords) == (depth_text, {"depth": untold})
    assert bind_depth(vote, untold) is vote
