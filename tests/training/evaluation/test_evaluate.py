"""The table against answers counted by hand."""

import json

import pytest
from PIL import Image as pil

import mm
from app.cli.eval import run_cli
from mm.errors import UserError
from mm.geometry import Region
from mm.types import Cost, Cropped
from training import tabletop
from training.evaluation import run as evaluation_run
from training.evaluation.controls import GREY, Condition, TrueInTurn, conditions_of
from training.evaluation.error_sheet import ErrorSheet
from training.evaluation.evaluate import Outcome, evaluate
from training.evaluation.results import pairs_of, row_of
from training.evaluation.table import print_table
from training.evaluation.tasks import BadTarget, Item, Suite, level_named, tabletop_suites
from vision.zoom import zoom

PICTURE = mm.Image(pil.linear_gradient("L").resize((640, 640)).convert("RGB"))
LETTERS = ("K", "R")
LEFT, RIGHT = Region(0.1, 0.1, 0.2, 0.2), Region(0.8, 0.1, 0.9, 0.2)


def item(name="q", target="K", regions=(LEFT,)):
    sample = mm.question("Which letter?", PICTURE, id=name, target=target, choices=LETTERS)
    return Item(sample, regions)


def look_at(*box):
    call = {"name": "image_zoom_in_tool", "arguments": {"bbox_2d": list(box)}}
    return f"<tool_call>\n{json.dumps(call)}\n</tool_call>"


def answer(arm, replies, *, asked=None, **kwargs):
    vlm = mm.ScriptedVLM(replies, **kwargs)
    (outcome,) = evaluate(arm, [asked or item()], vlm, threads=1)
    return outcome, vlm


def shown_first(vlm):
    (crop,) = vlm.conversations[1][-1].images
    assert isinstance(crop.origin, Cropped)
    return crop.origin.region


SUITE = Suite("read", lambda: [item()], 1, looking=True, located=True)


def test_arms_are_a_strategy_and_the_nulls_it_has():
    both = [("direct", mm.direct), ("zoom", zoom)]
    nulls = [(a.name, a.control) for a in conditions_of(SUITE, both, nulls=True)]
    assert nulls == [
        ("direct", ""),
        ("direct", "blind"),
        ("zoom", ""),
        ("zoom", "random"),
        ("zoom", "true"),
        ("zoom", "no-look"),
        ("zoom", "blind"),
    ]
    plain = Suite("colour", lambda: [item(regions=())], 1)
    assert [a.control for a in conditions_of(plain, both, nulls=True)] == ["", ""]
    assert [a.control for a in conditions_of(SUITE, both, nulls=False)] == ["", ""]
    unknown = Suite("mine", lambda: [item(regions=())], 1, looking=True)
    controls = [a.control for a in conditions_of(unknown, [("zoom", zoom)], nulls=True)]
    assert controls == ["", "random", "no-look", "blind"]


def test_the_real_thing_shows_what_was_asked_for():
    outcome, vlm = answer(Condition("zoom", zoom), [look_at(500, 500, 600, 600), "K"])
    assert (outcome.correct, outcome.failed) == (True, False)
    assert (outcome.looks, outcome.calls, outcome.valid_calls) == (1, 1, 1)
    shown = shown_first(vlm)
    assert shown.x0 <= 0.5 < 0.6 <= shown.x1


@pytest.mark.parametrize(
    ("control", "near"),
    [
        pytest.param("true", True, id="true region"),
        pytest.param("random", False, id="random region"),
    ],
)
def test_a_control_shows_another_region(control, near):
    _, vlm = answer(Condition("zoom", zoom, control), [look_at(110, 300, 210, 400), "K"])
    shown = shown_first(vlm)
    holds_truth = shown.x0 <= 0.1 and shown.y0 <= 0.1 and shown.x1 >= 0.2 and shown.y1 >= 0.2
    assert holds_truth is near
    assert not (shown.x0 <= 0.11 and shown.y0 <= 0.3 and shown.x1 >= 0.21 and shown.y1 >= 0.4)


def test_true_regions_are_shown_once_each_by_nearness():
    choose = TrueInTurn([LEFT, RIGHT])
    sample = item().sample
    assert choose(sample, Region(0.7, 0.5, 0.75, 0.6)) == RIGHT
    assert choose(sample, RIGHT) == LEFT
    assert choose(sample, RIGHT) == LEFT


def test_no_look_offers_the_tool_refuses_the_look_and_takes_the_likeliest_choice():
    outcome, vlm = answer(
        Condition("zoom", zoom, "no-look"),
        [look_at(100, 100, 200, 200)],
        scores={"K": -1.0, "R": -2.0},
    )
    assert [m.role for m in vlm.conversations[0]] == ["system", "user"]
    assert (outcome.correct, outcome.failed, outcome.looks) == (True, False, 0)
    assert row_of("read", Condition("zoom", zoom, "no-look"), [outcome])["valid_boxes"] is None


def test_blind_sees_grey_of_the_same_size():
    _, vlm = answer(Condition("direct", mm.direct, "blind"), ["K"])
    (seen,) = vlm.conversations[0][0].images
    assert (seen.size, seen.pixels.getcolors()) == ((640, 640), [(640 * 640, GREY)])


@pytest.mark.parametrize(
    ("arm", "correct", "failed"),
    [
        pytest.param(Condition("direct", mm.direct), True, False, id="direct must answer"),
        pytest.param(Condition("zoom", zoom, "blind"), True, False, id="a null must answer"),
        pytest.param(Condition("zoom", zoom), False, True, id="the real thing may fail"),
    ],
)
def test_refusals(arm, correct, failed):
    outcome, _ = answer(arm, ["I cannot tell."], scores={"K": -1.0})
    assert (outcome.correct, outcome.failed, outcome.calls) == (correct, failed, 0)


def test_a_failing_model_is_counted_and_does_not_stop_the_rest():
    vlm = mm.ScriptedVLM(["K"])
    items = [item("a"), item("b")]
    outcomes = list(evaluate(Condition("direct", mm.direct), items, vlm, threads=1))
    assert [(o.id, o.correct, o.failed) for o in outcomes] == [
        ("a", True, False),
        ("b", False, True),
    ]


def test_items_are_drawn_as_needed_and_outcomes_keep_their_order():
    drawn = []

    def items():
        for i in range(100):
            drawn.append(i)
            yield item(str(i))

    vlm = mm.ScriptedVLM(["K"] * 100)
    outcomes = evaluate(Condition("direct", mm.direct), items(), vlm, threads=2)
    assert [next(outcomes).id for _ in range(3)] == ["0", "1", "2"]
    outcomes.close()
    assert len(drawn) < 10


def outcomes(*right, calls=0, valid=0, failed=0):
    cost = Cost(visual_tokens=16, patches=64, computed_tokens=40, generated_tokens=4, seconds=0.5)
    return [
        Outcome(str(i), bool(r), i < failed, cost, 1, calls, valid, wanted=2, found=1, replies=1)
        for i, r in enumerate(right)
    ]


def test_a_row_is_the_contract():
    row = row_of("read", Condition("zoom", zoom), outcomes(0, 1, 1, 1, calls=2, valid=1, failed=1))
    assert (row.pop("low"), row.pop("high")) == pytest.approx((0.3006, 0.9544), abs=5e-5)
    assert row == {
        "task": "read",
        "strategy": "zoom",
        "control": "",
        "n": 4,
        "accuracy": 0.75,
        "visual_tokens": 16.0,
        "looks": 1.0,
        "valid_boxes": 0.5,
        "box_recall": 0.5,
        "empty_thoughts": 0.0,
        "patches": 64.0,
        "computed_tokens": 40.0,
        "reused_tokens": 0.0,
        "generated_tokens": 4.0,
        "seconds": 0.5,
        "failures": 1,
    }


def test_pairs_are_measured_on_the_items_both_answered():
    direct, real, null = (
        Condition("direct", mm.direct),
        Condition("zoom", zoom),
        Condition("zoom", zoom, "random"),
    )
    results = {direct: outcomes(0, 0, 1), real: outcomes(1, 1, 1), null: outcomes(0, 1)}
    pairs = pairs_of("read", results)
    assert [(p["a"], p["b"], p["n"], round(p["difference"], 3)) for p in pairs] == [
        ("zoom", "direct", 3, 0.667),
        ("zoom (random)", "direct", 2, 0.5),
        ("zoom (random)", "zoom", 2, -0.5),
    ]
    assert all(p["low"] < p["difference"] < p["high"] for p in pairs[:2])


def test_the_table_fits_100_columns(capsys):
    arm = Condition("replay", zoom, "no-look")
    row = {**row_of("read_nearest", arm, outcomes(*[1] * 500)), "failures": 500, "patches": 12345}
    pairs = pairs_of(
        "read_nearest", {Condition("direct", mm.direct): outcomes(0), arm: outcomes(1)}
    )
    print_table("title", [{**row, "computed_tokens": 1234.0, "valid_boxes": 1.0}], pairs)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 100
    (line,) = [line for line in lines if "99.2-100.0" in line]
    assert line.split()[:6] == ["read_nearest", "replay", "(no-look)", "500", "100.0", "99.2-100.0"]
    assert lines[0] == "title; failures count as wrong"
    assert "…" not in "".join(lines)


def test_suites_of_tabletop():
    read, colour = tabletop_suites(["read", "colour"], seed=3, limit=2, level=0)
    assert (read.looking, read.located, colour.looking) == (True, True, False)
    first, again = list(read.items()), list(read.items())
    assert [i.sample.id for i in first] == [i.sample.id for i in again]
    assert [i.sample.images for i in first] == [i.sample.images for i in again]
    assert len(first) == 2


@pytest.mark.parametrize(
    ("level", "expected"),
    [("1", 1), (1, 1), ("Shaded", 1), (None, 2)],
)
def test_level_named(level, expected):
    assert level_named(level, 2) == expected


def test_an_unknown_level_is_refused():
    with pytest.raises(BadTarget, match="no level 'hard'"):
        level_named("hard", 0)


OPTIONS = {
    "tasks": [],
    "strategies": ["direct", "zoom"],
    "nulls": False,
    "limit": 3,
    "seed": 0,
    "model": "tiny",
    "adapter": None,
    "load": lambda: mm.load("tiny"),
    "level": None,
    "out": None,
    "show_errors": None,
    "threads": 1,
    "strategy_lookup": {"direct": mm.direct, "zoom": zoom}.__getitem__,
}


@pytest.fixture
def questions(tmp_path):
    PICTURE.pixels.save(tmp_path / "a.png")
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
    run_cli(str(questions), **{**OPTIONS, "out": out})
    written = json.loads(out.read_text())
    assert {"command", "seed", "model", "versions", "device", "dtype"} <= set(written)
    got = [
        (r["task"], r["strategy"], r["n"], r["accuracy"], r["failures"]) for r in written["rows"]
    ]
    assert got == [
        ("mine", "direct", 3, pytest.approx(2 / 3), 0),
        ("mine", "zoom", 3, pytest.approx(2 / 3), 1),
    ]
    (pair,) = written["pairs"]
    assert (pair["a"], pair["b"], pair["difference"]) == ("zoom", "direct", 0.0)
    assert "failures count as wrong" in capsys.readouterr().out


def test_ctrl_c_reports_what_is_done(monkeypatch, questions, capsys):
    def interrupt(conversation):
        raise KeyboardInterrupt

    scripted(monkeypatch, ["K", "K", "K", "K", interrupt, "K"])
    out = questions.parent / "out.json"
    with pytest.raises(SystemExit) as caught:
        run_cli(str(questions), **{**OPTIONS, "out": out})
    assert caught.value.code == 130
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
        run_cli(str(questions), **{**OPTIONS, "out": out})
    part.write_text(part.read_text() + '{"task": "mine", "ar')  # the kill came while writing
    vlm = scripted(monkeypatch, ["R", "R"])
    run_cli(str(questions), **{**OPTIONS, "out": out})
    assert len(vlm.conversations) == 2
    rows = json.loads(out.read_text())["rows"]
    assert [(r["strategy"], r["n"], r["accuracy"]) for r in rows] == [
        ("direct", 3, pytest.approx(2 / 3)),
        ("zoom", 3, pytest.approx(2 / 3)),
    ]
    assert not part.exists()


def test_answers_to_something_else_are_refused(monkeypatch, questions, capsys):
    out = questions.parent / "out.json"
    scripted(monkeypatch, ["K", kill])
    with pytest.raises(SystemExit, match="9"):
        run_cli(str(questions), **{**OPTIONS, "out": out})
    told = "holds answers that differ in seed: remove it, or give another --out"
    with pytest.raises(UserError, match=told):
        run_cli(str(questions), **{**OPTIONS, "out": out, "seed": 7})


def test_errors_are_shown_in_turn_and_nulls_are_not(tmp_path):
    seen = ErrorSheet()
    wrong = {"direct": Condition("direct", mm.direct), "zoom": Condition("zoom", zoom)}
    for arm in wrong.values():
        asked = [item(str(i)) for i in range(12)]
        watch = seen.watch("read", arm)
        list(evaluate(arm, asked, mm.ScriptedVLM(["K", *["R"] * 11]), threads=1, watch=watch))
    chosen = [(m.arm.name, m.item.sample.id) for m in seen.chosen()]
    assert chosen == [(name, str(i)) for i in range(1, 6) for name in ("direct", "zoom")]
    assert seen.chosen()[0].caption() == "direct: Which letter? True: K. Said: R."
    assert seen.watch("read", Condition("zoom", zoom, "blind")) is None
    assert seen.save(tmp_path / "errors.png", mm.ScriptedVLM([])) == 10
    with pil.open(tmp_path / "errors.png") as sheet:
        assert sheet.width > 5 * 320


def test_errors_of_locate_show_both_boxes():
    vlm = mm.ScriptedVLM(['{"bbox_2d": [500, 500, 700, 700], "label": "x"}'])
    place = Item(mm.question("Where?", PICTURE, target="..."), box=LEFT)
    seen = ErrorSheet()
    arm = Condition("direct", mm.direct)
    list(evaluate(arm, [place], vlm, threads=1, watch=seen.watch("locate", arm)))
    (mistake,) = seen.chosen()
    drawn = mistake.picture(vlm)
    assert drawn is not None
    # both frames, on a picture that is grey
    for x, y in ((64, 100), (448 - 64, 320 + 1)):
        red, green, blue = drawn.crop((x, y, x + 1, y + 1)).split()
        assert len({red.tobytes(), green.tobytes(), blue.tobytes()}) > 1


def test_no_errors_write_nothing(tmp_path):
    assert ErrorSheet().save(tmp_path / "errors.png", mm.ScriptedVLM([])) == 0
    assert not (tmp_path / "errors.png").exists()


@pytest.mark.parametrize(
    ("target", "changes", "complaint"),
    [
        pytest.param("nothing", {}, "no target 'nothing'", id="target"),
        pytest.param("none.csv", {}, "none.csv cannot be read", id="no file"),
        pytest.param("a.csv", {"tasks": ["read"]}, "a file is one task", id="task of a file"),
        pytest.param("tabletop", {"tasks": ["write"]}, "no task 'write'", id="task"),
        pytest.param("tabletop", {"level": "9"}, "no level '9'", id="level"),
        pytest.param("tabletop", {"seed": -1}, "must not be negative, got -1", id="seed"),
    ],
)
def test_what_cannot_be_measured_is_told_before_a_model_loads(
    monkeypatch, target, changes, complaint
):
    monkeypatch.setattr(mm, "load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(UserError, match=complaint):
        run_cli(target, **{**OPTIONS, **changes})


def test_all_tasks_of_tabletop_run(monkeypatch, capsys):
    scripted(monkeypatch, ["K"] * 100)
    run_cli("tabletop", **{**OPTIONS, "limit": 1})
    said = capsys.readouterr().out
    assert all(task in said for task in tabletop.TASKS)
    assert f"level {evaluation_run.DEFAULT_LEVEL}, seed 0" in said
