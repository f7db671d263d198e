"""Numbers as people write them: "3", "1,234", "50%", "1/2", "twenty-one", "12 million", "-5"."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import lru_cache

from .latex import simplified
from .text import NUMBER_WORDS
from .units import unit

_LARGE = "twenty thirty forty fifty sixty seventy eighty ninety"

_TENS = {word: 10 * value for value, word in enumerate(_LARGE.split(), start=2)}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCALES |= {"bn": 10**9, "mio": 10**6}
_SCALES |= {"lakh": 10**5, "lakhs": 10**5, "crore": 10**7, "crores": 10**7}

NUMERAL = (  # thousands are parted by commas, or all of them by blanks or by apostrophes
    r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+(?![\d,]|\.\d{3}\b| \d)"
    r"|\d{1,3}(?:['\u2019]\d{3})+|\d+)?"
    r"(?:\.\d+|(?<=\d))"
)
_POWER_OF_TEN = r"(?:\s?[x\u00d7*\u00b7]\s?10\^[({]?(?P<exponent>[-+]?\d{1,3})[)}]?)?"
_PARTS = r"(?:(?: (?P<above>\d+))?/(?P<below>\d+(?:\.\d+)?))?"
_DIGITS = (
    rf"(?P<digits>(?<![\w.^])(?<!\d[,/:])[-+]?(?P<numeral>{NUMERAL}(?:e[-+]?\d+)?)"
    rf"{_POWER_OF_TEN}{_PARTS})"
)
_TOKEN = re.compile(
    rf"{_DIGITS}(?!\w|[.,:/]\d|\^)|(?P<word>[^\W\d_]+)|(?P<other>\w+)"
    r"|(?P<percent>%)|(?P<minus>-(?=\s\d))|(?P<symbol>[^\w\s])",
    re.IGNORECASE,
)
_FUSED = re.compile(
    rf"(?P<digits>(?<![\w.^])(?<!\d[,/:])[-+]?(?P<numeral>{NUMERAL}))(?=(?P<unit>[^\W\d_]{{1,12}}))"
)


@dataclass(frozen=True)
class Number:
    """`value` as written.

    Attributes:
        percent: it stands for a hundredth of that.
        fraction: it was written as one, so that decimals of it are rounded.
    """

    value: float
    percent: bool = False
    fraction: bool = False

    @property
    def share(self) -> float:
        """The value, a percentage as a share of one."""
        return self.value / 100 if self.percent else self.value

    def close_to(self, other: Number, tolerance: float = 0.0) -> bool:
        """Within `tolerance` of `other` as a share of it; 50% is both 0.5 and 50, as people say.

        Decimals may round a fraction to six digits.
        """
        exact = 1e-9 if self.fraction == other.fraction else 1.5e-6
        if self.percent != other.percent and _close(self.value, other.value, tolerance, exact):
            return True
        return _close(self.share, other.share, tolerance, exact)


@dataclass(frozen=True)
class Piece:
    """A number, or another word or symbol without its case, and where it ends in the text."""

    item: Number | str
    end: int


def numbers_in(text: str) -> list[Number]:
    """Every number in `text`, in order; "3D" and "K9" are none."""
    return [piece.item for piece in pieces_of(simplified(text)) if isinstance(piece.item, Number)]


@lru_cache(maxsize=4096)
def pieces_of(text: str) -> tuple[Piece, ...]:
    """The numbers, words and symbols of `text`, in order."""
    reader = _Reader()
    at = 0
    while at < len(text):
        token = _fused(text, at) or _TOKEN.match(text, at)
        if token is None:
            at += 1
            continue
        reader.read(token)
        at = max(token.end(), at + 1)
    reader.flush()
    return tuple(reader.pieces)


def _fused(text: str, at: int) -> re.Match[str] | None:
    """The number of "12cm" or "5bn"; "3D", "7A", "5G" and "4K" are names."""
    found = _FUSED.match(text, at)
    if found and found["unit"].casefold() in _SCALES:
        return found
    if found is None or (len(found["unit"]) == 1 and found["unit"] not in "mgshl"):
        return None
    return found if unit(found["unit"]) is not None else None


class _Reader:
    """Puts the words of a number together: "two thousand five hundred and six", "minus 5"."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.total, self.current, self.room, self.open, self.end = 0.0, 0.0, 0.0, False, 0
        self.fraction = self.spelt = False

    def read(self, token: re.Match[str]) -> None:
        word, end = token[0].casefold(), token.end()
        kind = token.lastgroup or ""
        if kind in ("percent", "word") and word in ("%", "percent", "pct") and self._percent(end):
            return
        if token["digits"]:
            self.flush()
            value = _value(token)
            if value is None:
                self._add(word, end)
            else:
                self.start(value, end, fraction=bool(token.groupdict().get("below")))
        elif not (self._hyphen(word) or (kind == "word" and self._take(word, end))):
            self.flush()
            self._add("minus" if kind == "minus" else word, end)

    def start(self, value: float, end: int, *, room: float = 0, fraction: bool = False) -> None:
        self.total, self.current, self.room, self.open, self.end = 0.0, value, room, True, end
        self.fraction, self.spelt = fraction, False

    def flush(self) -> None:
        if not self.open:
            return
        value = self.total + self.current
        if self.pieces and self.pieces[-1].item in ("minus", "negative"):
            self.pieces.pop()
            value = -value
        self._add(Number(value, fraction=self.fraction), self.end)
        self.open = False

    def _add(self, item: Number | str, end: int) -> None:
        self.pieces.append(Piece(item, end))

    def _hyphen(self, word: str) -> bool:
        """Whether this is the hyphen of "twenty-one"."""
        return word == "-" and self.spelt and self.open

    def _percent(self, end: int) -> bool:
        """Whether a number was just read, of which this is the percent sign."""
        self.flush()
        last = self.pieces[-1].item if self.pieces else None
        if not isinstance(last, Number):
            return False
        self.pieces[-1] = Piece(replace(last, percent=True), end)
        return True

    def _take(self, word: str, end: int) -> bool:
        """Whether `word` is part of a number, this one or (after flushing this one) the next."""
        if word in _SCALES and self.open:
            self._scale(_SCALES[word])
            self.end = end
            return True
        small = NUMBER_WORDS.get(word, _TENS.get(word))
        if small is None:
            return word == "and" and self.open and self.room >= 100
        room = 10 if word in _TENS else 0
        if self.open and 0 < small < self.room:
            self.current, self.room, self.end = self.current + small, room, end
        else:
            self.flush()
            self.start(small, end, room=room)
        self.spelt = True
        return True

    def _scale(self, scale: int) -> None:
        if scale == 100:
            self.current *= scale
        else:
            self.total, self.current = self.total + self.current * scale, 0.0
        self.room = scale


def _value(token: re.Match[str]) -> float | None:
    """The value of a match's digits; None where it is not finite."""
    groups = token.groupdict()
    value = float(re.sub("[, '\u2019]", "", groups["numeral"]))
    if groups.get("exponent"):
        value *= 10.0 ** int(groups["exponent"]) if abs(int(groups["exponent"])) < 300 else math.inf
    if groups.get("below"):
        below = float(groups["below"])
        above = groups["above"]
        if not below:
            return None
        value = value + float(above) / below if above else value / below
    if token["digits"].startswith("-"):
        value = -value
    return value if math.isfinite(value) else None


def _close(a: float, b: float, tolerance: float, exact: float) -> bool:
    return math.isclose(a, b, rel_tol=exact) or abs(a - b) <= tolerance * abs(b)
