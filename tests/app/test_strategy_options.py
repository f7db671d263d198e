"""Options of strategies, written as text: read, checked by type, refused in one line."""

from __future__ import annotations

import inspect
import re
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as pil

import mm
from app.model_choice import ModelChoice
from app.strategies import (
    STRATEGIES,
    VERIFIERS,
    judged_by,
    judging,
    offered,
    strategies_for,
    strategies_named,
    strategy_named,
)
from app.strategy_options import parse_call, settable, split_outside_brackets
from mm.errors import UserError
from mm.strategies import length, likelihood
from video import clip_of
from video.search import over_clips
from vision import zoom
from vision.verifier import always, never, score


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        pytest.param("a,b", ["a", "b"], id="commas"),
        pytest.param("a(x=1, y=2), b", ["a(x=1, y=2)", "b"], id="in brackets"),
        pytest.param("a(x='(,'),b", ["a(x='(,')", "b"], id="in quotes"),
        pytest.param("a(x=[1, 2]),b(y=c(z=1,t=2))", ["a(x=[1, 2])", "b(y=c(z=1,t=2))"], id="deep"),
        pytest.param(" , ", [], id="blanks"),
    ],
)
def test_commas_inside_brackets_separate_nothing(text, pieces):
    assert split_outside_brackets(text) == pieces


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        pytest.param("zoom", "zoom", {}, id="name alone"),
        pytest.param("zoom()", "zoom", {}, id="no options"),
        pytest.param("zoom(max_looks=3)", "zoom", {"max_looks": 3}, id="number"),
        pytest.param(
            "zoom(layout=inline, offer=false)",
            "zoom",
            {"layout": "inline", "offer": False},
            id="words",
        ),
        pytest.param("f(a='x, y', b=None)", "f", {"a": "x, y", "b": None}, id="quotes, none"),
        pytest.param("m.f:g(a=-1.5)", "m.f:g", {"a": -1.5}, id="module"),
        pytest.param("f(a=zoom(max_looks=1))", "f", {"a": "zoom(max_looks=1)"}, id="nested"),
        pytest.param(r'f(a="C:\Users\me")', "f", {"a": r"C:\Users\me"}, id="no escape, quoted"),
        pytest.param(r"f(a='D:\new\table')", "f", {"a": r"D:\new\table"}, id="no line break"),
        pytest.param('f(a="E:\\",b=1)', "f", {"a": "E:\\", "b": 1}, id="a backslash at the end"),
        pytest.param(r"f(a=C:\Users\me)", "f", {"a": r"C:\Users\me"}, id="no escape, a word"),
        pytest.param("f(a=~/x)", "f", {"a": f"{Path.home()}/x"}, id="the home folder"),
        pytest.param("f(a='~/x')", "f", {"a": "~/x"}, id="no home folder in quotes"),
    ],
)
def test_calls_are_read(text, name, options):
    assert parse_call(text) == (name, options)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param("zoom(max_looks=3", "expected a closing bracket", id="not closed"),
        pytest.param("zoom(3)", "expected options as key=value, found '3'", id="no key"),
        pytest.param("zoom(max_looks=)", "expected options as key=value", id="no value"),
        pytest.param("zoom(max_looks=1, max_looks=2)", "max_looks is given twice", id="twice"),
        pytest.param("zoom(looks=3)", "zoom has no option 'looks': it has max_looks", id="unknown"),
        pytest.param("direct(n=3)", "direct has no option 'n': it has no options", id="none there"),
        pytest.param("zoom(max_looks=many)", "expected a whole number, found 'many'", id="type"),
        pytest.param("zoom(max_looks=true)", "expected a whole number, found True", id="bool"),
        pytest.param("zoom(layout=side)", "expected tool or inline, found 'side'", id="literal"),
        pytest.param("zoom(cut=crop)", "zoom has no option 'cut'", id="not text"),
        pytest.param("zoom(layout=a b)", "found 'a b'", id="two words"),
        pytest.param("zom(max_looks=3)", "no strategy 'zom'", id="name"),
        pytest.param("vote(strategy=zom)", "no strategy 'zom'", id="nested name"),
        pytest.param("vote(strategy=zoom(looks=3))", "zoom has no option 'looks'", id="nested"),
        pytest.param("vote(m=3)", "vote has no option 'm': it has strategy, n", id="functions too"),
        pytest.param("best_of(verifier=nice)", "no verifier 'nice': give asked, sc", id="verifier"),
    ],
)
def test_what_cannot_be_understood_is_one_line(text, complaint):
    with pytest.raises(UserError, match=re.escape(complaint)) as caught:
        strategy_named(text)
    assert "\n" not in str(caught.value)


def test_options_are_bound():
    made = strategies_named("direct, zoom(max_looks=3, layout=inline)")
    assert list(made) == ["direct", "zoom(max_looks=3, layout=inline)"]
    bound = made["zoom(max_looks=3, layout=inline)"]
    assert isinstance(bound, partial)
    assert (bound.func, bound.keywords) == (zoom, {"max_looks": 3, "layout": "inline"})


def test_strategies_and_verifiers_are_options_too():
    made = strategy_named("best_of(strategy=zoom(max_looks=3), verifier=length, n=2)")
    assert isinstance(made, partial)
    inner = made.keywords["strategy"]
    assert (inner.func, inner.keywords) == (zoom, {"max_looks": 3})
    assert (made.func, made.keywords["verifier"], made.keywords["n"]) == (mm.best_of, length, 2)


def test_a_bound_strategy_has_the_options_of_its_function():
    assert settable(partial(zoom, offer=False)) == settable(zoom)


def test_every_strategy_has_readable_options():
    assert all(isinstance(settable(strategy), dict) for strategy in STRATEGIES.values())


@given(st.text(alphabet="zoom(),='\"[]{}12 \n-.:", max_size=40))
def test_no_text_breaks_the_reader(text):
    with suppress(UserError):
        strategies_named(text)


@pytest.mark.parametrize(
    ("text", "given", "judge"),
    [
        pytest.param("scale", {}, True, id="asks itself"),
        pytest.param("direct,beam(width=3)", {}, True, id="one of several"),
        pytest.param("zoom,best_of(n=2)", {}, False, id="takes none, or has its own"),
        pytest.param("scale(verifier=never)", {}, False, id="named in brackets"),
        pytest.param("scale", {"verifier": "asked"}, False, id="named by flag"),
        pytest.param("scale", {"adapter": "F"}, False, id="other weights"),
        pytest.param("scale", {"name": "F"}, False, id="a model that brings none"),
        pytest.param("scale", {"backend": "openai"}, False, id="a server"),
    ],
)
def test_a_model_brings_its_verifier(text, given, judge, tmp_path, monkeypatch):
    brought = {"tiny": tmp_path}
    monkeypatch.setattr("app.strategies.bundled_verifier", brought.get)
    assert bool(judging(ModelChoice(**given), text).judge) is judge


def test_the_verifier_that_a_model_brings_judges_what_would_ask_it(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "verifier.json").write_text('{"kind": "score", "threshold": 0.7}')
    named = "scale,best_of,scale(verifier=never, threshold=0.9)"
    found = strategies_named(named, judge=str(tmp_path))
    scale, best_of, own = (inspect.signature(each).parameters for each in found.values())
    assert (scale["verifier"].default, scale["threshold"].default) == (score, 0.7)
    assert best_of["verifier"].default is likelihood
    assert (own["verifier"].default, own["threshold"].default) == (never, 0.9)


def test_the_page_looks_under_the_verifier_that_was_named(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "verifier.json").write_text('{"kind": "score", "threshold": 0.7}')
    found = strategies_for(ModelChoice("tiny", verifier=str(tmp_path)))
    assert list(found) == list(STRATEGIES)
    options = inspect.signature(found["scale"]).parameters
    assert (options["verifier"].default, options["threshold"].default) == (score, 0.7)
    assert inspect.signature(found["beam"]).parameters["verifier"].default is score
    assert found["zoom"] is STRATEGIES["zoom"]
    assert strategies_for(ModelChoice("tiny"))["scale"] is STRATEGIES["scale"]


def test_what_stands_in_brackets_holds_over_the_flag():
    found = strategies_named("scale(verifier=never),scale", verifier="always")
    named = [inspect.signature(each).parameters["verifier"].default for each in found.values()]
    assert named == [never, always]


@pytest.mark.parametrize(
    ("temperature", "bound"),
    [pytest.param(0.0, 0.7, id="greedy"), pytest.param(0.6, None, id="sampling")],
)
def test_the_page_offers_what_runs_without_brackets(temperature, bound):
    found = offered(STRATEGIES, mm.Sampling(temperature=temperature))
    assert "depth-latent" not in found
    draws = [getattr(found[name], "keywords", {}).get("temperature") for name in ("vote", "beam")]
    assert draws == [bound, bound]
    assert found["zoom"] is STRATEGIES["zoom"]


def test_a_verifier_reaches_the_strategy_inside():
    judged = judged_by(strategy_named("vote(strategy=scale,n=2)"), "always")
    assert isinstance(judged, partial)
    inner = judged.keywords["strategy"]
    assert inner.keywords["verifier"] is VERIFIERS["always"]


@pytest.mark.parametrize(
    ("text", "frames"),
    [
        pytest.param("uniform(frames=4)", 4, id="alone"),
        pytest.param("vote(strategy=uniform(frames=4),n=2,temperature=0.7)", 4, id="in a vote"),
        pytest.param(
            "vote(strategy=watch(frames=2,max_looks=0),n=2,temperature=0.7)", 2, id="watch"
        ),
        pytest.param("vote(n=2,temperature=0.7)", 16, id="none that knows clips"),
    ],
)
def test_frames_are_chosen_by_the_strategy_inside(text, frames):
    pixels = [pil.new("RGB", (8, 8), (n, 0, 0)) for n in range(20)]
    sample = mm.question("?", clip_of(pixels, range(20)))
    vlm = mm.ScriptedVLM(["a", "a"])
    trace = mm.run(over_clips(strategy_named(text)), sample, vlm)
    assert trace.error is None
    assert len(trace.sample.images) == frames
