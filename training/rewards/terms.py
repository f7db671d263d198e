"""The terms of rewards, each of which scores one attempt at a row, and the sum that weighs them.

A sum is picked by the row's source. Right and wrong are judged as in tables of results.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from mm.answers.matching import judge, parse_number
from mm.errors import UserError, quote
from mm.geometry import iou
from mm.markup import render_parts
from mm.origins import Cropped
from mm.trace import Branch
from mm.types import Features, Visual
from training.data import Row
from vision.regions import regions_of


@dataclass(frozen=True)
class Attempt:
    """One answer, the row it answers, and whether the token limit ended it."""

    branch: Branch
    row: Row
    cut_off: bool = False

    @property
    def written(self) -> str:
        """All that the policy wrote, thoughts and calls included, observations left out."""
        sampled = [step.message for step in self.branch.steps if step.sampled]
        return "".join(render_parts([p for p in m.parts if _is_text(p)]) for m in sampled)


Term = Callable[[Attempt], float | None]
"""A number for an attempt; None where it does not apply, as TRL has it."""


@dataclass(frozen=True)
class WeightedTerm:
    """A term of a sum.

    Attributes:
        gate: the name of an earlier term; where that is below 1, or does not apply, this is 0.
        part: the gate is open from any number above 0 on.
    """

    name: str
    term: Term
    weight: float = 1.0
    gate: str | None = None
    part: bool = False


Mix = Sequence[WeightedTerm]


@dataclass(frozen=True)
class TermResult:
    """What a term of a mix says: None where it does not apply, 0 where its gate was `shut`."""

    of: WeightedTerm
    value: float | None
    shut: bool = False


def results_of(mix: Mix, attempt: Attempt) -> list[TermResult]:
    """What each term of `mix` says of `attempt`.

    Raises:
        UserError: a term is something else than a finite number.
        ValueError: a gate names no earlier term.
    """
    found: dict[str, TermResult] = {}
    for each in mix:
        if each.gate is not None and each.gate not in found:
            raise ValueError(f"{each.name}: the gate {each.gate!r} names no earlier term")
        shut = each.gate is not None and not _opens(found[each.gate].value, each.part)
        value = 0.0 if shut else _number(each.name, each.term(attempt))
        found[each.name] = TermResult(each, value, shut)
    return list(found.values())


def contributions(results: Sequence[TermResult]) -> dict[str, float]:
    """What terms add, by name, without those that do not apply; their sum is the reward."""
    return {e.of.name: e.of.weight * e.value for e in results if e.value is not None}


def why_zero(results: Sequence[TermResult]) -> dict[str, float]:
    """Of each term behind a gate, whether that was shut, and whether it was open and the term 0."""
    gated = [each for each in results if each.of.gate is not None]
    shut = {f"{each.of.name}_shut": float(each.shut) for each in gated}
    zero = {f"{e.of.name}_zero": float(not e.shut and e.value == 0) for e in gated}
    return shut | zero


def _opens(value: float | None, part: bool) -> bool:
    if value is None:
        return False
    return value > 0 if part else value >= 1


def _number(name: str, said: object) -> float | None:
    """What a term says, of numpy or torch too, as a number that a log can hold."""
    if said is None:
        return None
    with suppress(TypeError, ValueError, RuntimeError):
        value = math.nan if isinstance(said, str | bytes) else float(cast(Any, said))
        if math.isfinite(value):
            return value
    raise UserError(
        f"reward {name!r} must be a finite number, got {quote(said)}: return one, or None where "
        "it does not apply"
    )


def route(mixes: Mapping[str, Mix], attempt: Attempt) -> list[TermResult]:
    """What the mix of the row's source says; "" names the mix of all other sources.

    Raises:
        ValueError: there is no mix for the source.
    """
    mix = mixes.get(attempt.row.source, mixes.get(""))
    if mix is None:
        raise ValueError(f"no rewards for rows from {attempt.row.source!r}: give some, or for ''")
    return results_of(mix, attempt)


def accuracy(attempt: Attempt) -> float:
    """1 where the answer is right, by the judge of `mm eval`."""
    row = attempt.row
    if row.answer is None:
        return 0.0
    return float(judge(attempt.branch.text, row.answer, choices=row.choices) is True)


def tolerance(attempt: Attempt, *, full: float = 0.05, none: float = 0.2) -> float:
    """1 for a number within `full` of the right one, as a share of it, falling to 0 at `none`.

    Reason-RFT (2503.20752); where the right number is 0, only 0 is right, which its code scores 0.
    """
    said = parse_number(attempt.branch.answer or "")
    right = parse_number(attempt.row.answer or "")
    if said is None or right is None:
        return 0.0
    away = abs(said - right)
    low, high = full * abs(right), none * abs(right)
    if away <= low:
        return 1.0
    if away >= high:
        return 0.0
    return 0.5 * (math.cos(math.pi * (away - low) / (high - low)) + 1)


_ONE_THOUGHT_ONE_ANSWER = re.compile(
    r"<think>(?:(?!</think>\s*<answer>).)*</think>\s*<answer>(?:(?!</?answer>).)*</answer>\s*",
    re.DOTALL,
)
_RELEASED_FORMAT = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>\s*", re.DOTALL)
_ANSWERED = re.compile(r".*<answer>.*?</answer>\s*", re.DOTALL)


def thought_and_answer(attempt: Attempt, *, released: bool = False) -> float:
    """1 where a thought, then one answer, is all that was written (Reason-RFT, VideoRFT).

    The thought may be interrupted by looks. Released: whatever begins with a thought and ends with
    an answer, so that both twice are 1 too.
    """
    pattern = _RELEASED_FORMAT if released else _ONE_THOUGHT_ONE_ANSWER
    return float(pattern.fullmatch(attempt.written) is not None)


def ends_with_answer(attempt: Attempt) -> float:
    """1 where what was written ends with an answer (VLM-R3)."""
    return float(_ANSWERED.fullmatch(attempt.written) is not None)


def looked(attempt: Attempt) -> float:
    """1 where at least one region was shown: VLM-R3's region term, whose weight is 0.5."""
    looks = attempt.branch.looks
    return float(any(isinstance(s, Features) or isinstance(s.origin, Cropped) for s in looks))


def box_iou(attempt: Attempt) -> float:
    """The mean, over the regions to look at, of the best IoU with a region that was shown.

    Both are of the first image; a look at another one is none.
    """
    shown = [region for index, region in regions_of(attempt.branch) if index == 0]
    if not attempt.row.regions:
        return 0.0
    best = [
        max((iou(wanted, region) for region in shown), default=0.0)
        for wanted in attempt.row.regions
    ]
    return sum(best) / len(best)


def length(attempt: Attempt, *, per_character: float = 0.001, most: float = 0.25) -> float:
    """VLM-R3's length term (paper): `per_character` for each character, up to `most`."""
    return min(most, per_character * len(attempt.written))


_BOX = re.compile(r"\{[^{}]*\"bbox_2d\"[^{}]*\}")
_NAMES_A_BOX = re.compile(r"\{[^{}]*bbox[^{}]*\}?")
_TAG = re.compile(r"<[^<>]*>")


def readable_boxes(attempt: Attempt) -> float:
    """1 where boxes were written and all can be read: VLM-R3's region term (code)."""
    written = _NAMES_A_BOX.findall(attempt.written)
    return float(bool(written) and all(map(_is_box, written)))


def text_around_looks(attempt: Attempt) -> float:
    """VLM-R3's length term (code): 0.01 a character of the shortest text around boxes, to 0.1.

    The texts stand before, between and after the boxes, up to the answer; empty ones between boxes
    do not count.
    """
    before = attempt.written.split("<answer>")[0]
    pieces = [" ".join(_TAG.sub("", piece).split()) for piece in _BOX.split(before)]
    first, *inner = pieces
    last = [inner.pop()] if inner else []
    return min(0.1, 0.01 * min(len(p) for p in (first, *filter(None, inner), *last)))


def _is_box(text: str) -> bool:
    try:
        return "bbox_2d" in json.loads(text)
    except (ValueError, RecursionError):
        return False


def tail_loop(attempt: Attempt, *, repeats: int = 2, span: int = 400) -> float:
    """-1 where an attempt cut off by the token limit ends in a phrase repeated `repeats` times."""
    if not attempt.cut_off:
        return 0.0
    words = attempt.written.split()[-span:]
    for size in range(1, len(words) // repeats + 1):
        phrase = words[-size:]
        if all(words[-size * (n + 1) : -size * n or None] == phrase for n in range(repeats)):
            return -1.0
    return 0.0


TERMS: Mapping[str, Term] = {
    "accuracy": accuracy,
    "tolerance": tolerance,
    "thought_and_answer": thought_and_answer,
    "ends_with_answer": ends_with_answer,
    "looked": looked,
    "readable_boxes": readable_boxes,
    "box_iou": box_iou,
    "length": length,
    "text_around_looks": text_around_looks,
    "tail_loop": tail_loop,
}

R_GRPO: Mix = (
    WeightedTerm("accuracy", accuracy),
    WeightedTerm("format", ends_with_answer),
    WeightedTerm("length", length),
    WeightedTerm("region", looked, weight=0.5, gate="accuracy"),
)
"""VLM-R3's rewards as summed in its paper: looking pays only where the answer is right."""

R_GRPO_CODE: Mix = (
    WeightedTerm("accuracy", accuracy),
    WeightedTerm("format", ends_with_answer, weight=0.5),
    WeightedTerm("length", text_around_looks),
    WeightedTerm("region", readable_boxes, weight=0.5, gate="accuracy"),
)
"""The same as summed in its released code."""


def _is_text(part: object) -> bool:
    return not isinstance(part, Visual)
