"""The timings compare like with like, and say so in rows of one shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_models import FAMILIES

from app.cli.bench import _report
from app.cli.main import run
from mm.engine.engine import Engine
from mm.errors import ModelError
from mm.local.hf_vlm import HFVLM
from training.benchmarks import engine_speed, memory_growth, replay_cost, server_speed
from training.benchmarks.measure import Measured, alternate, p95, row_of


@pytest.fixture
def vlm() -> HFVLM:
    tiny = FAMILIES["qwen3_vl"]()
    return HFVLM(Engine(tiny.model, tiny.builder))


def test_sides_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[tuple[str, int]] = []

    def side(name: str, value: float, n: int) -> float:
        order.append((name, n))
        return value if n else 1e9

    found = alternate("m", "s", lambda n: side("a", 2.0, n), lambda n: side("b", 6.0, n), rounds=2)
    assert order == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert found.ratios == (3.0, 3.0)


@pytest.mark.parametrize(
    ("smaller", "ratio"), [pytest.param(True, 0.5, id="time"), pytest.param(False, 2.0, id="rate")]
)
def test_a_ratio_above_one_means_ours_is_better(smaller: bool, ratio: float) -> None:
    row = row_of(Measured("m", "u", (4.0,), (2.0,), smaller))
    assert row["ratio"] == ratio
    assert row["spread"] == [ratio, ratio]


def test_p95_is_the_value_that_a_twentieth_exceed() -> None:
    assert p95(list(range(101))) == 95


def test_four_looks_compute_each_token_once(vlm: HFVLM) -> None:
    first, *_ = engine_speed.looks(vlm, engine_speed.Load(rounds=1))
    last = vlm.builder.build(engine_speed._turns(1)[-1])
    assert first.ours == (len(last.ids),)
    assert len(last.images) == 1 + engine_speed.LOOKS


def test_users_write_as_many_tokens_on_both_sides(
    vlm: HFVLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    theirs = engine_speed.generate

    def counted(vlm: HFVLM, tokens: engine_speed.Tokens, new: int, **options: object) -> object:
        out = theirs(vlm, tokens, new, **options)  # pyright: ignore[reportArgumentType]
        written.append(out.shape[1] - len(tokens.ids))
        return out

    monkeypatch.setattr(engine_speed, "generate", counted)
    ends = vlm.builder.end_ids
    names = [
        m.measure for m in engine_speed.users(vlm, engine_speed.Load(reply_tokens=5, rounds=1), 3)
    ]
    assert names == [
        "3 users, answers per second",
        "3 users, first token p95",
        "8 samples of one prompt",
        "single-stream decode",
    ]
    assert set(written) == {5}
    assert vlm.builder.end_ids == ends


def test_no_two_users_share_an_image(vlm: HFVLM) -> None:
    prompts = engine_speed.prompts(vlm, 1, 4) + engine_speed.prompts(vlm, 2, 4)
    assert len({p.images[0].image.id for p in prompts}) == 8


def test_the_command_prints_and_writes_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "looks.json"
    assert run(["bench", "looks", "--rounds", "1", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [r["measure"] for r in rows] == [
        "four looks, prompt tokens computed",
        "fourth look, first token",
    ]
    assert rows[0]["measure"] in capsys.readouterr().out


def test_a_row_that_cannot_be_measured_is_a_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(server_speed, "available", lambda: False)
    assert run(["bench", "users"]) == 2
    assert "transformers[serving]" in capsys.readouterr().err


def test_a_look_from_memory_encodes_nothing_and_a_crop_does(vlm: HFVLM) -> None:
    found = list(replay_cost.replay_against_zoom(vlm, 256, [1, 3], rounds=1))
    patches = {m.measure: m for m in found if "patches" in m.measure}
    one, three = patches["256 px, 1 look, patches"], patches["256 px, 3 looks, patches"]
    assert one.ours == three.ours
    (first,), (last,) = one.theirs, three.theirs
    assert last > first
    names = [f"256 px, {looks}, prefill" for looks in ("1 look", "3 looks")]
    assert [m.measure for m in found if "prefill" in m.measure][:2] == names


@pytest.mark.parametrize(
    ("replay", "zoom", "wins"),
    [
        pytest.param([10, 110, 110, 110], [10, 20, 30, 40], 11, id="the look after it is even"),
        pytest.param([10, 105, 105, 105], [10, 20, 30, 40], 10, id="between two looks"),
        pytest.param([10, 15, 15, 15], [10, 20, 30, 40], 1, id="at once"),
        pytest.param([10, 30, 40, 50], [10, 20, 30, 40], None, id="never"),
    ],
)
def test_replay_wins_from_the_look_at_which_it_costs_less(
    replay: list[float], zoom: list[float], wins: int | None
) -> None:
    assert replay_cost.wins_from(replay, zoom) == wins


def test_replay_is_timed_on_models_that_can(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "replay", "--looks", "1"]) == 2
    assert "one of them above 1, got '1'" in capsys.readouterr().err
    idefics = FAMILIES["idefics3"]()
    with pytest.raises(ModelError, match="its features are no grid"):
        list(
            replay_cost.replay_against_zoom(
                HFVLM(Engine(idefics.model, idefics.builder)), 64, [2], 1
            )
        )


def test_what_was_measured_before_a_failure_is_written(
    vlm: HFVLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def measures() -> Iterator[Measured]:
        yield Measured("first", "s", (1.0,))
        raise ModelError("the second fails")

    with pytest.raises(ModelError, match="the second fails"):
        _report(measures(), vlm, tmp_path / "out.json")
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["measure"] for row in rows] == ["first"]


def test_resident_bytes_are_known_on_every_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sysconf")  # as on Windows
    assert memory_growth._resident() > 2**20
