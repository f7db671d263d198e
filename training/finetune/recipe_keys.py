"""A recipe's keys: what each means, which values it takes, how it is written as a flag.

The command line reads them before anything heavy is imported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

if TYPE_CHECKING:
    from training.data import BadData

MethodName = Literal["sft", "dpo", "grpo"]
METHODS: tuple[MethodName, ...] = get_args(MethodName)


@dataclass(frozen=True)
class Key:
    """What is known of a key besides its type and default.

    Attributes:
        help: one sentence, or two.
        above, at_least, at_most: bounds of a number; None for none. Numbers are finite.
        flag: how it is written on the command line, where that is not the key with dashes; "" for
            a key that stands in files alone.
        methods: the commands that have it as a flag.
    """

    help: str
    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    flag: str | None = None
    methods: tuple[MethodName, ...] = METHODS

    @property
    def rule(self) -> str:
        """Its bounds: "above 0", "above 0, at most 1", "from 0 to 9"; "" for none."""
        if self.at_least is not None and self.at_most is not None:
            return f"from {self.at_least:g} to {self.at_most:,.0f}"
        bounds = {"above": self.above, "at least": self.at_least, "at most": self.at_most}
        return ", ".join(f"{word} {n:,g}" for word, n in bounds.items() if n is not None)


def key(default: Any, help: str, **known: Any) -> Any:
    """A dataclass field that is a recipe's key."""
    return field(default=default, metadata={"key": Key(help, **known)})


def keys_of(recipe: type) -> dict[str, Key]:
    """The keys of a dataclass whose fields are made by `key`, in their order."""
    return {each.name: each.metadata["key"] for each in fields(recipe) if "key" in each.metadata}


def flag_of(name: str, known: Key) -> str:
    """How a key is written on the command line: "--learning-rate", "--lora/--full"."""
    return known.flag or f"--{name.replace('_', '-')}"


def kinds_of(recipe: type) -> dict[str, list[Any]]:
    """The types, and the words of literals, that each key allows."""
    return {name: _parts(kind) for name, kind in get_type_hints(recipe).items()}


def check_values(recipe: type, values: Mapping[str, Any], place: str | None = None) -> None:
    """Refuse a value that its key does not take.

    Args:
        place: the file that the values stand in; None where each was given as a flag.

    Raises:
        BadData: it is of another type, not finite, or out of bounds.
    """
    keys, kinds = keys_of(recipe), kinds_of(recipe)
    for name, value in values.items():
        known = keys.get(name, Key(""))
        if fault := _fault(value, kinds[name], known):
            where = place or flag_of(name, known)
            raise _refusal(f"{where}: expected {name} to be {fault}, found {value!r}")


def _fault(value: Any, kinds: list[Any], known: Key) -> str:
    """What `value` should be and is not; "" where nothing is wrong."""
    if not _fits(value, kinds):
        return _described(kinds)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if not math.isfinite(value):
        return "a finite number"
    return known.rule if _out_of_bounds(value, known) else ""


def _refusal(message: str) -> BadData:
    from training.data import BadData

    return BadData(message)


def _out_of_bounds(value: float, known: Key) -> bool:
    return (
        (known.above is not None and value <= known.above)
        or (known.at_least is not None and value < known.at_least)
        or (known.at_most is not None and value > known.at_most)
    )


def _fits(value: Any, kinds: list[Any]) -> bool:
    types = [each for each in kinds if isinstance(each, type)]
    words = [each for each in kinds if isinstance(each, str)]
    if isinstance(value, bool):
        return bool in types
    return value in words or isinstance(value, (*types, *([int] if float in types else [])))


def _parts(kind: Any) -> list[Any]:
    inner = get_args(kind)
    return [part for each in inner for part in _parts(each)] if inner else [kind]


def _described(kinds: list[Any]) -> str:
    names = {type(None): "empty", str: "text", bool: "true or false", int: "int", float: "number"}
    names[dict] = "a mapping"
    return " or ".join(names.get(part, str(part)) for part in kinds)
