"""A strategy and its options as people write them: `zoom(max_looks=3, layout=inline)`."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from os.path import expanduser
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mm.errors import UserError

Readers = Collection[tuple[Any, Callable[[str], Any]]]
"""For options whose values are functions: the type, and how its name is read."""

_WORD = re.compile(r"[\w.:/\\~+-]+(\(.*\))?", re.DOTALL)
_QUOTED = re.compile(r"""(["'])((?:(?!\1).)*)\1""", re.DOTALL)
_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_OPEN, _CLOSE = "([{", ")]}"


def split_outside_brackets(text: str) -> list[str]:
    """The pieces of `text` between commas that stand in no bracket and no quotes; blanks left out.

    Raises:
        UserError: a bracket or a quote is not closed, or not opened.
    """
    pieces, depth, quote = [""], 0, ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        depth += 0 if quote else (char in _OPEN) - (char in _CLOSE)
        if depth < 0:
            break
        if char == "," and not depth and not quote:
            pieces.append("")
        else:
            pieces[-1] += char
    if depth or quote:
        raise UserError(f"{text!r}: a bracket or a quote in it is not closed, or not opened")
    return [piece.strip() for piece in pieces if piece.strip()]


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the options of `name` or `name(key=value, ...)`.

    A value is `true`, `false`, `none`, a number or another Python literal; text in quotes, which
    stands as it is written; or a word without quotes, where `~/` is the home folder.

    Raises:
        UserError: the brackets hold something else.
    """
    name, opened, rest = text.strip().partition("(")
    if not opened:
        return name, {}
    if not rest.endswith(")"):
        raise UserError(f"{text!r}: expected a closing bracket at its end, found {rest[-1:]!r}")
    options: dict[str, Any] = {}
    for piece in split_outside_brackets(rest[:-1]):
        key, equals, value = (part.strip() for part in piece.partition("="))
        if not (equals and key.isidentifier() and value):
            raise UserError(f"{text!r}: expected options as key=value, found {piece!r}")
        if key in options:
            raise UserError(f"{text!r}: {key} is given twice")
        options[key] = _value(value, text)
    return name.strip(), options


def _value(written: str, text: str) -> Any:
    lowered = {"true": True, "false": False, "none": None}
    if written.lower() in lowered:
        return lowered[written.lower()]
    if quoted := _QUOTED.fullmatch(written):  # no escapes: paths of Windows are full of them
        return quoted[2]
    try:
        return ast.literal_eval(written)
    except (ValueError, SyntaxError):
        if _WORD.fullmatch(written):
            return expanduser(written) if written.startswith("~/") else written
    raise UserError(f"{text!r}: expected a number, a word or text in quotes, found {written!r}")


def settable(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of those keyword-only parameters of `function` whose values text can express."""
    return {name: kind for name, kind in _keywords(function).items() if _plain(kind)}


def _keywords(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of the keyword-only parameters of `function`; Any where none is known."""
    written = function
    while isinstance(written, partial):
        written = written.func
    try:
        hints = get_type_hints(written)
    except NameError:  # a type that its module imports for checkers alone
        hints = {}
    parameters = inspect.signature(function).parameters.values()
    return {p.name: hints.get(p.name, Any) for p in parameters if p.kind is p.KEYWORD_ONLY}


def _named(function: Callable[..., Any], readers: Readers) -> dict[str, Callable[[str], Any]]:
    """How to read those parameters whose values are functions, given by name."""
    return {
        name: read
        for name, kind in _keywords(function).items()
        for known, read in readers
        if kind == known
    }


def read_options(
    name: str,
    function: Callable[..., Any],
    options: Mapping[str, Any],
    readers: Readers = (),
) -> dict[str, Any]:
    """`options`, checked against the keyword-only parameters of `function`, for binding to it.

    Raises:
        UserError: there is no such option, or a value is of another kind; it names what there is.
    """
    known, named = settable(function), _named(function, readers)
    read = {}
    for key, value in options.items():
        if key in named:
            read[key] = named[key](str(value))
            continue
        if key not in known:
            there_is = ", ".join([*named, *known]) or "no options"
            raise UserError(f"{name} has no option {key!r}: it has {there_is}")
        if not _fits(value, known[key]):
            raise UserError(
                f"{name}({key}={value!r}): expected {_said(known[key])}, found {value!r}"
            )
        read[key] = value
    return read


def _alternatives(kind: Any) -> tuple[Any, ...]:
    """The types and literals that `kind` allows."""
    if get_origin(kind) in (Union, UnionType):
        return tuple(each for part in get_args(kind) for each in _alternatives(part))
    return (kind,)


def _plain(kind: Any) -> bool:
    return any(
        each in (*_TYPES, Any) or get_origin(each) is Literal for each in _alternatives(kind)
    )


def _fits(value: Any, kind: Any) -> bool:
    for each in _alternatives(kind):
        if each is Any or (each is NoneType and value is None):
            return True
        if get_origin(each) is Literal and value in get_args(each):
            return True
        if each is float and isinstance(value, int | float) and not isinstance(value, bool):
            return True
        if each in _TYPES and type(value) is each:
            return True
    return False


def _said(kind: Any) -> str:
    words = []
    for each in _alternatives(kind):
        if get_origin(each) is Literal:
            words += map(str, get_args(each))
        elif each is NoneType:
            words.append("none")
        elif each in _TYPES:
            words.append(_TYPES[each])
    return " or ".join(words)
