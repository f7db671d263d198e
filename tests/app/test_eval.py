"""`mm eval`: tables of files and of Tabletop, stopped and continued."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from evaluation_items import GRADIENT, look_at
from PIL import Image
from safetensors.numpy import save_file

import mm
from app.cli.eval import Evaluation, _digest, run_eval
from app.cli.main import run
from app.model_choice import weights_of
from mm.errors import UserError
from training import tabletop
from training.data import Access
from training.evaluation.answers import compare, read_tables
from vision.zoom import zoom

STRATEGIES = {"direct": mm.direct, "zoom": zoom}


def measured(target, **changes) -> int:
    asked = Evaluation(str(target), STRATEGIES, **{"limit": 3, "threads": 1, **changes})
    return run_eval(asked, lambda: mm.load("tiny"))


@pytest.fixture
def questions(tmp_path):
    GRADIENT.pixels.save(tmp_path / "a.png")
    rows = "".join(f"a.png,Which letter?,{letter},K|R\n" for letter in "KKR")
    (tmp_path / "mine.csv").write_text(f"image,question,answer,choices\n{rows}")
    return tmp_path / "mine.csv"


def scripted(monkeypatch, replies):
    vlm = mm.ScriptedVLM(replies)
    monkeypatch.setattr(mm, "load", lambda *_, **__: vlm)
    return vlm


def test_a_file_of_questions_becomes_a_table(monkeypatch, questions, capsys):
    scripted(monkeypatch, ["K", "R", "R", "K", look_at(0, 0, 500, 500), "K", "what?"])
    out = questions.parent / "out.json"
    measured(questions, out=out)
    written = json.loads(out.read_text())
    assert {"command", "seed", "model", "versions", "device", "dtype"} <= set(written)
    got = [
        (r["task"], r["strategy"], r["n"], r["accuracy"], r["failures"]) for r in written["rows"]
    ]
    assert got == [
        ("mine", "direct", 3, pytest.approx(2 / 3), 0),
        ("mine", "zoom", 3, pytest.approx(2 / 3), 0),
    ]
    (pair,) = written["pairs"]
    assert (pair["a"], pair["b"], pair["difference"]) == ("zoom", "direct", 0.0)
    (answers,) = written["answers"]
    assert answers["right"] == {"direct": "101", "zoom": "110"}
    table, same = read_tables(out, out)
    assert [each["difference"] for each in compare(table, same).pairs] == [0.0, 0.0]
    assert "failures count as wrong" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("how", "told"),
    [
        pytest.param(["depth-latent"], "needs the module that reads depth", id="no module"),
        pytest.param(["depth-latent(midi=/nosuch)"], "/nosuch", id="no such module"),
        pytest.param(["depth", "--depth-model", "/nosuch"], "depth model /nosuch", id="no model"),
    ],
)
@pytest.mark.torch
def test_a_wrong_set_up_of_depth_is_told_before_the_model_loads(
    monkeypatch, how, told, questions, capsys
):
    monkeypatch.setattr(mm, "load", lambda *_, **__: pytest.fail("loaded"))
    assert run(["eval", str(questions), "--model", "mine", "--strategy", *how]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


@pytest.mark.parametrize("command", ["eval", "collect"])
def test_no_flag_is_offered_that_can_only_be_refused(command, questions, capsys):
    assert run([command, str(questions), "--out", "out", "--depth", "a.npy"]) == 2
    assert "No such option: --depth" in capsys.readouterr().err


@pytest.mark.torch
def test_what_fails_on_every_question_is_told(monkeypatch, questions, capsys):
    scripted(monkeypatch, [])
    assert run(["eval", str(questions), "--strategy", "depth"]) == 0
    assert "mm: mine: depth failed on all of 3: " in capsys.readouterr().err


def test_rows_that_train_latents_are_measured_as_they_are(monkeypatch, questions):
    row = {"image": "a.png", "question": "Which?", "answer": "K", "rationale": "K is near."}
    (questions.parent / "rows.jsonl").write_text(json.dumps(row))
    scripted(monkeypatch, ["K"])
    assert run(["eval", str(questions.parent / "rows.jsonl")]) == 0


def test_a_model_behind_a_server_is_measured_without_torch():
    code = "import sys, app.cli.eval; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_ctrl_c_reports_what_is_done(monkeypatch, questions, capsys):
    def interrupt(conversation):
        raise KeyboardInterrupt

    scripted(monkeypatch, ["K", "K", "K", "K", interrupt, "K"])
    out = questions.parent / "out.json"
    assert measured(questions, out=out) == 130
    assert [(r["strategy"], r["n"]) for r in json.loads(out.read_text())["rows"]] == [
        ("direct", 3),
        ("zoom", 1),
    ]
    printed = capsys.readouterr()
    assert "zoom" in printed.out
    assert "the same command goes on from here" in printed.err


def kill(conversation):
    raise SystemExit(9)


def test_a_stopped_table_goes_on_where_it_was(monkeypatch, questions, capsys):
    out, part = questions.parent / "out.json", questions.parent / "out.json.part"
    scripted(monkeypatch, ["K", "R", "R", "K", kill])
    with pytest.raises(SystemExit, match="9"):
        measured(questions, out=out)
    part.write_text(part.read_text() + '{"task": "mine", "ar')  # the kill came while writing
    vlm = scripted(monkeypatch, ["R", "R"])
    measured(questions, out=out)
    assert len(vlm.conversations) == 2
    rows = json.loads(out.read_text())["rows"]
    assert [(r["strategy"], r["n"], r["accuracy"]) for r in rows] == [
        ("direct", 3, pytest.approx(2 / 3)),
        ("zoom", 3, pytest.approx(2 / 3)),
    ]
    assert not part.exists()
    (answers,) = json.loads(out.read_text())["answers"]
    assert answers["right"] == {"direct": "101", "zoom": "101"}


def saved(folder, letters):
    """A folder of rows as `datasets` saves them, with the right `letters`."""
    from datasets import Dataset

    rows = [{"image": "a.png", "question": "Which?", "answer": letter} for letter in letters]
    Dataset.from_list(rows).save_to_disk(str(folder))
    return folder


@pytest.mark.parametrize(
    ("change", "same"),
    [
        pytest.param(lambda a: shutil.copytree(a, a.with_name("b")), True, id="a copy"),
        pytest.param(lambda a: (a / "out.json.part").write_text("x"), True, id="its own answers"),
        pytest.param(lambda a: (a / "cache-1.arrow").write_text("x"), True, id="a cache"),
        pytest.param(lambda a: saved(a.with_name("b"), "KRK"), False, id="other answers, as long"),
        pytest.param(lambda a: saved(a.with_name("b"), "K" * 999), False, id="more rows"),
        pytest.param(lambda a: (a / "more.arrow").write_bytes(b""), False, id="another name"),
        pytest.param(
            lambda a: next(a.glob("*.arrow")).open("ab").write(b"x"), False, id="another size"
        ),
    ],
)
def test_folders_of_questions_are_told_apart(tmp_path, change, same):
    a, b = saved(tmp_path / "a", "KRR"), tmp_path / "b"
    before = _digest(a)
    assert before
    change(a)
    assert (_digest(b if b.exists() else a) == before) == same


def test_tables_of_two_folders_are_not_compared(monkeypatch, tmp_path):
    outs = [tmp_path / "one.json", tmp_path / "other.json"]
    for out, letters in zip(outs, ("KR", "RR"), strict=True):
        scripted(monkeypatch, ["K"] * 6)
        rows = saved(tmp_path / out.stem / "rows", letters)
        GRADIENT.pixels.save(rows.parent / "a.png")
        measured(rows, out=out)
    one, other = read_tables(*outs)
    assert compare(one, one).pairs
    with pytest.raises(UserError, match="were asked different questions"):
        compare(one, other)


def test_answers_to_something_else_are_refused(monkeypatch, questions, capsys):
    out = questions.parent / "out.json"
    scripted(monkeypatch, ["K", kill])
    with pytest.raises(SystemExit, match="9"):
        measured(questions, out=out)
    told = "holds answers that differ in seed: remove it, or give another --out"
    with pytest.raises(UserError, match=told):
        measured(questions, out=out, seed=7)


def served(monkeypatch, questions, command: str, replies, *flags: str) -> int:
    """Run `command` over a scripted model that is taken to be behind a server."""
    vlm = mm.ScriptedVLM(replies)
    monkeypatch.setattr("app.model_choice.connect", lambda *_, **__: vlm)
    monkeypatch.setattr(mm, "load", lambda *_, **__: vlm)
    out = {"eval": "out.json", "collect": "out"}[command]
    always = ["--strategy", "direct", "--threads", "1", "--out", str(questions.parent / out)]
    return run([command, str(questions), *always, *flags])


SERVER = ("--backend", "openai", "--base-url", "http://me:hunter2@a/v1")
PARTS = {"eval": "out.json.part", "collect": "out/collected.json"}
OTHERS = [
    pytest.param((), "backend, base_url", id="backend"),
    pytest.param((*SERVER[:3], "http://b/v1"), "base_url", id="server"),
    pytest.param((*SERVER, "--processor", "here"), "processor", id="processor"),
]


@pytest.mark.parametrize("command", ["eval", "collect"])
@pytest.mark.parametrize(("flags", "told"), OTHERS)
def test_answers_of_another_place_are_refused(monkeypatch, questions, capsys, command, flags, told):
    with pytest.raises(SystemExit, match="9"):
        served(monkeypatch, questions, command, ["K", kill], *SERVER)
    assert served(monkeypatch, questions, command, ["K"] * 40, *flags) == 2
    assert f"differ in {told}: " in capsys.readouterr().err
    written = (questions.parent / PARTS[command]).read_text()
    assert "http://***@a/v1" in written
    assert "hunter2" not in written


@pytest.mark.parametrize("flag", ["--quantize=4bit", "--dtype=float16"])
def test_traces_of_other_weights_are_refused(monkeypatch, questions, capsys, flag):
    served(monkeypatch, questions, "collect", ["K"] * 40)
    assert served(monkeypatch, questions, "collect", ["K"] * 40, flag) == 2
    assert f"differ in {flag[2:].partition('=')[0]}: " in capsys.readouterr().err


def test_traces_are_collected_with_depth_as_rows_bring_it(monkeypatch, questions, capsys):
    depths = np.tile(np.linspace(1000, 3000, 640, dtype=np.uint16), (640, 1))
    Image.fromarray(depths).save(questions.parent / "d.png")
    lines = questions.read_text().splitlines()
    rows = [lines[0] + ",depth", *(f"{line},d.png" for line in lines[1:])]
    questions.write_text("\n".join(rows) + "\n")
    flags = ("--strategy", "depth", "--samples", "1", "--depth-scale")
    assert served(monkeypatch, questions, "collect", ["K"] * 40, *flags, "1000") == 0
    facts = json.loads((questions.parent / PARTS["collect"]).read_text())
    assert facts["depth_map"] == {"scale": "1000"}
    (trace, *_) = mm.load_traces(questions.parent / "out")
    assert any(" m" in said.text and "left" in said.text for said in trace.best.messages)
    assert served(monkeypatch, questions, "collect", ["K"] * 40, *flags, "500") == 2
    assert "differ in depth_map: " in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--verifier", "--adapter"])
def test_traces_of_another_adapter_in_the_same_folder_are_refused(
    monkeypatch, questions, capsys, flag
):
    folder = questions.parent / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    asked = ("--strategy", "vote(strategy=scale,n=1)", flag, str(folder))
    for value, told in ((1.0, 0), (1.0, 0), (2.0, 2)):
        weights_of.cache_clear()
        save_file({"a": np.full(4, value)}, folder / "adapter_model.safetensors")
        assert served(monkeypatch, questions, "collect", ["K"] * 40, *asked) == told
    assert f"differ in {flag[2:]}_weights: " in capsys.readouterr().err


@pytest.mark.parametrize("command", ["eval", "collect"])
def test_answers_of_before_places_were_written_down_go_on(monkeypatch, questions, command):
    with pytest.raises(SystemExit, match="9"):
        served(monkeypatch, questions, command, ["K", kill], *SERVER)
    part = questions.parent / PARTS[command]
    place = {"backend": "openai", "base_url": "http://***@a/v1"}
    text = part.read_text()
    for name, value in place.items():
        for after in (", ", ",\n "):
            text = text.replace(f'"{name}": "{value}"{after}', "")
    part.write_text(text)
    assert not any(name in text for name in place)
    assert served(monkeypatch, questions, command, ["K"] * 40, *SERVER) == 0
    if command == "collect":  # it knows its place from now on
        other = ["--backend", "openai", "--base-url", "http://b/v1"]
        assert served(monkeypatch, questions, command, ["K"] * 40, *other) == 2


def test_a_command_is_written_down_without_its_password(monkeypatch, questions):
    flags = ["--base-url", "http://me:hunter2@a/v1"]
    monkeypatch.setattr(sys, "argv", ["mm", "eval", *flags])
    served(monkeypatch, questions, "eval", ["K"] * 9, *SERVER)
    written = (questions.parent / "out.json").read_text()
    assert json.loads(written)["command"] == "mm eval --base-url 'http://***@a/v1'"
    assert "hunter2" not in written


@pytest.mark.parametrize(
    ("target", "changes", "complaint"),
    [
        pytest.param("nothing", {}, "no target 'nothing'", id="target"),
        pytest.param("none.csv", {}, "none.csv cannot be read", id="no file"),
        pytest.param("a.csv", {"tasks": ("read",)}, "a file is one task", id="task of a file"),
        pytest.param("a.csv", {"level": "easy"}, "leave --level easy out", id="level of a file"),
        pytest.param(
            "tabletop", {"format": "llava", "ignore": ("a",)}, "leave --format, --ignore", id="rows"
        ),
        pytest.param(
            "tabletop", {"access": Access(True, True)}, "leave --allow-absolute-paths", id="access"
        ),
        pytest.param("tabletop", {"tasks": ("write",)}, "no task 'write'", id="task"),
        pytest.param("tabletop", {"level": "9"}, "no level '9'", id="level"),
        pytest.param("tabletop", {"seed": -1}, "must not be negative, got -1", id="seed"),
    ],
)
def test_what_cannot_be_measured_is_told_before_a_model_loads(
    monkeypatch, target, changes, complaint
):
    monkeypatch.setattr(mm, "load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(UserError, match=complaint):
        measured(target, **changes)


def test_all_tasks_of_tabletop_run(monkeypatch, capsys):
    scripted(monkeypatch, ["K"] * 100)
    measured("tabletop", limit=1)
    said = capsys.readouterr().out
    assert all(task in said for task in tabletop.TASKS)
    assert "level 3 (nearer 5, read_nearest 5), seed 0" in said
