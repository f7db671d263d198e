"""`mm bench compare`: what one file of `mm eval` has over another, question by question."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.errors import check_file, writing
from app.terminal import command_line
from mm.errors import UserError, quote

if TYPE_CHECKING:
    from training.evaluation.answers import Table


def compare(
    a: Annotated[Path, typer.Argument(help="What `mm eval --out` wrote.")],
    b: Annotated[Path, typer.Argument(help="Another, of the same questions.")],
    strategy: Annotated[
        str | None, typer.Option(help="Of A, this alone; its control in brackets for one row.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="That of B; by default the one of the same name.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the differences as JSON.")] = None,
) -> None:
    """Right answers of A minus those of B on the same questions, with 95 % intervals."""
    from training.evaluation.answers import compare as compared
    from training.evaluation.answers import differing, read_tables
    from training.evaluation.results import envelope
    from training.evaluation.table import print_pairs

    if against and not strategy:
        raise UserError(f"--against {against!r} is for a strategy of A: give --strategy too")
    check_file("--out", out, [a, b])
    first, second = read_tables(a, b)
    found = compared(first, second, strategy=strategy, against=against)
    print_pairs(found.pairs)
    others = differing(first, second)
    _tell([*found.notes, *(_difference(name, *each) for name, each in others.items())])
    if out:
        measured = {"a": _measured(first), "b": _measured(second)}
        about = {"command": command_line(), **measured, "differing": list(others)}
        with writing("--out", out):
            said = json.dumps(envelope([], found.pairs, **about), indent=1)
            out.write_text(said + "\n", encoding="utf-8")


def _tell(lines: list[str]) -> None:
    for line in lines:
        print(f"mm: {line}", file=sys.stderr)


def _difference(name: str, mine: Any, theirs: Any) -> str:
    return f"A and B differ in {name}: {quote(mine)} and {quote(theirs)}"


def _measured(table: Table) -> dict[str, Any]:
    """Where a side's answers come from."""
    return {"table": table.name, **{n: table.about.get(n) for n in ("command", "measured_at")}}
