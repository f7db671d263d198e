"""Steps over siblings: who they are, which is better, what a row shows and trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from images import noise
from tiny_vlm import vlm as tiny_model

import mm
from mm.markup import parse_parts, render_parts
from mm.scripted import ScriptedVLM
from mm.trace import Branch, Sample, Step
from mm.trace_store import load_traces
from mm.types import Cost, Message, assistant, message, user
from training.data import read_data
from training.evaluation.collect import RIGHT, collect, open_folder
from training.evaluation.graded_groups import Counts, wrote_steps
from training.evaluation.pairs import write_pairs
from training.evaluation.step_pairs import step_pairs
from training.evaluation.tasks import Item, Suite
from training.trainers.row_builders import ROW_BUILDERS
from vision.act import act

ASKED = Sample("q", (user("What letter?"),), "K")
SEEN = message("tool", "seen")


def wrote(text: str, tokens: int = 1, **facts: Any) -> Step:
    return Step(assistant(text), sampled=True, cost=Cost(generated_tokens=tokens), **facts)


def branch(*said: str | Step | Message, right: bool) -> Branch:
    """A branch of texts of the model's, and of other steps and messages."""
    kinds: dict[type, Callable[[Any], Step]] = {str: wrote, Message: Step, Step: lambda step: step}
    steps = [kinds[type(each)](each) for each in said]
    steps[-1] = replace(steps[-1], scores={RIGHT: float(right)})
    return Branch(ASKED, tuple(steps), None)


def made(*group: Branch, per_group: int = 4) -> tuple[list[tuple[str, str, int]], Counts]:
    """For each pair the chosen text, the rejected one, and how many messages both follow."""
    counts = Counts()
    pairs = list(step_pairs(group, counts, per_group))
    assert all(len(chosen) == len(rejected) == 1 for _, _, chosen, rejected in pairs)
    return [(c[0].text, r[0].text, len(shared)) for _, shared, c, r in pairs], counts


@pytest.mark.parametrize(
    ("group", "pairs"),
    [
        pytest.param([("K", True), ("Q", False)], [("K", "Q", 1)], id="answers"),
        pytest.param(
            [("a", SEEN, "K", True), ("a", SEEN, "K", True), ("b", SEEN, "Q", False)],
            [("a", "b", 1)],
            id="looks, by what followed",
        ),
        pytest.param(
            [("a", SEEN, "K", True), ("a", SEEN, "Q", False), ("b", SEEN, "Q", False)],
            [("K", "Q", 3), ("a", "b", 1)],
            id="further apart first",
        ),
        pytest.param(
            [("a", "K", True), ("a", "Q", False), ("b", "K", True), ("b", "Q", False)],
            [("K", "Q", 2), ("K", "Q", 2)],
            id="looks that are level",
        ),
        pytest.param([("K", True), ("a", SEEN, "Q", False)], [("K", "a", 1)], id="to stop"),
        pytest.param([("a", SEEN, "K", True), ("Q", False)], [("a", "Q", 1)], id="to look on"),
        pytest.param(
            [
                ("a", message("tool", "once"), "K", True),
                ("a", message("tool", "again"), "K", True),
                ("b", SEEN, "K", True),
                ("b", SEEN, "Q", False),
            ],
            [("K", "Q", 3), ("a", "b", 1)],
            id="one step, whatever it was shown",
        ),
        pytest.param(
            [("a", message("tool", noise(1)), "K", True), ("a", message("tool", noise(2)), "Q", 0)],
            [],
            id="after other images there are no siblings",
        ),
    ],
)
def test_the_step_that_was_right_more_often_is_chosen(group: list, pairs: list) -> None:
    branches = [branch(*said, right=bool(right)) for *said, right in group]
    assert made(*branches)[0] == pairs
    assert made(*branches[::-1])[0] == pairs


@pytest.mark.parametrize(
    ("other", "level"),
    [
        pytest.param(branch("K", "Q", right=False), 1, id="one goes on from the other"),
        pytest.param(branch("Q", right=True), 0, id="all right"),
        pytest.param(branch(assistant("Q"), right=False), 1, id="not the model's words"),
        pytest.param(branch(wrote("Q", finish="length"), right=False), 1, id="cut"),
        pytest.param(branch("Q", right=False), 0, id="a contrast"),
    ],
)
def test_mixed_answers_without_a_better_step_are_counted(other: Branch, level: int) -> None:
    pairs, counts = made(branch("K", right=True), other)
    assert counts.level == level
    assert bool(pairs) == (level == 0 and other.steps[-1].scores[RIGHT] == 0)
    assert any("mixed questions tied" in line for line in counts.lines()) == bool(level)


def test_each_step_is_used_once_with_the_one_most_like_it_in_length() -> None:
    right = [branch(wrote(f"K{n}", n), right=True) for n in (9, 2)]
    wrong = [branch(wrote(f"Q{n}", n), right=False) for n in (1, 10, 30)]
    pairs, counts = made(*right, *wrong)
    assert [pair[:2] for pair in pairs] == [("K9", "Q10"), ("K2", "Q1")]
    assert (counts.chosen, counts.rejected) == ([9, 2], [10, 1])
    assert made(*right, *wrong, per_group=1)[0] == pairs[:1]


END = '<tool_call>{"name": "terminate", "arguments": {"answer": "Q"}}</tool_call>'


def called(text: str) -> Step:
    """A reply with calls as the model's words are read."""
    return replace(wrote(""), message=Message("assistant", parse_parts(text)))


@pytest.mark.parametrize(
    ("said", "counts"),
    [
        pytest.param(["a", SEEN, "K"], True, id="all of it"),
        pytest.param([called(END), assistant("<answer>Q</answer>")], True, id="a call's answer"),
        pytest.param(["a", assistant("<answer>"), "Q"], False, id="an opened answer"),
        pytest.param(["a", assistant("<answer>Q</answer>")], False, id="nobody called"),
        pytest.param([assistant("a"), SEEN, "K"], False, id="a look that was chosen for it"),
    ],
)
def test_whose_words_the_steps_are(said: list, counts: bool) -> None:
    assert wrote_steps(branch(*said, right=True)) == counts


def test_a_choice_made_after_a_call_that_ends_is_not_the_models() -> None:
    ended = branch(called(END), assistant("K"), right=True)
    assert wrote_steps(ended)
    assert not wrote_steps(replace(ended, sample=replace(ASKED, choices=("K", "L"))))


def look(side: int) -> str:
    arguments = f'{{"bbox_2d": [0, 0, {side}, {side}]}}'
    return f'<tool_call>{{"name": "image_zoom_in_tool", "arguments": {arguments}}}</tool_call>'


def collected(folder: Path, replies: list[str], samples: int) -> None:
    item = Item(mm.question("What letter?", noise(1), id="q", target="K"))
    done = open_folder(folder, {"model": "scripted"})
    how = {"samples": samples, "done": done, "sampling": mm.Sampling(temperature=1.0), "threads": 1}
    collect([Suite("read", lambda: [item], 1)], act, ScriptedVLM(replies), folder, **how)


def test_a_row_has_all_images_and_trains_one_step_of_each_side(tmp_path: Path) -> None:
    replies = [look(400), "K", look(400), look(300), "Q", look(400), END]
    collected(tmp_path / "traces", replies, 3)
    assert [len(trace.images) for trace in load_traces(tmp_path / "traces")] == [1, 2, 1]
    out, builder = tmp_path / "pairs.jsonl", tiny_model("qwen3_vl").builder
    write_pairs(tmp_path / "traces", out, kind="step")
    (row,) = read_data(out).shown_to(builder)
    assert [m.role for m in row.messages[-3:]] == ["user", "assistant", "tool"]
    sides = ROW_BUILDERS["dpo"](builder)(row)
    assert [len(side.images) for side in sides] == [2, 2]  # the question's, and the shared crop
    for side, said in zip(sides, (row.chosen, row.rejected), strict=True):
        trained = [id for id, trains in zip(side.ids, side.trained, strict=True) if trains]
        assert builder.tokenizer.decode(trained).startswith(render_parts(said[0].parts))
