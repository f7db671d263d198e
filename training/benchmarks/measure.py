"""What the timings share: sides that take turns, medians with spread, rows of one shape."""

from __future__ import annotations

import platform
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Side = Callable[[int], float]
"""Does the work of round number n, its inputs new, and returns what it measured."""


@dataclass(frozen=True)
class Measured:
    """Readings of one measure on both sides, round by round.

    `theirs` is () where there is nobody to compare with. `smaller` says that less is better.
    """

    measure: str
    unit: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...] = ()
    smaller: bool = True

    @property
    def ratios(self) -> tuple[float, ...]:
        """Round by round, above 1 where ours is better."""
        pairs = zip(self.ours, self.theirs, strict=False)
        return tuple(t / o if self.smaller else o / t for o, t in pairs)


def alternate(
    measure: str, unit: str, ours: Side, theirs: Side, *, rounds: int, smaller: bool = True
) -> Measured:
    """Both sides in turn on the same inputs, after a round each that does not count."""
    ours(0)
    theirs(0)
    pairs = [(ours(n), theirs(n)) for n in range(1, rounds + 1)]
    mine, others = zip(*pairs, strict=True)
    return Measured(measure, unit, mine, others, smaller)


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of `work`."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def row_of(measured: Measured) -> dict[str, Any]:
    """A benchmark row: medians, and the least and greatest ratio of a round as `spread`."""
    ratios = measured.ratios
    return {
        "measure": measured.measure,
        "ours": statistics.median(measured.ours),
        "theirs": statistics.median(measured.theirs) if measured.theirs else None,
        "ratio": statistics.median(ratios) if ratios else None,
        "unit": measured.unit,
        "spread": [min(ratios), max(ratios)] if ratios else None,
        "rounds": len(measured.ours),
    }


def processor(about: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, as Linux tells it in `about`; elsewhere what Python knows."""
    text = about.read_text(encoding="utf-8", errors="replace") if about.is_file() else ""
    named = re.search(r"^model name\s*: *(\S.*)$", text, re.MULTILINE)
    return named[1].strip() if named else platform.processor() or platform.machine()


def p95(values: Sequence[float]) -> float:
    """The value that a twentieth exceed."""
    return statistics.quantiles(values, n=20, method="inclusive")[-1]
