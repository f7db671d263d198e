"""The table as data: a row for each condition, a pair for each two of them on the same items.

The shape is a contract that tables, plots and checks read.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol

from .controls import Condition
from .evaluate import Outcome
from .intervals import Interval, design_effect, paired_difference, widened, wilson

Row = dict[str, Any]
Results = Mapping[Condition, Sequence[Outcome]]


class Graded(Protocol):
    """An answer that was found right or wrong; as an `Outcome` has it."""

    @property
    def id(self) -> str: ...
    @property
    def correct(self) -> bool: ...
    @property
    def about(self) -> str: ...


COSTS = (
    "visual_tokens",
    "patches",
    "computed_tokens",
    "reused_tokens",
    "generated_tokens",
    "seconds",
)
CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("multimodal-reasoning", "torch", "transformers", "pillow")


def row_of(task: str, condition: Condition, outcomes: Sequence[Outcome]) -> Row:
    """An evaluation row: shares in [0, 1] with their interval, costs as means per answer.

    `valid_boxes` is the share of calls that got an image, None without calls or where a control
    refuses them. `box_recall` is the share of the regions one must look at that were shown, None
    where nobody knows them or nothing was shown. `empty_thoughts` is the share of the replies to
    what was shown that say nothing but an answer or the next call, None without such replies.
    Where questions share images or clips there is `clusters`, how many groups of them there are.
    Under "random-stop" there is `rate`, at which it stopped by chance, where that was matched.
    """
    share = share_right(outcomes)
    calls = 0 if condition.control == "no-look" else sum(o.calls for o in outcomes)
    looks = sum(o.looks for o in outcomes)
    wanted = sum(o.wanted for o in outcomes) if looks else 0
    costs = {key: _mean([getattr(o.cost, key) for o in outcomes]) for key in COSTS}
    return {
        "task": task,
        "strategy": condition.name,
        "control": condition.control,
        "n": len(outcomes),
        "accuracy": share.value,
        "low": share.low,
        "high": share.high,
        "visual_tokens": costs.pop("visual_tokens"),
        "looks": _mean([o.looks for o in outcomes]),
        "valid_boxes": _share(sum(o.valid_calls for o in outcomes), calls),
        "box_recall": _share(sum(o.found for o in outcomes), wanted),
        "empty_thoughts": _share(sum(o.empty for o in outcomes), sum(o.replies for o in outcomes)),
        **costs,
        "failures": sum(o.failed for o in outcomes),
        **_rate(condition),
        **_clusters(groups_of(outcomes)),
    }


def label_of(row: Row) -> str:
    """The row's strategy, with the control in brackets, as `Condition.label`."""
    return f"{row['strategy']} ({row['control']})" if row["control"] else row["strategy"]


def share_right(outcomes: Sequence[Outcome]) -> Interval:
    """The share of right answers; where questions share images or clips, Wilson's interval is that
    of fewer questions, by the design effect."""
    right, n = [o.correct for o in outcomes], len(outcomes)
    effect = design_effect(right, groups_of(outcomes))
    return wilson(sum(right) / effect, n / effect)


def groups_of(outcomes: Sequence[Graded]) -> list[str]:
    """What each question is about; itself where it is about nothing."""
    return [o.about or f"id {o.id}" for o in outcomes]


def _clusters(groups: Sequence[str]) -> Row:
    count = len(set(groups))
    return {"clusters": count} if count < len(groups) else {}


def _rate(condition: Condition) -> Row:
    rate = condition.matched.get(condition.control)
    return {"rate": rate} if condition.control == "random-stop" and rate is not None else {}


def pairs_of(task: str, results: Results) -> list[Row]:
    """Accuracy of `a` minus that of `b` on the items both answered, with its interval.

    Where questions share images or clips there is `clusters` too, and the interval is wider by the
    design effect. Later strategies are compared to earlier ones, and each control to the first
    strategy and to its own.
    """
    found = []
    for b, a in combinations(results, 2):
        if _compared(a, b, first=next(iter(results))):
            found.append(pair_of(task, (a.label, results[a]), (b.label, results[b])))
    return found


def pair_of(task: str, a: tuple[str, Sequence[Graded]], b: tuple[str, Sequence[Graded]]) -> Row:
    """The pair of `a` and `b`, each a label and its answers, as `pairs_of` has it."""
    right_b = {o.id: o.correct for o in b[1]}
    shared = [o for o in a[1] if o.id in right_b]
    both, groups = [(o.correct, right_b[o.id]) for o in shared], groups_of(shared)
    effect = design_effect([x - y for x, y in both], groups)
    plain = paired_difference([x for x, _ in both], [y for _, y in both])
    interval = widened(plain, effect)
    return {
        "task": task,
        "a": a[0],
        "b": b[0],
        "n": len(both),
        "difference": interval.value,
        "low": interval.low,
        "high": interval.high,
        **_clusters(groups),
    }


def envelope(rows: Iterable[Row], pairs: Iterable[Row], **about: object) -> dict[str, Any]:
    """What `--out` writes: `about` is the command, seed, model, device, dtype, or more."""
    return {
        **about,
        "measured_at": commit(),
        "versions": versions(),
        "rows": list(rows),
        "pairs": list(pairs),
    }


def command_line() -> str:
    """The command that started this process, with `python -m` where it is a module."""
    module = sys.modules["__main__"].__spec__
    ran = ["-m", module.name] if module else sys.argv[:1]
    return shlex.join(["python", *ran, *sys.argv[1:]])


def commit() -> str | None:
    """The commit of this checkout, with `+` where files differ from it; None outside of one."""
    try:
        if not os.path.samefile(_git("rev-parse", "--show-toplevel"), CHECKOUT):
            return None
        return _git("rev-parse", "--short", "HEAD") + (
            "+" if _git("diff", "HEAD", "--stat") else ""
        )
    except (OSError, ValueError, subprocess.CalledProcessError):  # no git, or an installed package
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(CHECKOUT), *arguments]
    done = subprocess.run(command, capture_output=True, check=True)
    return done.stdout.decode("utf-8", "replace").strip()


def versions() -> dict[str, str]:
    """Of this package and those that decide what a model answers, where installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _compared(a: Condition, b: Condition, first: Condition) -> bool:
    if b.control:
        return False
    return not a.control or a.name == b.name or (b == first and a.control != "blind")


def _share(count: int, of: int) -> float | None:
    return count / of if of else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
