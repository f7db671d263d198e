"""The rows of the experiment on wrong boxes, and its table."""

from __future__ import annotations

from mm.scripted import ScriptedVLM
from training.benchmarks.grpo_repair import WRONG, table, write_rows
from training.data import read_data
from training.evaluation.views import changes
from vision.crop import crop
from vision.zoom_tool import read_zoom_call


def test_taught_looks_show_what_a_policy_that_asks_for_them_sees(tmp_path):
    vlm = ScriptedVLM([])
    looks = wrong = 0
    for row in read_data(write_rows(tmp_path, "train", 12, wrong=WRONG), crop_rule="square"):
        (image,) = row.prompt[-1].images
        calls = [call for message in row.messages for call in message.tool_calls]
        crops = [image for m in row.messages if m.role == "tool" for image in m.images]
        assert len(calls) == len(crops) == len(row.regions)
        for call, shown, truth in zip(calls, crops, row.regions, strict=True):
            asked = read_zoom_call(call, [image], vlm).region
            assert crop(image, asked, rule="square").id == shown.id
            away = max(abs(asked.x0 - truth.x0), abs(asked.y0 - truth.y0))
            wrong += away > 0.02
        looks += len(calls)
    assert 0 < wrong < looks * 2.5 * WRONG


def test_questions_alone_say_what_is_right_and_where(tmp_path):
    rows = list(read_data(write_rows(tmp_path, "test", 4)))
    assert [row.source for row in rows] == ["read", "same"] * 2
    assert all(row.prompt and row.answer in row.choices and row.regions for row in rows)


def test_changes_are_from_the_start():
    names = ("sampled accuracy", "sampled box_recall", "greedy accuracy", "greedy box_recall")
    start = {name: [1.0, 0.0, 0.0, 1.0] for name in names}
    better = {name: [1.0, 1.0, 0.0, 1.0] for name in names}
    lines = changes([{"rows": table({"sft": start, "r-grpo": better})}])
    assert lines[2].startswith("| `sft` | 50.0 |")
    assert "75.0 (+25.0: -24.0 to +74.0)" in lines[3]
