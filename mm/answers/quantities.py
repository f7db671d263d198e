"""A number with its unit: "5 cm", "$5", "1.5 kg" and "1500 g", "minus 5 degrees"."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from .latex import simplified
from .numbers import SILENT, Number, Piece, pieces_of
from .units import CURRENCIES, Readings, unit

_CHANGING = """
    not no never none without except minus negative plus less fewer more than over under above
    below least most between almost nearly half third quarter twice double triple dozen hundred
    thousand million billion or nor neither either if to through versus vs times per up beyond
    exceeds exceeding unlike instead rather wrong incorrect unsure maybe perhaps possibly maximum
    minimum doubt isn aren wasn weren doesn don didn can cannot
"""
CHANGING = frozenset(_CHANGING.split())
"""Words beside a number that change what it says; with one of them it is another answer."""

_LEADING = """
    a an the there is are was were be it its s that they re this these those total of sum count
    counted counting i m we you he she could see sees seen found find get gets got have has had
    exactly only just about approximately approx around roughly circa so therefore thus hence
    answer value number result equals equal which shows show in all altogether contains contain
    displays display reads read says say my final them would image picture photo scene
"""
LEADING = frozenset(_LEADING.split())
"""Words that may stand before a number and leave it what it is."""

_VERBS = "is are was were equals be reads says shows contains : ="
_STATING = frozenset(_VERBS.split())
_BETWEEN = "exactly only just about approximately around roughly a the"
_ADVERBS = frozenset(_BETWEEN.split())
_HEDGE = re.compile(
    r"(?:about|approximately|approx\.?|around|roughly|exactly|only|just|circa)\s+|[\u2248~]\s*",
    re.IGNORECASE,
)
_CODE = re.compile(r"([-+]?\s*)(USD|EUR|GBP|JPY|CNY|RMB|INR|KRW)\s*(?=\d)", re.IGNORECASE)
_PAIR = re.compile(r"(\d+(?:\.\d+)?)\s*([^\W\d]+|['\"\u00b0])[\s,]*")


@dataclass(frozen=True)
class Quantity:
    """A number, and what it measures, by reading; None where it says no unit.

    Attributes:
        counts: it stands in a sentence before the name of what is counted.
    """

    number: Number
    unit: Readings | None = None
    counts: bool = False

    def close_to(self, other: Quantity, tolerance: float = 0.0) -> bool:
        """Whether the two are the same amount, up to `tolerance` as a share of `other`.

        Units of one kind are converted, those of two kinds are never close, nor is a unit close to
        a name of what is counted; a number with neither takes the other's.
        """
        for one, two in ((self, other), (other, self)):
            if one.number.percent and not two.number.percent and (two.unit or two.counts):
                return False
        if self.unit is None or other.unit is None:
            named = (self.unit is not None and other.counts) or (
                other.unit is not None and self.counts
            )
            return not named and self.number.close_to(other.number, tolerance)
        kinds = self.unit.keys() & other.unit.keys()
        return any(self._in(kind).close_to(other._in(kind), tolerance) for kind in kinds)

    def _in(self, kind: str) -> Number:
        factor = self.unit[kind] if self.unit else 1.0
        return replace(self.number, value=self.number.value * factor)


@lru_cache(maxsize=4096)
def quantity(text: str) -> Quantity | None:
    """The amount that `text` is, and nothing but; None where it says more.

    Such as "5 cm", "12cm", "$5", "12 million", "5 ft 3 in", "about 3", "minus 5 degrees".
    """
    if len(text) > 200:
        return None
    text = _bare(_HEDGE.sub("", _bare(simplified(text)), count=1))
    text, before = _currency(text)
    if before is None and (summed := _sum(text)):
        return summed
    pieces = pieces_of(text)
    if not pieces or not isinstance(pieces[0].item, Number):
        return None
    rest = text[pieces[0].end :].strip()
    if not rest:
        return Quantity(pieces[0].item, before)
    after = unit(rest)
    if after is None or (before is not None and not before.keys() & after.keys()):
        return None
    return Quantity(pieces[0].item, after)


@lru_cache(maxsize=4096)
def stated(text: str) -> Quantity | None:
    """The one amount that a sentence states: "There are 3 cubes.", "Its length is 5 cm.".

    None where it names several numbers, where a word changes the one ("at least 3"), where what
    stands before it does not state it ("Route 66"), and where a symbol is left over ("< 3").
    """
    pieces = pieces_of(simplified(text))
    places = [i for i, piece in enumerate(pieces) if isinstance(piece.item, Number)]
    if len(places) != 1:
        return None
    number = pieces[places[0]].item
    before, after = _words(pieces[: places[0]]), _words(pieces[places[0] + 1 :])
    measured = unit(before.pop()) if before and before[-1] in CURRENCIES else None
    if measured is None:
        measured, length = _unit_at_start(after)
        after = after[length:]
    words = [w for w in before if w not in SILENT - {":"}]
    if CHANGING & {*before, *after} or not isinstance(number, Number):
        return None
    if not any(w[:1].isalpha() for w in (*before, *after)) and "!" in after:
        return None  # a factorial
    if not (all(w in LEADING or w in ":=" for w in words) or _states(words)):
        return None
    if not all(w[:1].isalpha() or w in SILENT for w in after) or not all(map(_readable, words)):
        return None
    return Quantity(number, measured, counts=bool(after) and after[0][:1].isalpha())


def _words(pieces: tuple[Piece, ...]) -> list[str]:
    return [piece.item for piece in pieces if isinstance(piece.item, str)]


def _readable(word: str) -> bool:
    return word[:1].isalpha() or word in "\u2248~" or word in _STATING


def _states(words: list[str]) -> bool:
    """Whether words before a number end in one that states it: "The number of cubes is"."""
    last = [w for w in words if w not in _ADVERBS]
    return bool(last) and last[-1] in _STATING


def _unit_at_start(words: list[str]) -> tuple[Readings | None, int]:
    """The unit that `words` begin with, and how many of them it takes."""
    for length in (4, 3, 2, 1):
        if length <= len(words) and (found := unit(" ".join(words[:length]))):
            return found, length
    return None, 0


def _bare(text: str) -> str:
    """`text` without marks that say nothing around all of it."""
    text = text.strip().strip("*_`\u201c\u201d ").rstrip(".,;:?").strip()
    if len(text) > 2 and text[0] == text[-1] == '"':
        text = text[1:-1].strip()
    if len(text) > 2 and text[0] + text[-1] in ("()", "[]", "{}") and "," not in text:
        text = text[1:-1].strip()
    return text


def _currency(text: str) -> tuple[str, Readings | None]:
    """`text` without the currency before its number, and that."""
    if code := _CODE.match(text):
        return code[1] + text[code.end() :], unit(code[2])
    sign = "-" if text[:1] in "-+" and text[:1] else ""
    rest = text.removeprefix("-").removeprefix("+").lstrip() if sign else text
    for mark in CURRENCIES:
        if rest.startswith(mark):
            negative = "-" if text.startswith("-") else ""
            return negative + rest.removeprefix(mark).strip(), unit(mark)
    return text, None


def _sum(text: str) -> Quantity | None:
    """The sum of "5 ft 3 in", "1 h 30 min"."""
    pairs = _PAIR.findall(text)
    if len(pairs) < 2 or _PAIR.sub("", text):
        return None
    units = [found for _, name in pairs if (found := unit(name))]
    if len(units) < len(pairs):
        return None
    kinds = set.intersection(*(set(each) for each in units))
    amounts = [float(amount) for amount, _ in pairs]
    sums = {k: sum(n * u[k] for n, u in zip(amounts, units, strict=True)) for k in kinds}
    return Quantity(Number(1.0), sums) if sums else None
