"""What an answer denies of what it names: "not red", "red doesn't fit"; and where a clause ends."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .extraction import is_shortened
from .text import words_of

_DENYING = "not isn't aren't wasn't weren't neither nor never no minus negative without unlike than"
_NEGATIONS = frozenset((*_DENYING.split(), "except"))
_FAILING = "don't doesn't didn't can't cannot couldn't won't wouldn't"
_FAILS = frozenset(_FAILING.split())
_DOUBTS = _FAILS | {"doubt"}
_WRONGS = "wrong incorrect false excluded unlikely ruled eliminated"
_WRONG = frozenset(_WRONGS.split())
_BE = frozenset(("is", "are", "was", "were", "seems", "seem", "looks", "look"))
_MAY = frozenset(("can", "could", "would", "should", "must", "may"))
_DO = frozenset(("do", "does", "did", "will"))

_OPENING = (  # after a comma: a new clause; what goes on with a list or with the old clause is none
    r"(?:(?:so|but|it|it['\u2019]s|its|therefore|thus|hence|then|instead|making|leaving|meaning|i"
    r"|i['\u2019][dm]|we|they|this|these|yes|no|the\s+(?:answer|correct|right|best)|\w{1,6}n['\u2019]t)\b"
    r"|(?:(?!(?:that|which|who|what|where|or|nor|in|at|of|like|as|if)\b)[\w'\u2019-]{1,20}\s+){1,4}?"
    r"(?:does|do|did|is|are|was|were|fits?|match(?:es)?|has|have|seems?|looks?)\b)"
)
_END = re.compile(
    rf"[;!?.](?=\s+\S)|,(?=\s+{_OPENING})"
    r"|(?=\s(?:so|therefore|thus|hence)\s+(?:it|it['\u2019]s|this|yes|no|the\s+answer)\b)",
    re.IGNORECASE,
)
_BREAK = "\ue000"


def clauses(text: str) -> tuple[list[str], list[int]]:
    """The words of `text`, and for each the number of the clause in which it stands."""
    words: list[str] = []
    numbers: list[int] = []
    number = 0
    for word in words_of(_END.sub(_broken, text)):
        if word == _BREAK:
            number += 1
        else:
            words.append(word)
            numbers.append(number)
    return words, numbers


def denied(words: Sequence[str], numbers: Sequence[int], at: int, end: int) -> bool:
    """Whether the clause of the words from `at` to `end` denies them, before or behind."""
    near = range(max(at - 5, 0), at)
    before = [words[i] for i in near if numbers[i] == numbers[at]]
    behind = range(end, min(end + 4, len(words)))
    after = [words[i] for i in behind if numbers[i] == numbers[end - 1]]
    return bool(_NEGATIONS & {*before[-2:]} or _DOUBTS & {*before}) or _turned_down(after)


def _turned_down(after: Sequence[str]) -> bool:
    """Whether these words, behind a name, deny it: "doesn't fit", "would be wrong"."""
    first, rest = after[0] if after else "", after[1:3]
    if first in _FAILS or first.endswith("n't") or (first in _MAY | _DO and rest[:1] == ["not"]):
        return True
    if first in _MAY and rest[:1] == ["be"]:
        return bool(_WRONG & {*after[2:4]})
    return first in _BE and bool((_WRONG | _NEGATIONS) & {*rest})


def _broken(found: re.Match[str]) -> str:
    stop = found[0] == "."
    before = found.string[max(found.start() - 2, 0) : found.start()]
    if stop and (not re.fullmatch(r"\w\w", before) or is_shortened(found.string, found.start())):
        return found[0]
    return f"{found[0]} {_BREAK}"
