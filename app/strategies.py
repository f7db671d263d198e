"""Strategies by name."""

from __future__ import annotations

import inspect
import os
import sys
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
from mm.vlm import Traits
from video.search import uniform, watch
from vision import act, attend, beam, depth_latent, depth_text, depth_zoom, replay, scale, zoom
from vision.depth_source import DEPTH, DepthSource, bind_depth
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
        UserError: there is none, or one cannot be understood, as `strategy_named` says.
    """
    found = {name: strategy_named(name) for name in split_outside_brackets(text)}
    if not found:
        raise UserError(f"--strategy {text!r} names none: give {one_of([*STRATEGIES])}")
    taking = [name for name, strategy in found.items() if _reaches(strategy, "verifier")]
    if verifier and not taking:
        raise UserError(f"--verifier: {text} takes none; scale, best_of and beam do")
    if depth != DepthSource() and not any(_reaches(s, DEPTH) for s in found.values()):
        raise UserError(f"--depth and the like: {text} uses none; depth-text and depth-zoom do")
    judged = {n: judged_by(s, verifier, judge) if n in taking else s for n, s in found.items()}
    return {n: bind_depth(s, depth) for n, s in judged.items()}


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


def strategies_for(
    choice: ModelChoice, text: str | None = None, depth: DepthSource = DepthSource()
) -> dict[str, mm.Strategy]:
    """The strategies in `text` under the verifier of `choice` and with `depth`; all for None, each
    by one name.

    Raises:
        UserError: as `strategies_named` does; `depth` alone names none.
    """
    first = {each: name for name, each in reversed(STRATEGIES.items())}
    all_once = ",".join(name for name, each in STRATEGIES.items() if first[each] == name)
    wanted = all_once if text is None else text
    return strategies_named(wanted, choice.verifier, depth, choice.judge)


def offered(
    strategies: Mapping[str, mm.Strategy],
    sampling: mm.Sampling,
    *,
    depth: bool = True,
    latents: bool = False,
) -> dict[str, mm.Strategy]:
    """Those of `strategies` that run as they are.

    One that tells depth is left out unless there is `depth`, and one that needs a module of latents
    unless the model brings one.
    """
    return {
        name: each
        for name, each in drawing(strategies, sampling).items()
        if (latents or not _takes(each, "midi")) and (depth or not _takes(each, "depth"))
    }


_NEEDS: Mapping[str, Callable[[Traits], bool]] = {
    "attend": lambda traits: traits.aim is not None,
    "replay": lambda traits: traits.memory is not None,
    "act": lambda traits: traits.calls_tools,
    "beam": lambda traits: traits.calls_tools,
}
"""Strategies that not every model can run, and whether one of such traits can."""


def fitting(strategies: Mapping[str, mm.Strategy], traits: Traits) -> dict[str, mm.Strategy]:
    """Those of `strategies`, named as in `STRATEGIES`, that a model of such `traits` can run."""
    return {
        name: each
        for name, each in strategies.items()
        if name not in _NEEDS or _NEEDS[name](traits)
    }


def drawing(strategies: Mapping[str, mm.Strategy], sampling: mm.Sampling) -> dict[str, mm.Strategy]:
    """`strategies`; those that need several draws sample at `TEMPERATURE` where `sampling` is
    greedy and their own brackets name no temperature."""
    bound: Any = {"temperature": TEMPERATURE}
    greedy = sampling.temperature == 0
    return {
        name: partial(each, **bound) if greedy and _draws(each) else each
        for name, each in strategies.items()
    }


def _draws(strategy: mm.Strategy) -> bool:
    """Whether it needs a temperature that nobody gave it."""
    given = strategy.keywords if isinstance(strategy, partial) else {}
    return _takes(strategy, "temperature") and "temperature" not in given


def matched(choice: ModelChoice) -> Mapping[str, float]:
    """What makes controls say "enough" as often as the trained verifier of `choice`."""
    folder = choice.verifier_folder or choice.judge
    return read_verifier(Path(folder)).matched if folder else {}


def judged_by(strategy: mm.Strategy, verifier: str | None, judge: str | None = None) -> mm.Strategy:
    """`strategy` under the verifier that is named, or whose folder `mm train` wrote; None: its own.

    So is the strategy inside its brackets. `judge` is the folder of one for those of them that
    would ask the model itself. One that is named in a strategy's own brackets stays.

    Raises:
        UserError: none of them takes a verifier, there is none such, or it lacks its threshold.
    """
    if verifier and not _reaches(strategy, "verifier"):
        raise UserError(f"--verifier: {name_of(strategy)} takes none; use scale, best_of or beam")
    bound: dict[str, Any] = {}
    inner = _inner(strategy)
    if inner and _reaches(inner, "verifier"):
        bound["strategy"] = judged_by(inner, verifier, judge)
    chosen = verifier or (judge if _is_asked(strategy) else None)
    if chosen and _takes(strategy, "verifier") and "verifier" not in _given(strategy):
        bound |= _judge_of(strategy, chosen)
    return partial(strategy, **bound) if bound else strategy


def _judge_of(strategy: mm.Strategy, verifier: str) -> dict[str, Any]:
    """What a verifier, by its name or its folder, binds to a strategy that takes one."""
    if not os.path.isdir(verifier):  # unlike Path.is_dir, no error for a name that is too long
        return {"verifier": verifier_named(verifier)}
    trained, given = read_verifier(Path(verifier)), _given(strategy)
    ruled = trained.threshold is not None or {"eps", "threshold"} & given.keys()
    if trained.kind == "logratio" and _takes(strategy, "eps") and not ruled:
        raise UserError(
            f"--verifier {verifier}: `logratio` has no threshold of its own: say "
            f"{name_of(strategy)}(eps=0.1), or let `mm bench verifier --write` choose one"
        )
    if trained.tools and given.get("tools") not in (None, trained.tools):
        print(
            f"mm: --verifier {verifier} learnt with tools={trained.tools}, and is used with "
            f"tools={given['tools']}",
            file=sys.stderr,
        )
    wanted = {
        "verifier": VERIFIERS[trained.kind],
        "threshold": trained.threshold,
        "tools": trained.tools,
    }
    return {
        name: value
        for name, value in wanted.items()
        if value is not None and _takes(strategy, name) and name not in given
    }


def _asks_itself(strategy: mm.Strategy) -> bool:
    """Whether its verifier, or that of a strategy in its brackets, asks the model itself."""
    inner = _inner(strategy)
    return _is_asked(strategy) or (inner is not None and _asks_itself(inner))


def _is_asked(strategy: mm.Strategy) -> bool:
    taken = inspect.signature(strategy).parameters.get("verifier")
    return taken is not None and taken.default is asked and "verifier" not in _given(strategy)


def _given(strategy: mm.Strategy) -> Mapping[str, Any]:
    """The options that stand in its brackets."""
    return strategy.keywords if isinstance(strategy, partial) else {}


def _inner(strategy: mm.Strategy) -> mm.Strategy | None:
    """The strategy that this one was bound to in its brackets."""
    return strategy.keywords.get("strategy") if isinstance(strategy, partial) else None


def with_depth(strategy: mm.Strategy, source: DepthSource) -> mm.Strategy:
    """`strategy` with its depth from `source`; as it is where it takes none.

    Raises:
        UserError: it takes none, and a source was named.
    """
    found = bind_depth(strategy, source)
    if found is strategy and source != DepthSource():
        raise UserError(f"--depth and the like: {name_of(strategy)} uses none; use depth-text")
    return found


def _takes(strategy: mm.Strategy, option: str) -> bool:
    return option in inspect.signature(strategy).parameters


def _reaches(strategy: mm.Strategy, option: str) -> bool:
    """Whether it takes `option`, or the strategy inside its brackets does."""
    inner = _inner(strategy)
    return _takes(strategy, option) or (inner is not None and _reaches(inner, option))


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
    return own_function(name, f"--{what}")


_READERS = ((mm.Strategy, strategy_named), (mm.Verifier, verifier_named))
