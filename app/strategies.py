"""Strategies by name."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import mm
from mm.errors import UserError
from vision import attend, replay, zoom

from .errors import one_of

STRATEGIES: dict[str, mm.Strategy] = {
    "direct": mm.direct,
    "think": mm.think,
    "zoom": zoom,
    "attend": attend,
    "replay": replay,
}


def strategy_named(name: str) -> mm.Strategy:
    """The strategy called `name`: one of `STRATEGIES`, or `package.module:function`.

    The module may lie in the current folder. An error inside it is its author's, and stays one.

    Raises:
        UserError: there is no such strategy, module or function.
    """
    if name in STRATEGIES:
        return STRATEGIES[name]
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
