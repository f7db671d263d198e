"""Whether two answers have the same value: as dates, amounts, words or mathematics."""

from __future__ import annotations

import re

from .dates import moment
from .mathematics import is_mathematics, same_mathematics
from .quantities import quantity
from .sentences import CHANGING, stated
from .text import words_of

YES_NO = {("yes",), ("no",)}
_DENYING = frozenset(("not", "neither", "nor", "never"))
_SUBJECT = re.compile(
    r"(?:(?:so|thus|therefore|hence|then|yes|ok|okay)\b[\s,]*)?"
    r"(?:(?:it's|they're|that's)|(?P<subject>(?:[\w'\u2019-]+\s+){0,8}?[\w'\u2019-]+)\s+"
    r"(?:is|are|was|were|equals|says|reads))[\s:]+(?P<said>.+)",
    re.IGNORECASE | re.DOTALL,
)
_ASSIGNED = re.compile(r"\s*\$?\s*[A-Za-z]\w?\s*=\s*([^=<>]+)")


def both_values(a: str, b: str) -> bool:
    """Whether both are amounts or dates, so that nothing besides their values counts."""
    amounts = quantity(a) is not None and quantity(b) is not None
    return amounts or (moment(a) is not None and moment(b) is not None)


def same_value(a: str, b: str, tolerance: float = 0.0) -> bool:
    """The same date, amount, words or mathematics, each side as a whole."""
    date_a, date_b = moment(a), moment(b)
    if date_a is not None and date_b is not None:
        return date_a == date_b
    amount_a, amount_b = quantity(a), quantity(b)
    if amount_a is not None and amount_b is not None:
        return amount_a.close_to(amount_b, tolerance)
    words_a, words_b = words_of(a), words_of(b)
    if words_a and words_a == words_b:
        return True
    if date_a is not None or date_b is not None:
        return False
    formulas = is_mathematics(a), is_mathematics(b)
    readable = all(
        formula or amount is not None
        for formula, amount in zip(formulas, (amount_a, amount_b), strict=True)
    )
    return any(formulas) and readable and same_mathematics(a, b) is True


def same_predicate(a: str, b: str, tolerance: float = 0.0) -> bool:
    """One is what the other says of something: "red", "It is red."; "-5", "x = -5"."""
    if _ASSIGNED.fullmatch(a) and _ASSIGNED.fullmatch(b):
        return False
    said_a, said_b = _predicate(a), _predicate(b)
    return any(
        said is not None and same_value(said, other, tolerance)
        for said, other in ((said_a, b), (said_b, a))
    )


def _predicate(text: str) -> str | None:
    """What comes after "it is" or "the object is" at the start; None where nothing says so."""
    if len(text) > 500:
        return None
    if assigned := _ASSIGNED.fullmatch(text):
        return assigned[1].strip(" $.")
    found = _SUBJECT.fullmatch(text.strip().rstrip("."))
    subject = (found["subject"] or "").casefold().replace("\u2019", "'") if found else ""
    if found is None or "n't" in subject or CHANGING & {*subject.split()}:
        return None
    return found["said"].strip()


def same_stated(a: str, b: str, tolerance: float = 0.0) -> bool:
    """One is a bare amount, and the other a sentence that states it."""
    amount_a, amount_b = quantity(a), quantity(b)
    if (amount_a is None) == (amount_b is None):
        return False
    said_a, said_b = amount_a or stated(a), amount_b or stated(b)
    return said_a is not None and said_b is not None and said_a.close_to(said_b, tolerance)


def same_yes_no(a: str, b: str) -> bool:
    """Whether both say yes or both say no; False unless one of them is such a word."""
    if words_of(a) not in YES_NO and words_of(b) not in YES_NO:
        return False
    said = _yes_no(a)
    return said is not None and said == _yes_no(b)


def _yes_no(text: str) -> str | None:
    """The first word if it is one of the two, else the only one of the two in `text`."""
    words = words_of(text)
    both = {*words} & {"yes", "no"}
    if words and words[0] in both:
        last = words[-1]
        taken_back = {*words[1:2]} & {"or", "and", "/"} or last in both
        return None if taken_back and last != words[0] else words[0]
    if _DENYING & {*words}:
        return None
    return both.pop() if len(both) == 1 else None
