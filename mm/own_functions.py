"""A user's own strategies, verifiers and rewards, named as `package.module:function`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import UserError

OWN_PACKAGES = ("mm", "vision", "video", "training", "app")


def is_own(name: str) -> bool:
    """Whether `name` is written as `package.module:function`."""
    module, colon, function = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in [*module.split("."), function])


def own_function(name: str, wanted_by: str) -> Callable[..., Any]:
    """The function that `name` means, for which `is_own` holds; its module is imported.

    The module may lie in the current folder. An error inside it is its author's, and stays one.

    Args:
        wanted_by: the flag that asks for it, for messages.

    Raises:
        UserError: there is no such module or function.
    """
    module, _, function = name.partition(":")
    found: Any = getattr(_module(module, wanted_by), function, None)
    if not callable(found):
        _check_name(module, wanted_by)
        what = "holds no" if found is None else "holds something that cannot be called as"
        raise UserError(f"module {module!r} {what} {function!r}, wanted by {wanted_by}")
    return found


def _module(name: str, wanted_by: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        _check_name(name, wanted_by)
        raise UserError(
            f"no module {error.name!r} for {wanted_by} {name!r}: it must be installed, "
            "or lie in the current folder"
        ) from None


def _check_name(name: str, wanted_by: str) -> None:
    """Refuse the name of a module of the user's that another one has already, and comes before it.

    Raises:
        UserError: one like it lies in the current folder, and was not the one found.
    """
    top, here = name.partition(".")[0], Path.cwd()
    found = getattr(sys.modules.get(top), "__file__", None)
    theirs = (here / top).is_dir() or (here / f"{top}.py").is_file()
    if not theirs or not found or Path(found).is_relative_to(here):
        return
    whose = "this toolkit's own package" if top in OWN_PACKAGES else "an installed module"
    raise UserError(f"{wanted_by} {name!r}: {top!r} is {whose}: rename yours")
