"""VideoRFT's rewards: the paper's numbers, the released code's quirks, and a real SigLIP."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from siglip_models import save_siglip

import mm
from mm.markup import parse_parts
from mm.origins import FrameOf
from mm.trace import Step, Trace
from mm.types import Image, Message, user
from training.data import BadData, Row, read_data
from training.rewards.presets import read_mix
from training.rewards.terms import Attempt, contributions, results_of, why_zero
from training.rewards.video_rft import (
    choice,
    consistency,
    described,
    numerical,
    regression,
    rouge,
    transcription,
    typed_accuracy,
)
from video import clip_of, uniform
from video.siglip import load_siglip

FRAMES = [PIL.Image.new("RGB", (32, 32), shade) for shade in ("red", "blue", "green")]


def attempt(written: str, answer: str | None = None, *, choices: tuple[str, ...] = ()) -> Attempt:
    shown = [Image(pixels, FrameOf("a", float(n))) for n, pixels in enumerate(FRAMES)]
    sample = mm.Sample("r", (user(*shown, "What happens?"),), choices=choices)
    trace = Trace(sample)
    said = Message("assistant", parse_parts(written), tuple(written.encode()))
    trace.chosen = trace.add(Step(said, sampled=True))
    return Attempt(trace.best, Row("r", sample.prompt, answer=answer, choices=choices))


def said(answer: str) -> str:
    return f"<think>It moves. Red, then blue.</think><answer>{answer}</answer>"


@pytest.mark.parametrize(
    ("term", "answer", "choices"),
    [
        pytest.param(transcription, "hello big world", (), id="read off"),
        pytest.param(rouge, "hello big world", (), id="free text"),
        pytest.param(typed_accuracy, "hello big world", (), id="free text by its type"),
        pytest.param(typed_accuracy, "3", (), id="a number by its type"),
        pytest.param(partial(choice, released=True), "B", ("A", "B"), id="a choice"),
        pytest.param(partial(numerical, released=True), "3", (), id="a number"),
    ],
)
def test_tags_around_what_is_right_change_nothing(term, answer, choices):
    tagged = f"<answer> {answer} </answer>"
    assert term(attempt(said(answer), tagged, choices=choices)) == 1.0


@pytest.mark.parametrize(
    ("term", "answer", "target", "paper", "released"),
    [
        pytest.param(numerical, "3", "3.0", 1.0, 0.0, id="a point on one side"),
        pytest.param(numerical, "1000", "1,000", 1.0, 0.0, id="a comma on one side"),
        pytest.param(numerical, "3.14", "3.144", 1.0, 1.0, id="two decimals"),
        pytest.param(numerical, "3.1", "3.2", 0.0, 0.0, id="another number"),
        pytest.param(numerical, "many", "3", 0.0, 0.0, id="no number"),
        pytest.param(regression, "12", "10", 0.8, 0.8, id="a fifth away"),
        pytest.param(regression, "0", "0", 1.0, 0.0, id="a right zero"),
        pytest.param(regression, "5", "0", 0.0, 0.0, id="a wrong zero"),
        pytest.param(regression, "30", "10", 0.0, 0.0, id="far away"),
    ],
)
def test_numbers(term, answer: str, target: str, paper: float, released: float) -> None:
    one = attempt(said(answer), target)
    assert term(one) == pytest.approx(paper)
    assert term(one, released=True) == pytest.approx(released, abs=1e-6)


@pytest.mark.parametrize(
    ("answer", "target", "right"),
    [
        ("hello there world", "hello world", 0.5),
        ("hello world", "hello world", 1.0),
        ("", "a b", 0),
    ],
)
def test_transcriptions(answer: str, target: str, right: float) -> None:
    assert transcription(attempt(said(answer), target)) == pytest.approx(right)


@pytest.mark.parametrize(
    ("answer", "target", "f1"),
    [
        pytest.param("a red cup", "a red cup", 1.0, id="the same"),
        pytest.param("no", "a red cup", 0.0, id="nothing shared"),
        pytest.param("a cup", "a red cup", (0.8 + 0.0 + 0.8) / 3, id="words, no pair of them"),
    ],
)
def test_free_text(answer: str, target: str, f1: float) -> None:
    assert rouge(attempt(said(answer), target)) == pytest.approx(f1)


def test_choices_and_types() -> None:
    letters = ("A", "B")
    assert choice(attempt(said("A."), "A", choices=letters)) == 1.0
    assert choice(attempt(said("A."), "A", choices=letters), released=True) == 0.0
    assert typed_accuracy(attempt(said("A"), "A", choices=letters)) == 1.0
    assert typed_accuracy(attempt(said("3"), "3.0")) == 1.0
    assert 0 < typed_accuracy(attempt(said("a cup"), "a red cup")) < 1
    assert typed_accuracy(attempt(said("a cup"))) == 0.0


@pytest.mark.parametrize(
    ("thought", "paper", "released"),
    [
        pytest.param("It asks. A cup falls.", "A cup falls.", "A cup falls.", id="two sentences"),
        pytest.param("At 0.5 s it asks. A cup.", "A cup.", "5 s it asks. A cup.", id="a number"),
        pytest.param("Only this", "Only this", "Only this", id="one"),
    ],
)
def test_what_is_described(thought: str, paper: str, released: str) -> None:
    one = attempt(f"<think>{thought}</think><answer>a</answer>")
    assert (described(one), described(one, released=True)) == (paper, released)


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_siglip(tmp_path_factory.mktemp("siglip"))


def test_consistency_is_the_cosine_with_the_mean_frame(siglip: Path) -> None:
    one = attempt(said("a"), "a")
    model = load_siglip(str(siglip))
    words, seen = model.texts(["Red, then blue."])[0], model.images(FRAMES)
    mean = seen.mean(0)
    cosine = float(mean @ words / mean.norm())
    expected = min(1.0, 2 * max(cosine, 0.0))
    assert consistency(one, siglip=str(siglip)) == pytest.approx(expected, abs=1e-6)
    each = float((2 * (seen @ words).clamp(min=0)).clamp(max=1).mean())
    assert consistency(one, siglip=str(siglip), released=True) == pytest.approx(each, abs=1e-6)
    assert consistency(one, siglip=str(siglip), weight=1e9) in (0.0, 1.0)


def test_nothing_described_and_nothing_shown_is_worth_nothing(siglip: Path) -> None:
    bare = attempt("", "a")
    assert consistency(bare, siglip=str(siglip)) == 0.0
    sample = replace(bare.branch.sample, prompt=(user("What?"),))
    blind = Attempt(replace(attempt(said("a")).branch, sample=sample), bare.row)
    assert consistency(blind, siglip=str(siglip)) == 0.0


def test_the_sum_pays_for_consistency_where_the_answer_is_partly_right(siglip: Path) -> None:
    mix = read_mix("video-rft", siglip=str(siglip))
    plain = [replace(each, term=(lambda _: 0.5)) for each in mix[2:]]
    mix = (*mix[:2], *plain)
    for answer, paid in (("a cup", 0.5), ("no", 0.0)):
        found = contributions(results_of(mix, attempt(said(answer), "a red cup")))
        assert found["consistency"] == paid
    free = read_mix("video-rft-no-gate", siglip=str(siglip))
    assert [each.gate for each in free] == [None, None, None]
    with pytest.raises(BadData, match="give --siglip"):
        read_mix("video-rft")


@pytest.mark.parametrize(
    ("answer", "value", "why"),
    [
        pytest.param("no", 0.5, (1.0, 0.0), id="shut by its gate"),
        pytest.param("a cup", 0.0, (0.0, 1.0), id="open, and 0 itself"),
        pytest.param("a cup", 0.5, (0.0, 0.0), id="paid"),
    ],
)
def test_why_nothing_was_paid_for_consistency(answer: str, value: float, why) -> None:
    mix = read_mix("rouge + 0.5*consistency@rouge", siglip="tiny-siglip")
    assert [(each.weight, each.part) for each in mix] == [(1.0, False), (0.5, True)]
    paying = [mix[0], replace(mix[1], term=lambda _: value)]
    found = results_of(paying, attempt(said(answer), "a cup"))
    told = why_zero(found)
    assert (told["consistency_shut"], told["consistency_zero"]) == why
    assert contributions(found)["consistency"] == 0.5 * value * (not why[0])


def test_consistency_alone_needs_a_checkpoint() -> None:
    with pytest.raises(BadData, match="compares thoughts with frames: give --siglip"):
        read_mix("accuracy + consistency@accuracy")


ROW = {
    "problem_id": 7,
    "problem": "Which?",
    "data_type": "image",
    "options": [],
    "process": "",
    "path": "./a.png",
    "data_source": "s",
}


@pytest.mark.parametrize(
    ("kind", "options", "solution", "answer", "right"),
    [
        pytest.param("multiple choice", ["A. red", "B. blue"], "B", "B", 1.0, id="a choice"),
        pytest.param("numerical", [], "3", "3.00", 1.0, id="a number"),
        pytest.param("regression", [], "10", "12", 0.8, id="regression"),
        pytest.param("OCR", [], "1 2 3", "1 2", 2 / 3, id="text read off"),
        pytest.param("free-form", [], "3", "3", 2 / 3, id="free text, by ROUGE"),
    ],
)
@pytest.mark.parametrize("process", ["", "<think>It is.</think>"], ids=["asked", "taught"])
def test_a_row_of_its_own_says_how_it_is_weighed(
    tmp_path: Path, kind: str, options: list[str], solution: str, answer: str, right, process: str
) -> None:
    FRAMES[0].save(tmp_path / "a.png")
    told = {"problem_type": kind, "options": options, "solution": f"<answer>{solution}</answer>"}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**ROW, **told, "process": process}))
    (row,) = read_data(path)
    assert (row.id, row.source, row.answer, row.choices) == ("7", "s", solution, tuple(options))
    assert row.trains == bool(process)
    assert len(row.prompt[0].images) == 1
    assert all(each in row.prompt[0].text for each in options)
    tried = replace(attempt(said(answer)), row=row)
    assert typed_accuracy(tried) == pytest.approx(right)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"problem_type": "essay"}, "expected a 'problem_type' of multiple choice"),
        ({"data_type": "sound"}, "expected 'video' or 'image' in 'data_type'"),
        ({"options": "A"}, "expected a list in 'options'"),
        ({"process": 3}, "expected text in 'process'"),
        ({"solution": None}, "expected text in 'solution'"),
        ({"answer": "4"}, "the same in 'answer' and in 'solution', found '4' and '3': --ignore"),
        ({"source": "t"}, "the same in 'source' and in 'data_source'"),
        ({"options": ["a", "b"], "choices": ["a", "c"]}, "the same in 'choices' and in 'options'"),
    ],
)
def test_a_row_that_cannot_be_read_says_why(tmp_path: Path, change, reason: str) -> None:
    FRAMES[0].save(tmp_path / "a.png")
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**ROW, "solution": "3", **change}))
    with pytest.raises(BadData, match=reason):
        list(read_data(path))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param({"source": "t", "data_source": ""}, ("t", "3"), id="its source alone"),
        pytest.param({"source": "s"}, ("s", "3"), id="the same source"),
        pytest.param({"answer": 3}, ("s", "3"), id="the same answer"),
        pytest.param({"answer": "", "source": None}, ("s", "3"), id="empty"),
    ],
)
def test_columns_that_say_the_same_are_kept(tmp_path: Path, change, told) -> None:
    FRAMES[0].save(tmp_path / "a.png")
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**ROW, "solution": "<answer>3</answer>", **change}))
    (row,) = read_data(path)
    assert (row.source, row.answer) == told


def test_frames_may_be_chosen_by_the_question(siglip: Path) -> None:
    frames = [PIL.Image.fromarray(np.full((32, 32, 3), n, np.uint8)) for n in range(0, 250, 5)]
    asked = mm.question("When?", clip_of(frames, [n / 10 for n in range(len(frames))]))
    strategy = partial(uniform, frames=4, choose="question", siglip=str(siglip))
    trace = mm.run(strategy, asked, mm.ScriptedVLM(["x"]))
    assert len(trace.sample.images) == 4
