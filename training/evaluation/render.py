"""Fills the tables of Markdown files from result files, so that no number is typed by hand.

    python -m training.evaluation.render README.md vision/README.md

A table stands between two comments; the first names a view of `views`, files of
`training/benchmarks/results/`, and options:

    <!-- results: controls looking.json task=read -->
    <!-- end -->

`mm eval --out` and `mm bench --out` write such files.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from mm.errors import UserError

from .views import VIEWS

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
BLOCK = re.compile(
    r"^<!-- results: (?P<asked>.*?) -->\n(?P<shown>.*?)^<!-- end -->", re.DOTALL | re.MULTILINE
)


class BadBlock(UserError):
    """A block asks for something that cannot be shown."""


def filled(text: str, results: Path = RESULTS) -> str:
    """`text` with all its blocks filled anew from the files in `results`.

    Raises:
        BadBlock: a block names no view, no file, or a file that the view cannot show.
    """

    def fill(block: re.Match[str]) -> str:
        lines = shown(block["asked"], results)
        return "\n".join([f"<!-- results: {block['asked']} -->", "", *lines, "", "<!-- end -->"])

    return BLOCK.sub(fill, text)


def shown(asked: str, results: Path = RESULTS) -> list[str]:
    """The lines of the block that asks for `asked`.

    Raises:
        BadBlock: as `filled`.
    """
    view, *words = asked.split()
    if view not in VIEWS:
        raise BadBlock(f"no view {view!r} in {asked!r}: give one of {', '.join(VIEWS)}")
    options = dict(word.split("=", 1) for word in words if "=" in word)
    files = [_read(results / word) for word in words if "=" not in word]
    try:
        return VIEWS[view](files, **options)
    except (KeyError, TypeError, IndexError) as error:
        raise BadBlock(f"{view} cannot show {asked!r}: {error}") from None


def files_named(text: str) -> dict[str, set[str]]:
    """The result files that blocks of `text` show, by view."""
    found: dict[str, set[str]] = {}
    for block in BLOCK.finditer(text):
        view, *words = block["asked"].split()
        found.setdefault(view, set()).update(word for word in words if "=" not in word)
    return found


def typed(text: str) -> str:
    """`text` without what its blocks show: what a person typed."""
    return BLOCK.sub("", text)


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadBlock(f"there is no {path.name} in {path.parent}: measure it first") from None


def main() -> None:
    """Rewrite the files named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", type=Path, nargs="+")
    for path in parser.parse_args().files:
        before = path.read_text(encoding="utf-8")
        if (after := filled(before)) != before:
            path.write_text(after, encoding="utf-8")
            print(f"{path}: tables filled anew")


if __name__ == "__main__":
    main()
