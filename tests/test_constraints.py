"""`constraints.txt` names a version of each package that `pyproject.toml` asks for, and one that
will do."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
UNTESTED = {"quantize"}
"""Extras that `all` leaves out: no machine of ours installs them."""


def required() -> Iterator[Requirement]:
    extras = PROJECT["optional-dependencies"]
    named = [each for extra, lines in extras.items() if extra not in UNTESTED for each in lines]
    for line in [*PROJECT["dependencies"], *named]:
        requirement = Requirement(line)
        if requirement.name != PROJECT["name"]:
            yield requirement


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().split()
    return {canonicalize_name(name): number for name, number in (s.split("==") for s in lines)}


@pytest.mark.parametrize("requirement", [*required()], ids=str)
def test_what_is_required_is_pinned(requirement: Requirement) -> None:
    assert requirement.specifier.contains(pinned().get(canonicalize_name(requirement.name), ""))
