"""Strategies by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import mm
from mm.errors import UserError
from mm.local.checkpoints import bundled_verifier
from mm.own_functions import is_own, own_function
from mm.session import name_of
from mm.strategies import length, likelihood
from video.search import uniform, watch
from vision import act, attend, beam, depth_latent, depth_text, depth_zoom, replay, scale, zoom
from vision.depth_source import DepthSource
from vision.verifier import (
    always,
    asked,
    logratio,
    never,
    random_stop,
    read_verifier,
    score,
    vocab_l2,
)

from .errors import one_of
from .model_choice import ModelChoice
from .strategy_options import parse_call, read_options, split_outside_brackets

STRATEGIES: dict[str, mm.Strategy] = {
    "direct": mm.direct,
    "think": mm.think,
    "zoom": zoom,
    "attend": attend,
    "replay": replay,
    "act": act,
    "scale": scale,
    "depth": depth_text,
    "depth-text": depth_text,
    "depth-latent": depth_latent,
    "depth-zoom": depth_zoom,
    "uniform": uniform,
    "watch": watch,
    "vote": mm.vote,
    "best_of": mm.best_of,
    "beam": beam,
}

VERIFIERS: dict[str, mm.Verifier] = {
    "asked": asked,
    "score": score,
    "logratio": logratio,
    "vocab_l2": vocab_l2,
    "likelihood": likelihood,
    "length": length,
    "always": always,
    "never": never,
    "random_stop": random_stop,
}


TEMPERATURE = 0.7
"""Of draws, where neither the model nor a person says how to sample."""


def strategies_named(
    text: str,
    verifier: str | None = None,
    depth: DepthSource = DepthSource(),
    judge: str | None = None,
) -> dict[str, mm.Strategy]:
    """The strategies in "direct,zoom(max_looks=3)", by the text that names each.

    `verifier`, `judge` and `depth` are for those that take them, as `judged_by` and `with_depth`
    have it.

    Raises:
        UserError: one cannot be understood, as `strategy_named` says.
    """
    found = {name: strategy_named(name) for name in split_outside_brackets(text)}
    taking = [name for name, strategy in found.items() if _takes(strategy, "verifier")]
    if verifier and not taking:
        raise UserError(f"--verifier: {text} takes none; scale, best_of and beam do")
    if depth != DepthSource() and not any(_takes(s, "depth") for s in found.values()):
        raise UserError(f"--depth and the like: {text} uses none; depth-text and depth-zoom do")
    judged = {n: judged_by(s, verifier, judge) if n in taking else s for n, s in found.items()}
    return {n: with_depth(s, depth) if _takes(s, "depth") else s for n, s in judged.items()}


def judging(choice: ModelChoice, text: str) -> ModelChoice:
    """`choice` with the verifier that its model brings, where none was named and a strategy in
    `text` would ask the model itself.

    Raises:
        UserError: a strategy cannot be understood, as `strategy_named` says.
    """
    own = bundled_verifier(choice.name) if choice.backend == "local" else None
    named = choice.verifier or choice.adapter
    wanted = any(map(_asks_itself, strategies_named(text).values()))
    return replace(choice, judge=str(own)) if own and wanted and not named else choice


def strategies_for(choice: ModelChoice) -> dict[str, mm.Strategy]:
    """All strategies by name, those that take a verifier under that of `choice`.

    Raises:
        UserError: there is no such verifier.
    """
    return {
        name: judged_by(each, choice.verifier, choice.judge) if _takes(each, "verifier") else each
        for name, each in STRATEGIES.items()
    }


def offered(strategies: Mapping[str, mm.Strategy], sampling: mm.Sampling) -> dict[str, mm.Strategy]:
    """Those of `strategies` that run without brackets.

    Where the model's own `sampling` is greedy, those that need several draws sample at
    `TEMPERATURE`; one that needs a folder is left out.
    """
    bound: Any = {"temperature": TEMPERATURE}
    greedy = sampling.temperature == 0
    return {
        name: partial(each, **bound) if greedy and _takes(each, "temperature") else each
        for name, each in strategies.items()
        if not _takes(each, "midi")
    }


def matched(choice: ModelChoice) -> Mapping[str, float]:
    """What makes controls say "enough" as often as the trained verifier of `choice`."""
    folder = choice.verifier_folder or choice.judge
    return read_verifier(Path(folder)).matched if folder else {}


def judged_by(strategy: mm.Strategy, verifier: str | None, judge: str | None = None) -> mm.Strategy:
    """`strategy` under the verifier that is named, or whose folder `mm train` wrote; None: its own.

    `judge` is the folder of one for a strategy that would ask the model itself. One that is named
    in the strategy's own brackets stays.

    Raises:
        UserError: it takes no verifier, or there is none such.
    """
    if verifier is None and judge and _asks_itself(strategy):
        verifier = judge
    if verifier is None or (isinstance(strategy, partial) and "verifier" in strategy.keywords):
        return strategy
    if not _takes(strategy, "verifier") and (inner := _inner(strategy)):
        bound: Any = {"strategy": judged_by(inner, verifier, judge)}
        return partial(strategy, **bound)
    if not _takes(strategy, "verifier"):
        raise UserError(f"--verifier: {name_of(strategy)} takes none; use scale, best_of or beam")
    if not Path(verifier).is_dir():
        bound = {"verifier": verifier_named(verifier)}
        return partial(strategy, **bound)
    trained = read_verifier(Path(verifier))
    wanted = {"verifier": VERIFIERS[trained.kind], "threshold": trained.threshold}
    options = inspect.signature(strategy).parameters
    given = strategy.keywords if isinstance(strategy, partial) else {}
    bound = {k: v for k, v in wanted.items() if k in options and k not in given and v is not None}
    return partial(strategy, **bound)


def _asks_itself(strategy: mm.Strategy) -> bool:
    """Whether its verifier is the one that asks the model itself."""
    taken = inspect.signature(strategy).parameters.get("verifier")
    if taken is None:
        inner = _inner(strategy)
        return inner is not None and _asks_itself(inner)
    named = isinstance(strategy, partial) and "verifier" in strategy.keywords
    return taken.default is asked and not named


def _inner(strategy: mm.Strategy) -> mm.Strategy | None:
    """The strategy that this one was bound to in its brackets."""
    return strategy.keywords.get("strategy") if isinstance(strategy, partial) else None


def with_depth(strategy: mm.Strategy, source: DepthSource) -> mm.Strategy:
    """`strategy` with its depth from `source`; as it is where it takes none.

    Raises:
        UserError: it takes none, and a source was named.
    """
    if _takes(strategy, "depth"):
        bound: Any = {"depth": source}
        return partial(strategy, **bound)
    if source != DepthSource():
        raise UserError(f"--depth and the like: {name_of(strategy)} uses none; use depth-text")
    return strategy


def _takes(strategy: mm.Strategy, option: str) -> bool:
    return option in inspect.signature(strategy).parameters


def strategy_named(text: str) -> mm.Strategy:
    """The strategy that `text` means: `zoom`, `zoom(max_looks=3)`, `vote(strategy=think, n=5)`.

    Its name is one of `STRATEGIES`, or `package.module:function`, whose module may lie in the
    current folder. An error inside a module is its author's, and stays one. An option that is a
    strategy or a verifier is named in the same way.

    Raises:
        UserError: there is no such strategy, module, function or option, or a value does not fit.
    """
    return _bound(text, STRATEGIES, "strategy")


def verifier_named(text: str) -> mm.Verifier:
    """The verifier that `text` means: one of `VERIFIERS`, or `package.module:function`.

    Raises:
        UserError: as `strategy_named` does.
    """
    return _bound(text, VERIFIERS, "verifier")


def _bound(text: str, known: Mapping[str, Callable[..., Any]], what: str) -> Any:
    name, options = parse_call(text)
    function = known.get(name) or _by_module(name, [*known], what)
    read = read_options(name, function, options, _READERS)
    return partial(function, **read) if read else function


def _by_module(name: str, known: Sequence[str], what: str) -> Callable[..., Any]:
    if not is_own(name):
        raise UserError(f"no {what} {name!r}: give {one_of([*known, 'package.module:function'])}")
    return own_function(name, "--strategy")


_READERS = ((mm.Strategy, strategy_named), (mm.Verifier, verifier_named))
