"""Whether two answers have the same value: as dates, amounts, words or mathematics."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .dates import moment
from .denials import clauses, denied
from .mathematics import is_mathematics, same_mathematics
from .quantities import abbreviated, may_be_large, quantity
from .sentences import CHANGING, same_count, stated
from .text import with_ordinals, words_of

YES_NO = {("yes",), ("no",)}
NO_ANSWER = re.compile(
    r"\bno\s+(?:(?!without\b|no\b)[a-z]+\s+)?(?:way\s+(?:to|of)|information|info|indications?"
    r"|idea|doubt|clues?|telling|question(?!\s+mark))\b",
    re.IGNORECASE,
)
"""A "no" that denies nothing of what was asked: "no way to tell", "no doubt"."""

_DENYING = frozenset(("not", "neither", "nor", "never"))
_UNSURE = re.compile(
    r"\b(?:(?:not|\w+n't|cannot) (?:\w+ly |quite )?(?:sure|certain|know|able to tell"
    r"|clear (?:whether|if))|(?:cannot|can not|can't|couldn't) (?:\w+ly )?tell"
    r"|unsure|uncertain|unclear|maybe|perhaps)\b"
)
_ASKED = re.compile(r"\byes\s*(?:or|/)\s*no\b(?=\s*[:?])", re.IGNORECASE)
_AT_LAST = re.compile(
    r"[,;:.!?\n]\s*(?:(?:so|thus|therefore|hence)[,\s]+)?(?:(?:it|the\s+answer)\s+is\s+)?"
    r"[\"'*]*(?:yes|no)[\"'*.!\s]*\Z",
    re.IGNORECASE,
)
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
    if _same_abbreviated(a, b, tolerance):
        return True
    if amount_a is not None and amount_b is not None:
        return amount_a.close_to(amount_b, tolerance)
    words_a, words_b = words_of(with_ordinals(a)), words_of(with_ordinals(b))
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


def _same_abbreviated(a: str, b: str, tolerance: float) -> bool:
    """Whether one is "5M", and the other as large: a letter may be a unit beside a small number."""
    large_a, large_b = abbreviated(a), abbreviated(b)
    if large_a is None and large_b is None:
        return False
    one, two = large_a or quantity(a), large_b or quantity(b)
    if one is None or two is None or not all(map(may_be_large, (one, two))):
        return False
    return one.close_to(two, tolerance)


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
    """One is a bare amount, and the other a sentence that states it; "3 dogs" and "3 in total"."""
    amount_a, amount_b = quantity(a), quantity(b)
    if amount_a is None and amount_b is None:
        return not (moment(a) or moment(b)) and (same_count(a, b) or same_count(b, a))
    if amount_a is not None and amount_b is not None:
        return False
    said_a, said_b = amount_a or stated(a), amount_b or stated(b)
    return said_a is not None and said_b is not None and said_a.close_to(said_b, tolerance)


def same_yes_no(a: str, b: str) -> bool:
    """Whether both say yes or both say no; False unless one of them is such a word."""
    if words_of(a) not in YES_NO and words_of(b) not in YES_NO:
        return False
    said = _yes_no(a)
    return said is not None and said == _yes_no(b)


def is_unsure(words: Sequence[str]) -> bool:
    """Whether someone does not know: "I do not know, no", "not sure, yes"."""
    return _UNSURE.search(" ".join(words)) is not None


def _yes_no(text: str) -> str | None:
    """The first word if it is one of the two, else the only one of the two in `text`."""
    text = NO_ANSWER.sub(" ", _ASKED.sub(" ", text))
    words, clause = clauses(text)
    both = {*words} & {"yes", "no"}
    if words and words[0] in both:
        return None if denied(words, clause, 0, 1) or _is_taken_back(words) else words[0]
    if len(both) != 1 or is_unsure(words):
        return None
    if _AT_LAST.search(text):
        return both.pop()
    places = [at for at, word in enumerate(words) if word in both]
    if _DENYING & {*words} or all(denied(words, clause, at, at + 1) for at in places):
        return None
    return both.pop()


def _is_taken_back(words: Sequence[str]) -> bool:
    """Whether a yes or no at the start is not the last word: "yes or no", "yes, no"."""
    goes_on = words[1:2] in (["or"], ["and"], ["/"]) or words[-1] in ("yes", "no")
    return goes_on and words[-1] != words[0]
