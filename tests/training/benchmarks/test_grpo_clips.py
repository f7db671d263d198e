"""The rows of the experiment on thoughts about clips."""

from __future__ import annotations

import random

import pytest

from training.benchmarks.grpo_clips import (
    BEGUN,
    description,
    ends,
    named,
    thought,
    write_rows,
)
from training.data import read_data
from training.tabletop.clip_questions import ask_clip
from training.tabletop.motion import make_motion


@pytest.mark.parametrize("wrong", [0.0, 1.0], ids=["all right", "all wrong"])
@pytest.mark.parametrize("task", ["order", "tally"])
def test_thoughts_describe_and_conclude(task: str, wrong: float) -> None:
    motion = make_motion(7)
    question = ask_clip(task, motion, random.Random(0))
    assert question is not None
    said = thought(motion, question, wrong, random.Random(0))["messages"][-1]["content"]
    assert said.startswith(f"<think>{BEGUN} There are ")
    assert (description(motion) in said) == (wrong == 0)
    assert said.endswith(f"<answer>{question.answer}</answer>") == (wrong == 0)


def test_a_description_names_things_of_the_clip() -> None:
    for seed in range(20):
        motion = make_motion(seed)
        assert named(description(motion)) == set(ends(motion))
        assert set(ends(motion)) <= {thing.name for thing in motion.scene.things}


@pytest.mark.parametrize("wrong", [0.3, None], ids=["to learn from", "to answer"])
def test_rows_are_read_as_they_were_written(tmp_path, wrong: float | None) -> None:
    rows = list(read_data(write_rows(tmp_path, "test", 4, wrong=wrong)))
    assert [row.source for row in rows] == ["order", "tally"] * 2
    assert all(len(row.prompt[0].clips) == 1 for row in rows)
    if wrong is None:
        assert [bool(row.choices) for row in rows] == [True, False] * 2
        assert all(row.answer for row in rows)
