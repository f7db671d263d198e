"""Saves answers while a table is measured, so that a stopped run continues where it was."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from mm.errors import door
from mm.types import Cost

from .evaluate import Outcome
from .tasks import BadTarget

Key = tuple[str, str]
"""A task and the label of a condition."""

PLACE = ("backend", "base_url", "processor", "quantize")
"""Who ran the model and how (`app.model_choice`): not written down from the beginning."""


class ResultLog:
    """The outcomes so far, in a file beside the table: what is measured, then a line for each.

    Raises:
        BadTarget: the file holds answers to something else.
    """

    def __init__(self, path: Path, about: Mapping[str, object]) -> None:
        self.path = path
        self.outcomes: dict[Key, list[Outcome]] = {}
        known = json.loads(json.dumps(about))
        lines = _complete_lines(path)
        if other := ", ".join(differing(lines[0], known) if lines else ()):
            raise BadTarget(
                f"{path} holds answers that differ in {other}: remove it, or give another --out"
            )
        for line in lines[1:]:
            outcome = Outcome(**{**line["outcome"], "cost": Cost(**line["outcome"]["cost"])})
            self.outcomes.setdefault((line["task"], line["condition"]), []).append(outcome)
        self._file = _rewritten(path, [known, *lines[1:]])

    def add(self, task: str, condition: str, outcome: Outcome) -> None:
        """Write `outcome` to the file at once."""
        line = {"task": task, "condition": condition, "outcome": asdict(outcome)}
        with door(f"{self.path} cannot be written", BadTarget):
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
    """What a file and this run do not share; a file of before `place` says nothing of that."""
    unsaid = () if "backend" in before else place
    names = sorted({*before, *known}.difference(unsaid))
    return [name for name in names if before.get(name) != known.get(name)]


def _complete_lines(path: Path) -> list[dict]:
    """What was written whole; the last line may have been cut off by a kill."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _rewritten(path: Path, lines: list[dict]) -> TextIO:
    whole = path.with_name(path.name + ".new")
    whole.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    whole.replace(path)
    return path.open("a", encoding="utf-8")
