"""`mm data check` agrees with the trainers: it asks of each row what they ask."""

import json

import pytest
from row_files import data_of, make_images, reply, text, user
from typer.testing import CliRunner

from app.cli.data import builder_of, data
from app.model_choice import ModelChoice
from training.data import BadData
from training.evaluation.questions import target_of
from training.finetune.setup import linked
from training.trainers.row_builders import ROW_BUILDERS, purpose_of

IMAGE = {"type": "image"}
ASKED = user([IMAGE, text("Which?")])
PAIR = {"prompt": [ASKED], "chosen": "good", "rejected": "bad", "images": ["red.png"]}
QUESTION = {"prompt": [ASKED], "images": ["red.png"], "answer": "a"}
CALL = {"function": {"name": "zoom", "arguments": {"bbox_2d": [1, 2, 3, 4]}}}
TALK = {"messages": [ASKED, reply("a")], "images": ["red.png"]}
MAP = {"depth": "red.png"}  # which only a strategy reads


@pytest.fixture
def folder(tmp_path):
    return make_images(tmp_path)


@pytest.fixture(scope="module")
def builder():
    return builder_of(ModelChoice("tiny"))


def check(folder, *rows, flags=()):
    path = data_of(folder, *rows).path
    return CliRunner().invoke(data, ["check", str(path), *flags])


@pytest.mark.parametrize(
    ("row", "purpose"),
    [(PAIR, "dpo"), (QUESTION, "grpo"), (TALK, "sft")],
    ids=["dpo", "grpo", "sft"],
)
def test_rows_are_checked_for_what_they_are_for(folder, row, purpose):
    done = check(folder, row, row)
    assert done.stdout == f"2 of 2 rows are good for {purpose}\n"


@pytest.mark.parametrize(
    ("row", "purpose", "good"),
    [
        (PAIR, "dpo", True),
        (PAIR, "sft", False),
        (PAIR, "grpo", True),
        (QUESTION, "grpo", True),
        (QUESTION, "sft", False),
        (QUESTION, "dpo", False),
        (TALK, "sft", True),
        (TALK, "grpo", True),
        (TALK, "dpo", False),
        ({**TALK, **MAP}, "sft", False),
        ({**PAIR, **MAP}, "dpo", False),
        ({**QUESTION, **MAP}, "grpo", True),
    ],
)
def test_the_check_agrees_with_the_trainer(folder, builder, row, purpose, good):
    """`ROW_BUILDERS` is what the trainers measure rows by before the first step."""
    done = check(folder, row, flags=["--for", purpose])
    assert done.exit_code == (0 if good else 1)
    (found,) = data_of(folder, row).shown_to(builder).each(ROW_BUILDERS[purpose](builder))
    assert isinstance(found, BadData) != good


def test_a_prompts_own_replies_do_not_make_it_a_talk(folder):
    row = data_of(folder, {**QUESTION, "prompt": [ASKED, reply("b"), user("c")]})[0]
    assert purpose_of(row) == "grpo"


@pytest.mark.parametrize("purpose", ROW_BUILDERS)
def test_a_row_longer_than_the_models_positions_is_bad(folder, builder, purpose):
    long = user([IMAGE, text("word " * (builder.positions + 10))])
    row = {"prompt": [long], "images": ["red.png"], "answer": "a"}
    sides = {"sft": {"completion": "a"}, "dpo": {"chosen": "b", "rejected": "c"}, "grpo": {}}
    row |= sides[purpose]
    (found,) = data_of(folder, row).each(ROW_BUILDERS[purpose](builder))
    assert f"at most {builder.positions:,} tokens" in str(found)


def test_columns_may_be_ignored(folder):
    row = {**TALK, "audios": ["a.mp3"]}
    assert "column 'audios' would be lost" in check(folder, row).stdout
    assert check(folder, row, flags=["--ignore", "audios, x"]).exit_code == 0


@pytest.mark.parametrize(
    ("seen", "groups"),
    [
        ([["a"], ["b"], ["a"]], [0, 1, 0]),
        ([["a", "b"], ["c"], ["b", "c"], ["d"]], [0, 0, 0, 1]),
        ([["a"], ["b"], ["c"], ["b", "c"], ["a", "b"]], [0] * 5),
        ([[f"{n}", f"{n + 1}"] for n in range(5000)], [0] * 5000),
    ],
    ids=["same", "second hand", "joined late", "a chain"],
)
def test_rows_that_share_an_image_are_held_out_together(seen, groups):
    found = linked(seen)
    names = list(dict.fromkeys(found))
    assert [names.index(name) for name in found] == groups


def test_a_long_reply_is_a_truth(folder):
    """As LLaVA's rows have it: fifty words that mark no answer."""
    long = " ".join(f"word{n}" for n in range(50))
    row = data_of(folder, {"messages": [ASKED, reply(long)], "images": ["red.png"]})[0]
    assert target_of(row) == long


def test_inspect_and_stats_read_objects_as_the_model_writes_them(folder):
    row = {
        "messages": [user("<image>Find <ref-object>"), reply("<bbox>")],
        "images": ["red.png"],
        "objects": {"ref": ["a dog"], "bbox": [[8, 6, 40, 30]]},
    }
    path = data_of(folder, row).path
    assert "[100, 100, 500, 500]" in CliRunner().invoke(data, ["inspect", str(path)]).stdout
    assert CliRunner().invoke(data, ["stats", str(path)]).exit_code == 0


def test_convert_carries_rows_from_format_to_format(folder):
    path = data_of(folder, PAIR).path
    out = folder / "out.jsonl"
    done = CliRunner().invoke(data, ["convert", str(path), "--to", "sharegpt", "--out", str(out)])
    assert done.stdout == f"1 rows: {out}\n"
    assert json.loads(out.read_text())["chosen"] == {"from": "gpt", "value": "good"}


LOOKED = [ASKED, reply("", tool_calls=[CALL]), {"role": "tool", "content": "A cat."}]


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        pytest.param({"prompt": LOOKED}, 3, id="a prompt that a tool ends"),
        pytest.param({"prompt": LOOKED, "chosen": "a", "rejected": "b"}, 3, id="of a pair"),
        pytest.param({"messages": [*LOOKED, reply("a")]}, 1, id="a talk: its looks are the reply"),
        pytest.param({"messages": [ASKED, reply("b", loss=False)]}, 1, id="a reply that is muted"),
        pytest.param({"prompt": [*LOOKED, user("And?")]}, 4, id="the user asks again"),
    ],
)
def test_what_is_asked_ends_with_the_user_or_a_tool(folder, builder, row, asked):
    row = data_of(folder, {**row, "images": ["red.png"], "answer": "a"})[0]
    assert row.prompt == row.messages[:asked]
    (built,) = ROW_BUILDERS["grpo"](builder)(row)
    assert built.ids == builder.build(row.messages[:asked]).ids


def test_a_prompt_that_ends_with_a_reply_is_refused(folder):
    with pytest.raises(BadData, match="found a reply at its end: give it as 'completion'"):
        data_of(folder, {**QUESTION, "prompt": [ASKED, reply("b")]})[0]
