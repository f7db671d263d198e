"""Recipes as YAML files, and the flags that override them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from training.data import BadData

from .recipe import KEYS, Recipe
from .recipe_keys import check_values, flag_of, kinds_of

SHIPPED = Path(__file__).parent.parent / "recipes"


def shipped() -> dict[str, str]:
    """The recipes that come along: their names, and what each says of itself first."""
    return {
        path.stem: path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        for path in sorted(SHIPPED.glob("*.yaml"))
    }


def find_recipe(name: Path) -> Path:
    """The file `name`, or the shipped recipe of that name.

    Raises:
        BadData: there is neither.
    """
    ours = SHIPPED / f"{name}.yaml"
    if not name.is_file() and not ours.is_file():
        raise BadData(f"{name}: no such file, and none of the recipes {', '.join(shipped())}")
    return name if name.is_file() else ours


def load_recipe(path: Path | None, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe in the YAML file `path`, or shipped under that name, if one is given.

    The `overrides` that are given replace its values. Paths in the file are relative to where the
    command runs, as flags are.

    Raises:
        BadData: the file cannot be read, or a key or value in it is none of a recipe's, or of no
            use to its method.
    """
    written = _read(find_recipe(path)) if path else {}
    given = {key: value for key, value in overrides.items() if value is not None}
    _check_keys(given, "flags")
    method = written.get("method")
    if method and given.get("method", method) != method:
        raise BadData(f"{path} is a recipe for {method}: mm train {method} {path}")
    recipe = Recipe(**{**written, **given})
    _check_method(recipe, str(path) if path else "flags")
    for needed in ("data", "output"):
        if not getattr(recipe, needed):
            raise BadData(f"give --{needed}: what to learn from, and the folder for the result")
    return recipe


def keys_table() -> str:
    """All keys of a recipe as a Markdown table, in the order of the flags."""
    defaults = {each.name: each.default for each in fields(Recipe)}
    rows = ["| key | flag | default | what it is |", "| --- | --- | --- | --- |"]
    for name, known in KEYS.items():
        flag = "" if known.flag == "" else f"`{flag_of(name, known)}`"
        default = defaults[name]
        shown = "" if default in (None, "") else f"`{str(default).lower()}`"
        about = " ".join(filter(None, [known.help, _rule(known.rule)]))
        of = "" if len(known.methods) > 2 else f"{', '.join(known.methods)}: "
        rows.append(f"| `{name}` | {flag} | {shown} | {of}{about} |")
    return "\n".join(rows) + "\n"


def _rule(rule: str) -> str:
    return f"{rule[0].upper()}{rule[1:]}." if rule else ""


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadData(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise BadData(f"{path}: expected keys and values, found {found!r}")
    _check_keys(found, str(path))
    kinds = kinds_of(Recipe)
    values = {key: _number(value) if float in kinds[key] else value for key, value in found.items()}
    check_values(Recipe, values, str(path))
    return values


def _check_keys(written: Mapping[Any, Any], place: str) -> None:
    names = [each.name for each in fields(Recipe)]
    for key in written:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, 1) or [", ".join(names)]
            raise BadData(f"{place}: expected a recipe's key, found {key!r}; is it {near[0]}?")


def _check_method(recipe: Recipe, place: str) -> None:
    """Refuse what another method would read, and this one would leave out."""
    for each in fields(Recipe):
        known = KEYS.get(each.name)
        if known is None or recipe.method in known.methods:
            continue
        if (value := getattr(recipe, each.name)) != each.default:
            raise BadData(
                f"{place}: {each.name} {value!r} is for {' and '.join(known.methods)} alone: "
                f"leave it out of a recipe for {recipe.method}"
            )


def _number(value: Any) -> Any:
    """`value`, or the number it writes: YAML takes 2e-5, without a point, for text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


if __name__ == "__main__":
    print(keys_table(), end="")
