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
_FIT = frozenset(("fit", "match", "work", "apply"))
_SEEM = frozenset(("be", "look", "seem"))
_RIGHT = _FIT | {"right", "correct", "best", "it", "answer"}
_CONCLUDES = frozenset(("so", "thus", "therefore", "hence", "leaving", "answer"))

_OPENING = (  # after a comma: a new clause; what goes on with a list or with the old clause is none
    r"(?:(?:so|but|it|it['\u2019]s|its|therefore|thus|hence|then|instead|making|leaving|meaning|i"
    r"|i['\u2019][dm]|we|they|this|these|yes|no|the\s+(?:answer|correct|right|best)|\w{1,6}n['\u2019]t)\b"
    r"|(?:(?!(?:that|which|who|what|where|or|nor|in|at|of|like|as|if)\b)[\w'\u2019-]{1,20}\s+){1,4}?"
    r"(?:does|do|did|is|are|was|were|fits?|match(?:es)?|has|have|seems?|looks?)\b)"
)
_END = re.compile(
    rf"[;!?.](?=\s+\S)|,(?=\s+{_OPENING})"
    r"|(?=\s(?:so|therefore|thus|hence)\s+(?:it|it['\u2019]s|this|yes|no|the\s+answer)\b)"
    r"|(?=\sbut\s)",
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


def passed_over(words: Sequence[str], numbers: Sequence[int], end: int) -> bool:
    """Whether a name up to `end` fails, and a conclusion follows: "A cat doesn't bark, so ..."

    If that names another; alone, "The penguin doesn't fly" may well be what was asked for.
    """
    here, behind = numbers[end - 1], range(end, len(words))
    said = _failed([words[i] for i in behind if numbers[i] == here])
    fails = said is not None and not _WRONG & {*said[:2]}  # "isn't wrong" does not
    later = [i for i in behind if numbers[i] > here]
    openings = {words[i] for i in later if numbers[max(i - 2, 0)] != numbers[i]}  # two words each
    return fails and bool(_CONCLUDES & openings)


def _failed(after: Sequence[str]) -> Sequence[str] | None:
    """What is negated at the start, but for an adverb: "doesn't really fit"; None if nothing is."""
    first = after[0] if after else ""
    shortened = first in _FAILS or first.endswith("n't")
    if not shortened and (first not in _MAY | _DO or after[1:2] != ["not"]):
        return None
    said = after[1:] if shortened else after[2:]
    adverb = bool(said) and said[0] not in _FIT and re.fullmatch(r"\w+ly|quite", said[0])
    return said[1:] if adverb else said


def _turned_down(after: Sequence[str]) -> bool:
    """Whether these words, behind a name, deny it: "doesn't fit", "would be wrong"."""
    first, rest = after[0] if after else "", after[1:3]
    if (said := _failed(after)) is not None:
        linked = bool(_SEEM & {*said[:1]})
        fitting = _RIGHT if linked or first.removesuffix("n't") in _BE else _FIT
        return bool(fitting & {*said[linked : linked + 1]})
    if first in _MAY and rest[:1] == ["be"]:
        return bool(_WRONG & {*after[2:4]})
    return first in _BE and bool((_WRONG | _NEGATIONS) & {*rest})


def _broken(found: re.Match[str]) -> str:
    stop = found[0] == "."
    before = found.string[max(found.start() - 2, 0) : found.start()]
    if stop and (not re.fullmatch(r"\w\w", before) or is_shortened(found.string, found.start())):
        return found[0]
    return f"{found[0]} {_BREAK}"
