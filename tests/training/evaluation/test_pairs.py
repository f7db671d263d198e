"""Traces collected, graded and gone on with; pairs made of them, and what becomes of the rest."""

from __future__ import annotations

import json
import ntpath
from dataclasses import replace
from functools import partial
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import pytest
from images import noise
from locales import ascii_only
from tiny_vlm import vlm as tiny_model

import mm
from mm.errors import UserError
from mm.scripted import ScriptedVLM
from mm.trace_store import load_traces
from mm.types import Clip, Features, Latents, Message, Part, Sampling, message
from training.benchmarks.verifier_report import graded_in
from training.data import read_data
from training.evaluation import pairs
from training.evaluation.collect import RIGHT, collect, open_folder
from training.evaluation.pairs import write_pairs
from training.evaluation.tasks import BadTarget, Item, Suite
from training.finetune.taught_verifier import taught_verifier
from training.trainers.row_builders import ROW_BUILDERS
from vision.act import act
from vision.look_loop import SPENT
from vision.verifier import ENOUGH, Trained
from vision.zoom import zoom

CALL = (
    '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 400, 400]}}'
    "</tool_call>"
)
WARM = Sampling(temperature=1.0)


def suite(count: int = 1) -> Suite:
    items = [
        Item(mm.question("What letter?", noise(n), id=f"q{n}", target="K")) for n in range(count)
    ]
    return Suite("read", lambda: items, count)


def collected(folder: Path, replies: list[str], samples: int, strategy=zoom, count: int = 1):
    vlm = ScriptedVLM(replies)
    done = open_folder(folder, {"model": "scripted"})
    return collect(
        [suite(count)], strategy, vlm, folder, samples=samples, done=done, sampling=WARM, threads=1
    )


def test_each_draw_is_graded_and_has_a_seed_of_its_own(tmp_path: Path) -> None:
    said = collected(tmp_path, [CALL, "K", "Q", CALL, "K"], 3)
    assert (said.traces, said.right, said.failed) == (3, 2, 0)
    traces = load_traces(tmp_path)
    assert [t.best.steps[-1].scores[RIGHT] for t in traces] == [1.0, 0.0, 1.0]
    seeds = {t.settings["sampling"]["seed"] for t in traces}  # type: ignore[index]
    assert len(seeds) == 3
    later = {seed + 1_000_003 * reply for seed in seeds for reply in range(1, 4)}
    assert not later & seeds  # as a session seeds the replies that follow


def test_it_goes_on_after_a_kill(tmp_path: Path) -> None:
    collected(tmp_path, ["K", "Q"], 2)
    file = tmp_path / "traces.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + lines[1][:-20])  # killed while it wrote
    said = collected(tmp_path, ["Q", "K"], 3)
    assert (said.traces, said.right) == (2, 1)
    assert [t.settings["draw"] for t in load_traces(tmp_path)] == ["q0 0", "q0 1", "q0 2"]


def test_other_traces_are_not_mixed_in(tmp_path: Path) -> None:
    open_folder(tmp_path, {"model": "a"})
    with pytest.raises(BadTarget, match="differ in model: give another --out"):
        open_folder(tmp_path, {"model": "b"})
    mm.save_traces([], tmp_path / "other")
    with pytest.raises(BadTarget, match="holds traces of `mm ask`"):
        open_folder(tmp_path / "other", {"model": "b"})


def test_a_failure_is_counted_and_tried_again(tmp_path: Path) -> None:
    assert collected(tmp_path, ["K"], 2).failed == 1
    assert collected(tmp_path, ["Q"], 2).traces == 1


def verdicts(file: Path) -> list[tuple[int, str]]:
    """For each row, how many messages stand before the question if it is enough, and the word."""
    found = []
    for row in map(json.loads, file.read_text().splitlines()):
        assert row["prompt"][-1]["content"] == [{"type": "text", "text": ENOUGH}]
        word, other = (row[side][0]["content"][0]["text"] for side in ("chosen", "rejected"))
        assert {word, other} == {"yes", "no"}
        found.append((len(row["prompt"]) - 1, word))
    return found


def test_verdicts_are_asked_of_right_and_wrong_branches_alike(tmp_path: Path) -> None:
    collected(tmp_path / "traces", ["K", "Q", "K"], 3)
    counts = write_pairs(tmp_path / "traces", tmp_path / "pairs.jsonl")
    assert (counts.pairs, counts.mixed, counts.all_right, counts.all_wrong) == (2, 1, 0, 0)
    assert verdicts(tmp_path / "pairs.jsonl") == [(2, "yes"), (2, "no")]


def test_a_verdict_is_asked_after_looks_too(tmp_path: Path) -> None:
    other = CALL.replace("400, 400", "300, 300")
    collected(tmp_path / "traces", [CALL, other, "K", CALL, other, "Q"], 2)
    write_pairs(tmp_path / "traces", tmp_path / "pairs.jsonl")
    right, wrong = [(6, "yes"), (5, "yes"), (3, "no")], [(6, "no"), (5, "no")]
    assert verdicts(tmp_path / "pairs.jsonl") == right + wrong


def test_questions_share_verdicts_where_allowed(tmp_path: Path) -> None:
    collected(tmp_path / "traces", ["K", "Q"], 1, count=2)
    with pytest.raises(UserError, match="1 all right, 1 all wrong"):
        write_pairs(tmp_path / "traces", tmp_path / "pairs.jsonl")
    write_pairs(tmp_path / "traces", tmp_path / "pairs.jsonl", across=True)
    assert verdicts(tmp_path / "pairs.jsonl") == [(2, "yes"), (2, "no")]


def test_ways_part_where_they_differ(tmp_path: Path) -> None:
    collected(tmp_path / "traces", [CALL, "K", CALL, "Q"], 2)
    out = tmp_path / "pairs.jsonl"
    assert write_pairs(tmp_path / "traces", out, kind="trajectory").pairs == 1
    (row,) = map(json.loads, out.read_text().splitlines())
    assert [m["role"] for m in row["prompt"]] == ["user", "assistant", "tool"]
    assert len(row["images"]) == 2  # the question's, and the crop that both saw
    assert [row[side][0]["content"][0]["text"] for side in ("chosen", "rejected")] == ["K", "Q"]


@pytest.mark.parametrize("kind", ["verdict", "trajectory", "step"])
@pytest.mark.parametrize(
    ("strategy", "tools"),
    [
        pytest.param(zoom, "zoom", id="the zoom tool"),
        pytest.param(act, "all", id="all actions"),
        pytest.param(mm.direct, None, id="none"),
    ],
)
def test_pairs_tell_how_their_verifier_is_read(tmp_path: Path, kind: Any, strategy, tools) -> None:
    collected(tmp_path / "traces", ["K", "Q"], 2, strategy=strategy)
    write_pairs(tmp_path / "traces", tmp_path / "pairs.jsonl", kind=kind)
    data = read_data(tmp_path / "pairs.jsonl")
    known = Trained("score" if kind == "verdict" else "logratio", tools=tools)
    assert taught_verifier(data[index] for index in range(len(data))) == known


def test_ways_that_part_early_keep_their_own_images(tmp_path: Path) -> None:
    collected(tmp_path / "traces", [CALL, "K", "Q"], 2)
    out = tmp_path / "pairs.jsonl"
    write_pairs(tmp_path / "traces", out, kind="trajectory")
    builder = tiny_model("qwen3_vl").builder
    (row,) = read_data(out).shown_to(builder)
    assert [len(m.images) for m in row.chosen] == [0, 1, 0]
    sides = ROW_BUILDERS["dpo"](builder)(row)
    assert [len(side.images) for side in sides] == [2, 1]


@pytest.mark.parametrize(
    ("replies", "left"),
    [
        pytest.param(["K", "K"], "1 all right", id="all right"),
        pytest.param(["Q", "X"], "1 all wrong", id="all wrong"),
    ],
)
def test_groups_without_a_difference_make_no_pair(tmp_path: Path, replies, left: str) -> None:
    collected(tmp_path / "traces", replies, 2)
    with pytest.raises(UserError, match=f"no pair: .*{left}"):
        write_pairs(tmp_path / "traces", tmp_path / "pairs.jsonl")


def test_a_spent_budget_teaches_nothing(tmp_path: Path) -> None:
    collected(tmp_path / "traces", ["K", "Q"], 2)
    traces = load_traces(tmp_path / "traces")
    traces[1].score(traces[1].chosen or 0, SPENT, 1.0)
    mm.save_traces(traces, tmp_path / "traces")
    with pytest.raises(UserError, match="1 traces left out"):
        write_pairs(tmp_path / "traces", tmp_path / "pairs.jsonl")


@pytest.mark.parametrize(
    ("strategy", "replies"),
    [
        pytest.param(partial(zoom, max_looks=1), [CALL + CALL, "K", "Q"], id="zoom"),
        pytest.param(partial(act, max_steps=1), [CALL + CALL, "K", "Q"], id="act"),
    ],
)
def test_a_budget_spent_under_any_strategy_teaches_nothing(tmp_path: Path, strategy, replies):
    collected(tmp_path / "traces", replies, 2, strategy=strategy)
    with pytest.raises(UserError, match=r"1 traces left out .budget spent, reply cut"):
        write_pairs(tmp_path / "traces", tmp_path / "pairs.jsonl")


def test_an_answer_after_the_last_look_that_was_allowed_teaches(tmp_path: Path) -> None:
    once = partial(zoom, max_looks=1)
    collected(tmp_path / "traces", [CALL, "K", CALL, "Q"], 2, strategy=once)
    counts = write_pairs(tmp_path / "traces", tmp_path / "pairs.jsonl")
    assert (counts.pairs, counts.left_out) == (4, 0)


def changed(folder: Path, at: int, **step: Any) -> None:
    """The traces in `folder` with another last step in the one at `at`."""
    traces = load_traces(folder)
    traces[at].steps[-1] = replace(traces[at].steps[-1], **step)
    mm.save_traces(traces, folder)


@pytest.mark.parametrize(
    "step",
    [
        pytest.param({"finish": "length"}, id="cut"),
        pytest.param({"message": Message("assistant", ())}, id="empty"),
    ],
)
def test_a_reply_without_an_end_or_a_beginning_teaches_nothing(tmp_path: Path, step) -> None:
    collected(tmp_path / "traces", ["K", "Q"], 2)
    changed(tmp_path / "traces", 1, **step)
    with pytest.raises(UserError, match=r"1 all right, 0 all wrong; 1 traces left out .budget"):
        write_pairs(tmp_path / "traces", tmp_path / "pairs.jsonl")


@pytest.mark.parametrize("kind", ["verdict", "trajectory", "step"])
def test_a_choice_made_for_the_model_teaches_nothing(tmp_path: Path, kind: Any) -> None:
    (item,) = suite().items()
    closed = Item(replace(item.sample, choices=("K", "Q")))
    vlm = ScriptedVLM(["Q", "I cannot say."], scores={"K": -0.1, "Q": -3.0})
    done = open_folder(tmp_path / "traces", {"model": "scripted"})
    of = Suite("read", lambda: [closed], 1)
    how = {"samples": 2, "done": done, "sampling": WARM, "threads": 1}
    assert collect([of], zoom, vlm, tmp_path / "traces", **how).right == 1
    with pytest.raises(UserError, match=r"1 traces left out .not all of it the model's own"):
        write_pairs(tmp_path / "traces", tmp_path / "pairs.jsonl", kind=kind)
    own, forced = graded_in(tmp_path / "traces")
    assert ([branch.answer for branch in own], forced) == (["Q"], 1)


def test_words_that_the_model_did_not_write_are_no_trajectory(tmp_path: Path) -> None:
    """A call of `terminate`, whose answer is said as text: a verdict's context, and no reply."""
    ends = '<tool_call>{"name": "terminate", "arguments": {"answer": "Q"}}</tool_call>'
    collected(tmp_path / "traces", ["K", ends], 2, strategy=act)
    assert write_pairs(tmp_path / "traces", tmp_path / "pairs.jsonl").pairs == 2
    with pytest.raises(UserError, match=r"1 traces left out .not all of it the model's own"):
        write_pairs(tmp_path / "traces", tmp_path / "pairs.jsonl", kind="trajectory")


def test_a_side_that_the_other_goes_on_from_is_tied(tmp_path: Path) -> None:
    collected(tmp_path / "traces", ["K", "Q"], 2)
    traces = load_traces(tmp_path / "traces")
    traces[1].steps[:] = [*traces[0].steps, replace(traces[1].steps[-1], parent=1)]
    traces[1].chosen = 2
    mm.save_traces(traces, tmp_path / "traces")
    with pytest.raises(UserError, match="1 pairs tied"):
        write_pairs(tmp_path / "traces", tmp_path / "pairs.jsonl", kind="trajectory")


def test_lengths_are_matched_over_a_server_too(tmp_path: Path) -> None:
    """Which counts tokens, and names none."""
    collected(tmp_path / "traces", ["It is K", "K", "Q", "It is Q, so"], 4)
    traces = load_traces(tmp_path / "traces")
    for trace in traces:
        bare = replace(trace.steps[0].message, tokens=None)
        trace.steps[0] = replace(trace.steps[0], message=bare)
    mm.save_traces(traces, tmp_path / "traces")
    write_pairs(tmp_path / "traces", tmp_path / "p.jsonl", kind="trajectory", per_group=2)
    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    said = [[row[side][0]["content"][0]["text"] for side in ("chosen", "rejected")] for row in rows]
    assert said == [["K", "Q"], ["It is K", "It is Q, so"]]


def test_rows_must_be_able_to_name_the_images(tmp_path: Path) -> None:
    collected(tmp_path / "traces", ["K", "Q"], 2)
    with pytest.raises(UserError, match="put it beside or above"):
        write_pairs(tmp_path / "traces", tmp_path / "elsewhere" / "pairs.jsonl")


def test_lengths_are_matched(tmp_path: Path) -> None:
    collected(tmp_path / "traces", ["It is K", "K", "Q", "It is Q, so"], 4)
    write_pairs(tmp_path / "traces", tmp_path / "p.jsonl", kind="trajectory", per_group=2)
    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    said = [[row[side][0]["content"][0]["text"] for side in ("chosen", "rejected")] for row in rows]
    assert said == [["K", "Q"], ["It is K", "It is Q, so"]]


def test_options_of_a_strategy_are_kept(tmp_path: Path) -> None:
    said = collected(tmp_path, [CALL, "K"], 1, strategy=partial(zoom, max_looks=1))
    assert replace(said, failed=0).right == 1


@pytest.mark.parametrize(
    ("role", "shown", "counted"),
    [
        pytest.param("tool", Features, "1 traces left out .clips, images", id="from memory"),
        pytest.param(
            "user",
            lambda image: Latents(image, "k", None),
            "1 traces left out .clips",
            id="latents",
        ),
        pytest.param("user", lambda image: Clip("a.mp4"), "1 traces left out .clips", id="a clip"),
        pytest.param("assistant", Features, "1 traces left out", id="inside a reply"),
    ],
)
def test_what_no_row_can_show_is_left_out(tmp_path: Path, monkeypatch, role, shown, counted):
    """As `replay` shows it."""
    collected(tmp_path / "traces", [CALL, "K", "Q"], 2)
    traces = load_traces(tmp_path / "traces")
    part: Part = shown(traces[0].sample.images[0])
    traces[0].steps[1] = replace(traces[0].steps[1], message=message(role, part))
    monkeypatch.setattr("training.evaluation.pairs.load_traces", lambda _: traces)
    with pytest.raises(UserError, match=f"no pair: .*1 all wrong; .*{counted}"):
        write_pairs(tmp_path / "traces", tmp_path / "pairs.jsonl")


def test_pairs_are_utf8_in_any_locale(tmp_path: Path) -> None:
    collected(tmp_path / "traces", ["K", "Ä"], 2)
    out = tmp_path / "pairs.jsonl"
    with ascii_only():
        write_pairs(tmp_path / "traces", out, kind="trajectory")
    assert "Ä" in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("traces", "out", "images"),
    [
        pytest.param(r"C:\run\traces", r"C:\run\a.jsonl", "traces/images", id="beside"),
        pytest.param(r"C:\run\traces", r"C:\a.jsonl", "run/traces/images", id="above"),
        pytest.param(r"C:\run\traces", r"C:\b\a.jsonl", None, id="elsewhere"),
        pytest.param(r"C:\run\traces", r"D:\run\a.jsonl", None, id="another drive"),
    ],
)
def test_rows_name_images_with_slashes_on_windows_too(
    monkeypatch: pytest.MonkeyPatch, traces: str, out: str, images: str | None
) -> None:
    monkeypatch.setattr(pairs, "Path", PureWindowsPath)
    monkeypatch.setattr(pairs, "os", SimpleNamespace(path=ntpath))
    folder: Any = PureWindowsPath(traces)
    file: Any = PureWindowsPath(out)
    if images is None:
        with pytest.raises(UserError, match="put it beside or above"):
            pairs._images_from(folder, file)
    else:
        assert pairs._images_from(folder, file) == images
