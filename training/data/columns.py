"""What a column's type says of its values: names of classes, and whole numbers beside a hole."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

MAX_DEPTH = 64
"""How deep lists and objects of a row may be nested: nothing that is read goes as deep."""

_WHOLE = re.compile(r"-?\d+\.0")


SCHEMA = "parameters"
"""The key of a tool's schema."""

MEANT = frozenset({"default", "enum", "const", "examples"})
"""Keys of a schema under which null is a value."""


def without_nulls(
    value: Any, depth: int = MAX_DEPTH, *, schemas: bool = False, inside: bool = False
) -> Any:
    """`value` without the keys that hold nothing: null, as Arrow fills them in, or NaN.

    Rows that were Arrow's once have nulls in JSON too, so that those of a call's arguments go;
    where arguments are a string, its nulls stay.

    Args:
        schemas: null stays where a tool's schema means it.
        inside: `value` stands inside such a schema.

    Raises:
        ValueError: it is nested deeper than `depth`.
    """
    if not isinstance(value, Mapping | list | tuple):
        return value
    if not depth:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        return {
            key: without_nulls(
                each, depth - 1, schemas=schemas, inside=inside or (schemas and key == SCHEMA)
            )
            for key, each in value.items()
            if not is_missing(each) or (inside and key in MEANT and each is None)
        }
    inner = partial(without_nulls, depth=depth - 1, schemas=schemas, inside=inside)
    return [None if is_missing(each) else inner(each) for each in value]


def is_missing(value: Any) -> bool:
    """Whether `value` is null or, as pandas writes a hole, NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def features_in(text: bytes | str | None) -> Mapping[str, Any]:
    """The features that `datasets` describes in JSON; {} where it says nothing."""
    try:
        found = json.loads(text or "{}")
        features = found.get("info", found).get("features") or {}
    except (ValueError, AttributeError, RecursionError):
        return {}
    return features if isinstance(features, Mapping) else {}


def named(value: Any, feature: Any) -> Any:
    """`value` with the names of classes in place of their numbers, as `feature` describes it."""
    if isinstance(feature, list):
        feature = {"_type": "List", "feature": feature[0] if feature else None}
    if not isinstance(feature, Mapping) or value is None:
        return value
    kind = feature.get("_type")
    if kind == "ClassLabel":
        return _class_name(value, feature.get("names") or ())
    if kind in ("Sequence", "List", "LargeList"):
        inner = feature.get("feature")
        if isinstance(value, list):
            return [named(each, inner) for each in value]
        return named(value, inner)  # a sequence of structs is a struct of lists
    if kind is None and isinstance(value, Mapping):
        return {key: named(each, feature.get(key)) for key, each in value.items()}
    return value


def _class_name(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_class_name(each, names) for each in value]
    if not isinstance(value, int) or not isinstance(names, list):
        return value
    if value == -1:  # as `datasets` marks an unknown class
        return None
    return names[value] if 0 <= value < len(names) else value


def whole_columns(table: pyarrow.Table) -> frozenset[str]:
    """Columns of floats that pandas made of integers, because one of them is missing."""
    import numpy as np
    import pyarrow

    found = set()
    for field in table.schema:
        if not pyarrow.types.is_floating(field.type):
            continue
        values = table.column(field.name).to_numpy()
        known = values[~np.isnan(values)]
        if len(known) < len(values) and (known == np.floor(known)).all():
            found.add(field.name)
    return frozenset(found)


def as_whole(value: Any) -> Any:
    """A float that was an integer as the integer."""
    return int(value) if isinstance(value, float) and math.isfinite(value) else value


def whole_numbers(rows: Sequence[Any], *, texts: bool = False) -> list[Any]:
    """`rows`, of which those columns hold integers that pandas turned into floats, because one of
    them is missing; with `texts` it wrote them as text, as into CSV."""
    keys = {key for row in rows if isinstance(row, Mapping) for key in row}
    known = [row for row in rows if isinstance(row, Mapping)]
    whole = {key for key in keys if _is_whole((row.get(key) for row in known), texts)}
    if not whole:
        return list(rows)
    return [_with_whole(row, whole) if isinstance(row, Mapping) else row for row in rows]


def _is_whole(values: Iterable[Any], texts: bool) -> bool:
    holes = numbers = 0
    for value in values:
        if is_missing(value) or value == "":
            holes += 1
        elif _was_whole(value, texts):
            numbers += 1
        else:
            return False
    return holes > 0 and numbers > 0


def _was_whole(value: Any, texts: bool) -> bool:
    if isinstance(value, str):
        return texts and _WHOLE.fullmatch(value.strip()) is not None
    return isinstance(value, float) and value.is_integer()


def _with_whole(row: Mapping[str, Any], whole: Iterable[str]) -> dict[str, Any]:
    return {
        key: (value.strip().removesuffix(".0") if isinstance(value, str) else as_whole(value))
        if key in whole
        else value
        for key, value in row.items()
    }
