"""Collects sampled traces of a strategy, each graded, in a folder that goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mm.errors import door
from mm.parallel import in_order
from mm.samples import instructed
from mm.session import Strategy, path_seed, run
from mm.strategies.single import insist
from mm.trace import Trace
from mm.trace_store import FILE, append_trace
from mm.types import Sampling
from mm.vlm import VLM, Cancelled
from video.search import over_clips

from .grade import grade
from .resume import PLACE, differing
from .tasks import BadTarget, Item, Suite, digest_of

FACTS = "collected.json"
"""The file, beside the traces, that says what they were sampled from."""

RIGHT = "right"
"""The score of a trace's chosen step: 1 where its answer is right, else 0."""

JUDGE = 5
"""The version of `mm.answers.judge`: labels of different ones do not mix."""


@dataclass(frozen=True)
class Draw:
    """One sample of an item, by its number from 0."""

    item: Item
    number: int

    @property
    def key(self) -> str:
        """What tells it from the others in its folder."""
        return f"{self.item.sample.id} {self.number}"


@dataclass(frozen=True)
class Collected:
    """How many traces were written, how many of them are right, and how many answers failed."""

    traces: int
    right: int
    failed: int


def open_folder(folder: Path, facts: Mapping[str, Any]) -> dict[str, str]:
    """The draws that `folder` holds already, and what tells their questions from others; it is made
    where there is none.

    Raises:
        BadTarget: it holds traces of something else, or is spoilt.
    """
    facts = json.loads(json.dumps({**facts, "judge": JUDGE}))
    known = folder / FACTS
    if known.is_file():
        with door(f"{str(known)!r} is spoilt", BadTarget, "remove it to go on"):
            before = dict(json.loads(known.read_text(encoding="utf-8")).items())
            other = differing(before, facts, (*PLACE, "dtype"))
        if other:
            raise BadTarget(
                f"{str(folder)!r} holds traces that differ in {', '.join(other)}: "
                "give another --out"
            )
    elif (folder / FILE).exists():
        raise BadTarget(f"{str(folder)!r} holds traces of `mm ask`: give another --out")
    with door(f"--out {str(folder)!r} cannot be made", BadTarget):
        folder.mkdir(parents=True, exist_ok=True)
    known.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return dict(_drawn(folder / FILE))


def _drawn(file: Path) -> Iterator[tuple[str, str]]:
    if not file.exists():
        return
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.endswith(b"\n"):  # else its writer was stopped, and it is sampled again
                where = f"{str(file)!r}, line {number}, is spoilt"
                with door(where, BadTarget, "remove that line, and it is sampled again"):
                    settings = json.loads(line)["settings"]
                    drawn = str(settings.get("draw")), str(settings.get("asked", ""))
                yield drawn


def collect(
    suites: Iterable[Suite],
    strategy: Strategy,
    vlm: VLM,
    folder: Path,
    *,
    samples: int,
    done: Mapping[str, str],
    sampling: Sampling,
    system: str | None = None,
    threads: int = 8,
    tell: Callable[[Collected], None] = lambda _: None,
) -> Collected:
    """Sample each item `samples` times, but for those `done`, and add the traces to `folder`.

    A trace whose model failed is not written, and is tried again by the next run.

    Raises:
        BadTarget: one that is done was asked something else.
        BadTrace: a trace cannot be written.
    """
    so_far = Collected(0, 0, 0)
    answer = partial(_answer, strategy, vlm, sampling, system)
    items = (item for suite in suites for item in suite.items())
    draws = (Draw(item, number) for item in items for number in range(samples))
    left = (draw for draw in draws if not _is_done(draw, done, folder))
    with closing(in_order(answer, left, threads)) as answers:
        for trace, right in answers:
            if trace.error is None:
                append_trace(trace, folder)
            so_far = Collected(
                so_far.traces + (trace.error is None),
                so_far.right + right,
                so_far.failed + (trace.error is not None),
            )
            tell(so_far)
    return so_far


def _is_done(draw: Draw, done: Mapping[str, str], folder: Path) -> bool:
    asked = done.get(draw.key)
    if asked not in (None, "", digest_of(draw.item.sample)):
        raise BadTarget(
            f"{str(folder)!r} holds traces of another question under the id "
            f"{draw.item.sample.id!r}: give another --out"
        )
    return asked is not None


def _answer(
    strategy: Strategy,
    vlm: VLM,
    sampling: Sampling,
    system: str | None,
    draw: Draw,
    cancelled: Cancelled,
) -> tuple[Trace, bool]:
    # a fixed step between draws would give one's later replies the seeds of another
    seed = path_seed(sampling.seed, f"draw {draw.number}")
    item = replace(draw.item, sample=instructed(draw.item.sample, system))
    strategy = over_clips(strategy) if item.sample.clips else strategy
    strategy = insist(strategy) if item.sample.choices else strategy
    trace = run(strategy, item.sample, vlm, sampling=replace(sampling, seed=seed), cancel=cancelled)
    known = {"draw": draw.key, "asked": digest_of(draw.item.sample)}
    trace.settings = {**trace.settings, **known}
    right = trace.error is None and grade(trace.best, item, vlm) is True
    if trace.error is None and trace.chosen is not None:
        trace.score(trace.chosen, RIGHT, float(right))
    elif trace.error is None:
        trace.error = "the strategy chose no step"
    return trace, right
