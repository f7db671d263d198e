"""Strategies by name."""

from __future__ import annotations

import importlib
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import mm
from mm.errors import UserError
from vision import attend, replay, zoom

from .errors import one_of
from .strategy_options import check_options, parse_call, split_outside_brackets

STRATEGIES: dict[str, mm.Strategy] = {
    "direct": mm.direct,
    "think": mm.think,
    "zoom": zoom,
    "attend": attend,
    "replay": replay,
}


def strategies_named(text: str) -> dict[str, mm.Strategy]:
    """The strategies in "direct,zoom(max_looks=3)", by what was written of each.

    Raises:
        UserError: one cannot be understood, as `strategy_named` says.
    """
    return {name: strategy_named(name) for name in split_outside_brackets(text)}


def strategy_named(text: str) -> mm.Strategy:
    """The strategy that `text` means, such as `zoom` or `zoom(max_looks=3, layout=inline)`.

    Its name is one of `STRATEGIES`, or `package.module:function`, whose module may lie in the
    current folder. An error inside a module is its author's, and stays one.

    Raises:
        UserError: there is no such strategy, module, function or option, or a value does not fit.
    """
    name, options = parse_call(text)
    strategy = STRATEGIES.get(name) or _by_module(name)
    check_options(name, strategy, options)
    return partial(strategy, **options) if options else strategy


def _by_module(name: str) -> mm.Strategy:
    module, colon, function = name.partition(":")
    if not colon or not all(part.isidentifier() for part in [*module.split("."), function]):
        known = one_of([*STRATEGIES, "package.module:function"])
        raise UserError(f"no strategy {name!r}: give {known}")
    return _function(module, function)


def _function(module: str, function: str) -> mm.Strategy:
    found: Any = getattr(_module(module), function, None)
    if not callable(found):
        what = "holds no" if found is None else "holds something that cannot be called as"
        raise UserError(f"module {module!r} {what} {function!r}, wanted by --strategy")
    return cast(mm.Strategy, found)


def _module(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise UserError(
            f"no module {error.name!r} for --strategy {name!r}: it must be installed, "
            "or lie in the current folder"
        ) from None
