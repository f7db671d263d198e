"""Judges text: whether a reply's answer equals the right one, given as text.

Nothing else compares answers: tables, held-out accuracy and rewards all end here. What counts as
equal is a table, tests/mm/answers/pairs.jsonl, of which README.md beside this file shows a digest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from .choices import choice_error, match_choice
from .dates import moment
from .extraction import SHORT_WORDS, content_of, extract_answer, is_short, shown_reply
from .labels import LONGEST, is_letter, letter_of
from .mathematics import is_mathematics
from .numbers import numbers_in
from .quantities import quantity
from .text import words_of
from .values import YES_NO, both_values, same_predicate, same_stated, same_value, same_yes_no

Box = tuple[float, float, float, float]
Kind = Literal["choice", "box", "date", "number", "mathematics", "yes or no", "letter", "words"]

MIN_IOU = 0.5
"""From this intersection over union on, a box is right, in every table and every reward."""

_FLOAT = r"\s*(-?\d+(?:\.\d+)?)\s*"
_FOUR = rf"{_FLOAT},{_FLOAT},{_FLOAT},{_FLOAT}"
_BOX = re.compile(rf"\[{_FOUR}\]|\({_FOUR}\)")


def judge(reply: str, target: str, *, choices: Sequence[str] = ()) -> bool | None:
    """Whether `reply`, whole with its thinking, is right; None where it gives no answer.

    With `choices` one of which is right, a reply that names none of them or several gives none. A
    target of more than `SHORT_WORDS` words is compared with all that was said.
    """
    answer = extract_answer(reply)
    if answer is None and not is_short(target):
        answer = shown_reply(reply) or None
    if answer is None:
        return None
    if choices and match_choice(answer, choices) is None:
        return None
    return same_answer(answer, target, choices=choices)


def same_answer(
    a: str | None, b: str | None, *, choices: Sequence[str] = (), tolerance: float = 0.0
) -> bool:
    """Whether `a` and `b` answer the same; None answers nothing and equals nothing.

    Case, articles, spelling of numbers and the punctuation named in `text.HARMLESS` do not count;
    every other word and symbol does. Amounts, dates, boxes (an overlap of `MIN_IOU`) and
    mathematics are compared by value. A bare number, letter, yes or no equals a sentence that
    states it and no other. Either may be wrapped in `<answer>` or `\\boxed{}`.

    Args:
        choices: where `b` means one of these, `a` must mean the same one.
        tolerance: how far numbers may differ, as a share of `b`.
    """
    if a is None or b is None:
        return False
    a, b = content_of(a), content_of(b)
    if (right := match_choice(b, choices)) is not None:
        return match_choice(a, choices) == right
    return _same(a, b, tolerance)


def unjudgeable(target: str, *, choices: Sequence[str] = ()) -> str | None:
    """Why nobody can say by rules whether a reply means `target`; None where the judge can."""
    content = content_of(target)
    if not content:
        return "the answer is empty"
    if choices:
        return choice_error(content, choices)
    words = len(content.split())
    if is_short(content) or kind_of(content) != "words":
        return None
    return (
        f"the answer is {words} words of prose, which only the same words would match: "
        f"give a column 'answer' of at most {SHORT_WORDS} words"
    )


def kind_of(target: str, choices: Sequence[str] = ()) -> Kind:
    """By which rules a reply is compared with `target`."""
    target = content_of(target)
    if match_choice(target, choices) is not None:
        return "choice"
    if _is_box(target):
        return "box"
    if moment(target) is not None:
        return "date"
    if quantity(target) is not None:
        return "number"
    if is_mathematics(target):
        return "mathematics"
    words = words_of(target)
    if words in YES_NO:
        return "yes or no"
    return "letter" if is_letter(target) else "words"


def parse_box(answer: str) -> Box | None:
    """The box an answer gives as four numbers in brackets, as written; None for none or several."""
    found = {tuple(float(n) for n in numbers if n) for numbers in _BOX.findall(answer)}
    if len(found) != 1:
        return None
    x0, y0, x1, y1 = found.pop()
    return x0, y0, x1, y1


def parse_number(answer: str) -> float | None:
    """The only number in an answer, a percentage as a share of one; None for none or several."""
    if whole := quantity(answer):
        return whole.number.share
    if len(answer) > LONGEST:
        return None
    numbers = numbers_in(answer)
    return numbers[0].share if len(numbers) == 1 else None


def _same(a: str, b: str, tolerance: float) -> bool:
    if a.strip() == b.strip():
        return bool(a.strip())
    if _is_box(a) and _is_box(b) and (box_a := parse_box(a)) and (box_b := parse_box(b)):
        return _iou(box_a, box_b) >= MIN_IOU
    if same_value(a, b, tolerance):
        return True
    if both_values(a, b) or max(len(a), len(b)) > LONGEST:
        return False
    return (
        same_predicate(a, b, tolerance)
        or same_stated(a, b, tolerance)
        or same_yes_no(a, b)
        or _same_letter(a, b)
    )


def _same_letter(a: str, b: str) -> bool:
    if not (is_letter(a) or is_letter(b)):
        return False
    letter = letter_of(a)
    return letter is not None and letter == letter_of(b)


def _is_box(text: str) -> bool:
    """Whether `text` gives one box, in order and not negative, and no other number."""
    box = parse_box(text)
    if box is None or not (0 <= box[0] < box[2] and 0 <= box[1] < box[3]):
        return False
    around = _BOX.sub("", text)
    return not re.search(r"(?<![A-Za-z_])\d", around)


def _iou(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (a, b)]
    return width * height / (sum(areas) - width * height)
