"""Strategies by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import mm
from mm.errors import UserError
from mm.own_functions import is_own, own_function
from mm.strategies import length, likelihood
from vision import act, attend, replay, zoom

from .errors import one_of
from .strategy_options import parse_call, read_options, split_outside_brackets

STRATEGIES: dict[str, mm.Strategy] = {
    "direct": mm.direct,
    "think": mm.think,
    "zoom": zoom,
    "attend": attend,
    "replay": replay,
    "act": act,
    "vote": mm.vote,
    "best_of": mm.best_of,
}

VERIFIERS: dict[str, mm.Verifier] = {"likelihood": likelihood, "length": length}


def strategies_named(text: str) -> dict[str, mm.Strategy]:
    """The strategies in "direct,zoom(max_looks=3)", by the text that names each.

    Raises:
        UserError: one cannot be understood, as `strategy_named` says.
    """
    return {name: strategy_named(name) for name in split_outside_brackets(text)}


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
