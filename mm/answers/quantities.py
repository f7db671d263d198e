"""A number with its unit: "5 cm", "$5", "1.5 kg" and "1500 g", "minus 5 degrees"."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from .latex import simplified
from .numbers import Number, pieces_of
from .units import CURRENCIES, MONEY, Readings, unit

_HEDGE = re.compile(
    r"(?:about|approximately|approx\.?|around|roughly|exactly|only|just|circa)\s+|[\u2248~]\s*",
    re.IGNORECASE,
)
_CODE = re.compile(r"([-+]?\s*)(USD|EUR|GBP|JPY|CNY|RMB|INR|KRW)\s*(?=\d)", re.IGNORECASE)
_NUMBER = r"\d[\d,]*(?:\.\d+)?"
_LETTERS = {"k": "thousand", "m": "million", "b": "billion", "t": "trillion"}
_LETTERS |= {"mn": "million", "mil": "million"}
_SCALE = "|".join(sorted(_LETTERS, key=len, reverse=True))
_PRICED = re.compile(
    rf"(?P<before>(?:[$\u20ac\u00a3\u00a5\u20b9\u20a9]|\b(?:USD|EUR|GBP|JPY|CNY|RMB|INR|KRW))\s*-?"
    rf"{_NUMBER})\s*(?P<scale>{_SCALE})(?!\w)"
    rf"|(?P<number>(?<![\w.,]){_NUMBER})\s*(?P<large>{_SCALE})(?=\s*[\u20ac\u00a3\u00a5\u20b9$]"
    r"|\s+(?:USD|EUR|GBP|JPY|CNY|RMB|INR|KRW|dollars?|euros?|rupees|yen|yuan)\b)",
    re.IGNORECASE,
)
_ABBREVIATED = re.compile(rf"([-+]?{_NUMBER})\s*([kKMBT]|[Mm]n|[Mm]il)")
_DECADE = re.compile(r"(?<![\d.,])(?:(?:1[5-9]|20)\d0s|(?<=\bthe )[2-9]0s)\b", re.IGNORECASE)
_PAIR = re.compile(r"(\d+(?:\.\d+)?)\s*([^\W\d]+|['\"\u00b0])[\s,]*")


@dataclass(frozen=True)
class Quantity:
    """A number, and what it measures, by reading; None where it says no unit.

    Attributes:
        counts: it stands in a sentence before the name of what is counted.
        decade: it is written "1990s" or "the 80s", which is an amount only beside one with its
            unit.
    """

    number: Number
    unit: Readings | None = None
    counts: bool = False
    decade: bool = False

    def close_to(self, other: Quantity, tolerance: float = 0.0) -> bool:
        """Whether the two are the same amount, up to `tolerance` as a share of `other`.

        Units of one kind are converted, those of two kinds are never close, nor is a unit close to
        a name of what is counted; a number with neither takes the other's.
        """
        for one, two in ((self, other), (other, self)):
            if one.number.percent and not two.number.percent and (two.unit or two.counts):
                return False
        if self.unit is None or other.unit is None:
            if self.decade or other.decade:
                return False
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
    text = with_scales(_bare(_HEDGE.sub("", _bare(simplified(text)), count=1)))
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
    if is_part_of_a_byte(pieces[0].item, rest):
        return None
    return Quantity(pieces[0].item, after, decade=is_decade(text))


def abbreviated(text: str) -> Quantity | None:
    """The amount that "5M", "1.2B" or "10 K" is if its letter is a scale; None for all else."""
    if len(text) > 60:
        return None
    found = _ABBREVIATED.fullmatch(_bare(_HEDGE.sub("", _bare(simplified(text)), count=1)))
    return quantity(f"{found[1]} {_LETTERS[found[2].casefold()]}") if found else None


def may_be_large(amount: Quantity) -> bool:
    """Whether `amount` is one of money or has no unit, as what is written "5M" is."""
    return amount.unit is None or bool(amount.unit.keys() & MONEY)


def with_scales(text: str) -> str:
    """`text` with the scales of prices in words: "$5M" as "$5 million"."""
    return _PRICED.sub(_in_words, text)


def is_decade(text: str) -> bool:
    """Whether `text` has "the 80s" or "1990s", which may be years, or seconds."""
    return _DECADE.search(text) is not None


def is_part_of_a_byte(number: Number, name: str) -> bool:
    """Whether a number before "B" is none of bytes, so that "1.2 B" is a billion and more."""
    return name.casefold() == "b" and number.value % 1 != 0


def _in_words(found: re.Match[str]) -> str:
    number, letters = found["before"] or found["number"], found["scale"] or found["large"]
    return f"{number} {_LETTERS[letters.casefold()]}"


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
