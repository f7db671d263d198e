"""Saves answers while a table is measured, so that a stopped run continues where it was."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO, get_type_hints

from mm.errors import door, quote
from mm.types import Cost

from .evaluate import Outcome
from .tasks import BadTarget

Key = tuple[str, str]
"""A task and the label of a condition."""

PLACE = ("backend", "base_url", "processor", "quantize")
"""Who ran the model and how (`app.model_choice`): not written down from the beginning."""


WEIGHTS = ("adapter_weights", "verifier_weights")
"""Which weights lay in the folders of adapters: later still."""


class ResultLog:
    """The outcomes so far, in a file beside the table: what is measured, then a line for each.

    Raises:
        BadTarget: the file holds answers to something else, or is spoilt.
    """

    def __init__(self, path: Path, about: Mapping[str, object]) -> None:
        self.path = path
        self.outcomes: dict[Key, list[Outcome]] = {}
        known = json.loads(json.dumps(about))
        with door(f"{str(path)!r} is spoilt", BadTarget, "remove it to begin again"):
            lines = _complete_lines(path)
            if other := ", ".join(differing(lines[0], known) if lines else ()):
                raise BadTarget(
                    f"{str(path)!r} holds answers that differ in {other}: remove it, or give "
                    "another --out"
                )
            for line in lines[1:]:
                key = (line["task"], line["condition"])
                self.outcomes.setdefault(key, []).append(_outcome(line["outcome"]))
        self._file = _rewritten(path, [known, *lines[1:]])

    def add(self, task: str, condition: str, outcome: Outcome) -> None:
        """Write `outcome` to the file at once."""
        line = {"task": task, "condition": condition, "outcome": asdict(outcome)}
        with door(f"{str(self.path)!r} cannot be written", BadTarget):
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def close(self, *, done: bool) -> None:
        """Close the file; it is not needed once the table is `done`."""
        self._file.close()
        if done:
            self.path.unlink()


def differing(
    before: Mapping[str, object], known: Mapping[str, object], place: Collection[str] = PLACE
) -> list[str]:
    """What a file and this run do not share; a file of before `place`, or of before `WEIGHTS`, says
    nothing of that."""
    unsaid = [*(() if "backend" in before else place), *set(WEIGHTS).difference(before)]
    names = sorted({*before, *known}.difference(unsaid))
    return [name for name in names if before.get(name) != known.get(name)]


def _complete_lines(path: Path) -> list[dict[str, Any]]:
    """What was written whole.

    Raises:
        ValueError: a line before it is no JSON object; says which.
    """
    if not path.exists():
        return []
    lines = whole_lines(path).decode().split("\n")[:-1]
    return [_object(n, line) for n, line in enumerate(lines, 1)]


def whole_lines(path: Path) -> bytes:
    """What of `path` was written whole: a kill may have cut its last line off."""
    written = path.read_bytes()
    return written[: written.rfind(b"\n") + 1]


def _object(number: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"line {number} is no JSON object")
    return found


def _outcome(said: Mapping[str, Any]) -> Outcome:
    """The outcome that `add` wrote.

    Raises:
        KeyError, TypeError, ValueError: a field is missing, unknown or of another type.
    """
    outcome = Outcome(**{**said, "cost": Cost(**said["cost"])})
    for record in (outcome, outcome.cost):
        for name, kind in get_type_hints(type(record)).items():
            value = getattr(record, name)
            if not isinstance(value, int | float if kind is float else kind):
                raise ValueError(f"{name} is {quote(value)}")
    return outcome


def _rewritten(path: Path, lines: list[dict]) -> TextIO:
    whole = path.with_name(path.name + ".new")
    whole.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    whole.replace(path)
    return path.open("a", encoding="utf-8")
