"""What is in a file of rows: how long, how many images, what answers."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mm.tokens.builder import TokenBuilder

from .row import Row

ANSWERS = 10
"""How many of the most frequent answers are listed."""


@dataclass(frozen=True)
class Facts:
    """What one row is: tokens in all, those that train, visual ones; its images and answer."""

    tokens: int
    trained: int
    visual: int
    sizes: tuple[tuple[int, int], ...]
    answer: str


def facts_of(builder: TokenBuilder, row: Row) -> Facts:
    """Those of `row`, the good side of it where it has two.

    Raises:
        ValueError: it cannot be built.
    """
    said = row.messages + row.chosen
    tokens = builder.build(said, open_turn=False, exclude=row.untrained)
    replies = [m.text for m in said if m.role == "assistant"]
    return Facts(
        len(tokens.ids),
        sum(tokens.trained),
        sum(id == builder.placeholder_id for id in tokens.ids),
        tuple(image.size for m in said for image in m.images),
        row.answer or (replies[-1] if replies else ""),
    )


def table(facts: Sequence[Facts]) -> list[tuple[str, str]]:
    """Names and values, for people: medians with the least and the most."""
    images = [size for f in facts for size in f.sizes]
    answers = Counter(f.answer for f in facts)
    common = ", ".join(f"{a[:20]!r} {n}" for a, n in answers.most_common(ANSWERS))
    return [
        ("rows", f"{len(facts):,}"),
        ("tokens a row", _spread([f.tokens for f in facts])),
        ("trained tokens a row", _spread([f.trained for f in facts])),
        ("visual tokens a row", _spread([f.visual for f in facts])),
        ("images a row", _spread([len(f.sizes) for f in facts])),
        ("widths of images", _spread([w for w, _ in images])),
        ("heights of images", _spread([h for _, h in images])),
        ("different answers", f"{len(answers):,}"),
        ("most frequent", common),
    ]


def plot(facts: Sequence[Facts], out: Path) -> None:
    """The lengths of rows, and their answers, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    lengths, answers = figure.subplots(1, 2)
    for key in ("tokens", "visual", "trained"):
        lengths.hist([getattr(f, key) for f in facts], bins=30, alpha=0.6, label=key)
    lengths.set(xlabel="tokens a row", ylabel="rows")
    lengths.legend()
    common = Counter(f.answer for f in facts).most_common(ANSWERS)[::-1]
    answers.barh([a[:24] or "(none)" for a, _ in common], [n for _, n in common])
    answers.set(xlabel="rows", title="most frequent answers")
    figure.savefig(out, dpi=120)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "none"
    low, high = min(values), max(values)
    return f"{statistics.median(values):g}" + (f"  ({low:g} to {high:g})" if low < high else "")
