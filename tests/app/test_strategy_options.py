"""Options of strategies, written as text: read, checked by type, refused in one line."""

from __future__ import annotations

import inspect
import re
from contextlib import nullcontext, suppress
from functools import partial, reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as pil

import mm
from app.model_choice import ModelChoice
from app.strategies import (
    STRATEGIES,
    VERIFIERS,
    fitting,
    judged_by,
    judging,
    offered,
    strategies_for,
    strategies_named,
    strategy_named,
    with_depth,
)
from app.strategy_options import parse_call, settable, split_outside_brackets
from mm.errors import UserError
from mm.strategies import length, likelihood
from mm.vlm import Aim, Memory
from video import clip_of
from video.search import over_clips
from vision import zoom
from vision.depth_source import DepthSource
from vision.verifier import always, logratio, never, score


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
    assert list(found) == [name for name in STRATEGIES if name != "depth-text"]  # as `depth`
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
    assert "depth-latent" in offered(STRATEGIES, mm.Sampling(), latents=True)
    draws = [getattr(found[name], "keywords", {}).get("temperature") for name in ("vote", "beam")]
    assert draws == [bound, bound]
    assert found["zoom"] is STRATEGIES["zoom"]


@pytest.mark.parametrize(
    ("traits", "left_out"),
    [
        pytest.param(mm.Traits(aim=Aim(3), memory=Memory()), set(), id="all"),
        pytest.param(mm.Traits(), {"attend", "replay"}, id="a server's"),
        pytest.param(
            mm.Traits(calls_tools=False),
            {"attend", "replay", "act", "beam"},
            id="a server's that calls no tools",
        ),
    ],
)
def test_the_page_offers_what_the_model_can_run(traits, left_out):
    assert STRATEGIES.keys() - fitting(STRATEGIES, traits).keys() == left_out


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        pytest.param("depth", ["depth"], id="itself"),
        pytest.param("vote(strategy=depth,n=2)", ["strategy", "depth"], id="inside"),
        pytest.param("uniform(strategy=depth-zoom)", ["strategy", "depth"], id="of frames"),
        pytest.param(
            "vote(strategy=uniform(strategy=depth),n=2)",
            ["strategy", "strategy", "depth"],
            id="two deep",
        ),
    ],
)
def test_depth_reaches_the_strategy_inside(text, depth):
    source = DepthSource(scale="1000")
    compared: Any = strategies_named(text, depth=source)[text]
    asked: Any = with_depth(strategy_named(text), source)
    for found in (compared, asked):
        assert reduce(lambda each, name: each.keywords[name], depth, found) is source


@pytest.mark.parametrize("text", ["zoom", "vote(strategy=zoom,n=2)"])
def test_depth_that_nothing_uses_is_refused(text):
    with pytest.raises(UserError, match="--depth and the like"):
        strategies_named(text, depth=DepthSource(scale="1000"))
    with pytest.raises(UserError, match="--depth and the like"):
        with_depth(strategy_named(text), DepthSource(scale="1000"))


def test_strategies_that_are_compared_have_their_verifier_inside():
    text = "vote(strategy=scale,n=2)"
    (found,) = strategies_named(text, "always").values()
    assert isinstance(found, partial)
    assert found.keywords["strategy"].keywords["verifier"] is VERIFIERS["always"]


def _verifiers(strategy):
    """The verifier of each strategy that takes one, the outermost first."""
    taken = inspect.signature(strategy).parameters.get("verifier")
    inner = getattr(strategy, "keywords", {}).get("strategy")
    return ([taken.default] if taken else []) + (_verifiers(inner) if inner else [])


@pytest.mark.parametrize(
    ("text", "verifier", "names"),
    [
        pytest.param("vote(strategy=scale)", "always", [always], id="inside alone"),
        pytest.param("best_of(strategy=scale)", "always", [always, always], id="both"),
        pytest.param("best_of(strategy=scale)", "FOLDER", [score, score], id="both by a folder"),
        pytest.param(
            "best_of(strategy=scale(verifier=never))",
            "FOLDER",
            [score, never],
            id="but for its own",
        ),
        pytest.param(
            "best_of(strategy=scale, verifier=length)", "FOLDER", [length, score], id="but for mine"
        ),
        pytest.param("vote(strategy=best_of(strategy=scale))", "always", [always] * 2, id="deep"),
    ],
)
def test_a_verifier_is_for_all_that_take_one(text, verifier, names, tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    (strategy,) = strategies_named(text, verifier.replace("FOLDER", str(tmp_path))).values()
    assert _verifiers(strategy) == names
    assert (
        _verifiers(judged_by(strategy_named(text), verifier.replace("FOLDER", str(tmp_path))))
        == names
    )


@pytest.mark.parametrize("text", ["vote(strategy=zoom)", "best_of(strategy=zoom)", "zoom"])
def test_all_doors_refuse_alike(text):
    strategy = strategy_named(text)
    taken = bool(_verifiers(strategy))
    for door in (partial(strategies_named, text), partial(judged_by, strategy)):
        with nullcontext() if taken else pytest.raises(UserError, match="takes none"):
            door("always")


def test_a_verifier_looks_as_it_learnt(tmp_path, capsys):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "verifier.json").write_text('{"kind": "score", "tools": "zoom"}')
    bound = judged_by(strategy_named("scale"), str(tmp_path))
    assert inspect.signature(bound).parameters["tools"].default == "zoom"
    assert capsys.readouterr().err == ""
    own = judged_by(strategy_named("scale(tools=all)"), str(tmp_path))
    assert inspect.signature(own).parameters["tools"].default == "all"
    assert "learnt with tools=zoom, and is used with tools=all" in capsys.readouterr().err


def test_a_log_ratio_needs_a_rule_to_stop_by(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "verifier.json").write_text('{"kind": "logratio"}')
    with pytest.raises(UserError, match=r"no threshold of its own: say scale\(eps=0.1\)"):
        judged_by(strategy_named("scale"), str(tmp_path))
    for text in ("scale(eps=0.1)", "best_of", "beam"):
        assert _verifiers(judged_by(strategy_named(text), str(tmp_path))) == [logratio]


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
