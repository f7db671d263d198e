"""How an adapter that learnt from pairs is read as a verifier, by the pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from mm.session import name_of
from mm.types import ToolSpec
from training.data import Row
from vision.actions import terminate
from vision.verifier import ENOUGH, Tools, Trained
from vision.zoom_tool import ZOOM

READ = 32
"""So many pairs tell the rest: `mm data pairs` writes one kind to a file, of one strategy."""


def taught_verifier(pairs: Iterable[Row]) -> Trained:
    """How it is read: by `score` if every pair asks whether what was seen is enough, else, as pairs
    of ways and of steps are, by `logratio`."""
    read = list(islice(pairs, READ))
    asked = all(row.messages[-1].text == ENOUGH for row in read)
    return Trained("score" if asked else "logratio", tools=_tools(read))


def _tools(pairs: Sequence[Row]) -> Tools | None:
    parts = (part for row in pairs for message in row.messages for part in message.parts)
    names = {part.name for part in parts if isinstance(part, ToolSpec)}
    if name_of(terminate) in names:
        return "all"
    return "zoom" if names == {ZOOM} else None
