"""The one amount that a sentence states, and the words that leave a number what it is or change it.

Known are words of English, German, French, Spanish, Portuguese, Italian, Russian and Chinese.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from .latex import simplified
from .numbers import Number, Piece, pieces_of
from .quantities import Quantity, is_decade, is_part_of_a_byte, with_scales
from .text import HARMLESS
from .units import CURRENCIES, Readings, unit

_CHANGING = """
    not no never none without except minus negative plus less fewer more than over under above
    below least most between almost nearly half third quarter twice double triple dozen hundred
    thousand million billion or nor neither either if to through versus vs times per up beyond
    exceeds exceeding unlike instead rather wrong incorrect unsure maybe perhaps possibly maximum
    minimum doubt isn aren wasn weren doesn don didn can cannot bc bce
    nicht kein keine keinen weniger mehr als mindestens höchstens unter über oder fast bis
    ne pas moins que aucun ou presque menos más ningún o casi mais não quase
    meno più non almeno quasi sotto sopra не нет более менее больше меньше или почти минус
"""
CHANGING = frozenset(_CHANGING.split())
"""Words beside a number that change what it says; with one of them it is another answer."""

_LEADING = """
    a an the there is are was were be it its s that they re this these those total of sum count
    counted counting i m we you he she could see sees seen found find get gets got have has had
    exactly only just about approximately approx around roughly circa so therefore thus hence
    answer value number result equals equal which shows show in all altogether contains contain
    displays display reads read says say my final them would image picture photo scene
    es sind ist gibt ich zähle sehe insgesamt genau il y en je vois compte au exactement
    hay son veo cuento exactamente há são vejo ci sono vedo есть здесь вижу всего
"""
_LEADS = frozenset(_LEADING.split())
"""Words that may stand before a number and leave it what it is."""

_VERBS = "is are was were equals be reads says shows contains : ="
_STATING = frozenset(_VERBS.split())
_BETWEEN = "exactly only just about approximately around roughly a the"
_ADVERBS = frozenset(_BETWEEN.split())

_MEASURING = """
    long wide tall high deep thick apart across away ago later left each in of and or from
    length width height depth thickness diameter radius
"""
_MEASURED = frozenset(_MEASURING.split())
_AMBIGUOUS = frozenset(("in", "a", "h"))
"""Units that are words, too, and a unit only at the end or where a measure goes on."""

_PLACES = "in on at here altogether overall shown visible present together total"
_WHERE = frozenset(_PLACES.split())
"""What follows a number that counts and does not name what: "3 in total"."""

_BEFORE_CHRIST = re.compile(r"\d\s*B\.\s?C\.")
_HAN = re.compile(r"[\u3400-\u9fff]")
_HAN_LEADS = re.compile("(?:图中|图片中|画面中|这里)?(?:一共|总共|共)?(?:有|是)?")
_HAN_CHANGES = re.compile("[不没无多少超或半负最至到几]|以上|以下|以内|左右")


@lru_cache(maxsize=4096)
def stated(text: str) -> Quantity | None:
    """The one amount that a sentence states: "There are 3 cubes.", "Its length is 5 cm.".

    None where it names several numbers, where a word changes the one ("at least 3"), where what
    stands before it does not state it ("Route 66"), where a symbol is left over ("< 3"), and where
    it is written in letters whose words are not known here.
    """
    text = with_scales(simplified(text))
    pieces = pieces_of(text)
    places = [i for i, piece in enumerate(pieces) if isinstance(piece.item, Number)]
    if len(places) != 1:
        return None
    number = pieces[places[0]].item
    before, after = _words(pieces[: places[0]]), _words(pieces[places[0] + 1 :])
    measured = unit(before.pop()) if before and before[-1] in CURRENCIES else None
    if measured is None:
        measured, length = _unit_at_start(after)
        if length == 1 and isinstance(number, Number) and is_part_of_a_byte(number, after[0]):
            return None
        after = after[length:]
    if not isinstance(number, Number) or _BEFORE_CHRIST.search(text):
        return None
    if any(map(_changes, (*before, *after))):
        return None
    if not any(w[:1].isalpha() for w in (*before, *after)) and "!" in after:
        return None  # a factorial
    if not _leads(before) or not all(w in HARMLESS or _is_known(w) for w in after):
        return None
    return Quantity(
        number, measured, counts=bool(after) and after[0][:1].isalpha(), decade=is_decade(text)
    )


def same_count(phrase: str, sentence: str) -> bool:
    """Whether "3 dogs" is what a sentence counts that names nothing: "There are 3 in total."."""
    one, two = stated(phrase), stated(sentence)
    if one is None or two is None or one.unit or two.unit or one.number.percent:
        return False
    return _names(phrase) is True and _names(sentence) is False and one.close_to(two)


def _names(text: str) -> bool | None:
    """Whether a stated number stands at the start before what it counts; None for other sentences.

    False where nothing but "there are" or "I see" stands before it, and no name behind it.
    """
    pieces = pieces_of(simplified(text))
    at = next(i for i, piece in enumerate(pieces) if isinstance(piece.item, Number))
    sides = pieces[:at], pieces[at + 1 :]
    before, after = ([w for w in _words(side) if w not in HARMLESS] for side in sides)
    if not after or after[0] in _WHERE:
        return False if all(w in _LEADS and w != "number" for w in before) else None
    return None if before else after[0][:1].isalpha()


def _words(pieces: Sequence[Piece]) -> list[str]:
    return [piece.item for piece in pieces if isinstance(piece.item, str)]


def _changes(word: str) -> bool:
    return word in CHANGING or _HAN_CHANGES.search(word) is not None


def _leads(before: Sequence[str]) -> bool:
    """Whether a number after these words is what they state."""
    words = [w for w in before if w not in HARMLESS - {":"}]
    if not all(_is_known(w) or w in "≈~:=" for w in words):
        return False
    if all(w in _LEADS or w in "≈~:=" or _HAN_LEADS.fullmatch(w) for w in words):
        return True
    last = [w for w in words if w not in _ADVERBS]  # "The number of cubes is"
    return bool(last) and last[-1] in _STATING


def _is_known(word: str) -> bool:
    """Whether these are letters of Latin, Greek, Cyrillic or Chinese writing."""
    return word[:1].isalpha() and all(char < "\u0530" or _HAN.match(char) for char in word)


def _unit_at_start(words: Sequence[str]) -> tuple[Readings | None, int]:
    """The unit that `words` begin with, and how many of them it takes."""
    following = words[1] if len(words) > 1 else ""
    if following.isalpha() and words[0] in _AMBIGUOUS and following not in _MEASURED:
        return None, 0
    for length in range(min(len(words), 9), 0, -1):
        if found := unit(" ".join(words[:length])):
            return found, length
    return None, 0
