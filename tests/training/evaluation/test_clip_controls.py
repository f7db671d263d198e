"""Controls of clips; one that cannot be opened fails its own question."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from clips import write_clip

import mm
from mm.types import Clip, user
from training.evaluation.clip_controls import chosen_span
from training.evaluation.controls import Condition, greyed
from training.evaluation.evaluate import evaluate
from training.evaluation.questions import read_questions
from video import uniform
from video.context import opened
from vision.crop import GREY


@pytest.mark.parametrize("control", ["", "blind", "middle-frame", "shuffled", "reversed"])
def test_a_broken_clip_fails_its_own_question(tmp_path: Path, control: str) -> None:
    write_clip(tmp_path / "a.mp4")
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    path = tmp_path / "rows.jsonl"
    clips = ("a.mp4", "broken.mp4", "a.mp4")
    rows = [{"video": clip, "question": "Which?", "answer": "red"} for clip in clips]
    path.write_text("\n".join(map(json.dumps, rows)))
    vlm, why = mm.ScriptedVLM(["red"] * 2), []
    condition = Condition("uniform", uniform, control)
    outcomes = evaluate(
        condition, read_questions(path), vlm, threads=1, watch=lambda _, t, o: why.append(t.error)
    )
    assert [o.failed for o in outcomes] == [False, True, False]
    assert "broken.mp4 cannot be read as a clip" in why[1]


@pytest.mark.parametrize(
    ("true", "within"),
    [
        pytest.param(None, (10.0, 20.0), id="random"),
        pytest.param((11.0, 13.0), (11.0, 13.0), id="true"),
    ],
)
def test_spans_lie_in_the_clips_own_times(true, within) -> None:
    """Which begin at 10 s here, as frames in memory may."""
    start, end = chosen_span(mm.question("?"), (14.0, 16.0), (10.0, 20.0), true=true)
    assert end - start == pytest.approx(2.0)
    assert within[0] <= start < end <= within[1]


def test_a_clip_is_greyed_with_the_images(tmp_path: Path) -> None:
    clip = Clip(str(write_clip(tmp_path / "a.mp4", frames=2)))
    ((grey,),) = [message.clips for message in greyed((user(clip, "?"),))]
    (frame,) = opened(grey).frames_at([0.0])
    assert frame.pixels.getcolors() == [(96 * 64, GREY)]
