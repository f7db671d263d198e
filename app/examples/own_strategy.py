"""A strategy of your own: a function that drives a session and returns the branch it chooses.

python -m app.examples.own_strategy
mm ask IMAGE "question" --strategy app.examples.own_strategy:look_if_unsure
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mm
from vision import zoom

TABLE = Path(__file__).with_name("table.png")


def look_if_unsure(session: mm.Session) -> mm.Branch:
    """Answer at once where two samples agree; else look closer."""
    first, second = session.fork(), session.fork()
    for path in (first, second):
        path.generate(replace(path.sampling, temperature=1.0))
    sure = mm.same_answer(first.branch.answer, second.branch.answer or "")
    return first.branch if sure else zoom(session.fork())


if __name__ == "__main__":
    tiny = mm.load("tiny")
    for question in ("How many objects are there?", "What letter is on the red square?"):
        trace = mm.run(look_if_unsure, mm.question(question, TABLE), tiny)
        print(f"{question} {trace.answer}, after {len(trace.best.images)} looks")
