"""Numbers as people write them: "3", "1,234", "50%", "$5", "twenty-one", "12 million"."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen"
)
_LARGE = "twenty thirty forty fifty sixty seventy eighty ninety"

UNITS = {word: value for value, word in enumerate(_SMALL.split())}
_TENS = {word: 10 * value for value, word in enumerate(_LARGE.split(), start=2)}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_TOKEN = re.compile(
    r"(?P<digits>(?<![\w.])(?<!\d,)[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))"
    r"(?:e[-+]?\d+)?)(?!\w|[.,]\d)"
    r"|(?P<word>[^\W\d]+)|(?P<other>\w+)|(?P<percent>%)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Number:
    """`value` as written; `percent` says that it stands for a hundredth of that."""

    value: float
    percent: bool = False

    @property
    def share(self) -> float:
        return self.value / 100 if self.percent else self.value

    def close_to(self, other: Number, tolerance: float) -> bool:
        """Within `tolerance` of `other` as a share of it; 50% is both 0.5 and 50, as people say."""
        if self.percent != other.percent and _close(self.value, other.value, tolerance):
            return True
        return _close(self.share, other.share, tolerance)


def numbers_in(text: str) -> list[Number]:
    """Every number in `text`, in order; "3D" and "K9" are none."""
    return [item for item in _read(text) if isinstance(item, Number)]


def only_number(text: str) -> Number | None:
    """The number that `text` is, and nothing but; None otherwise."""
    items = _read(text)
    return items[0] if len(items) == 1 and isinstance(items[0], Number) else None


def _read(text: str) -> list[Number | str]:
    """The numbers and the other words of `text`, in order."""
    items: list[Number | str] = []
    group = _Group()
    for token in _TOKEN.finditer(text.replace("\u2212", "-").casefold()):
        if token["percent"] or token["word"] == "percent":
            group.flush(items)
            if items and isinstance(items[-1], Number):
                items[-1] = Number(items[-1].value, percent=True)
        elif token["digits"]:
            group.flush(items)
            group.start(float(token["digits"].replace(",", "")))
        elif not group.take(token[0], items):
            group.flush(items)
            items.append(token[0])
    group.flush(items)
    return items


class _Group:
    """The words of one number while they are read: "two thousand five hundred and six"."""

    def __init__(self) -> None:
        self.total, self.current, self.room, self.open = 0.0, 0.0, 0.0, False

    def start(self, value: float, room: float = 0) -> None:
        self.total, self.current, self.room, self.open = 0.0, value, room, True

    def flush(self, items: list[Number | str]) -> None:
        if self.open:
            items.append(Number(self.total + self.current))
        self.open = False

    def take(self, word: str, items: list[Number | str]) -> bool:
        """Whether `word` is part of a number, this one or (after flushing this one) the next."""
        if word in _SCALES and self.open:
            self._scale(_SCALES[word])
            return True
        small = UNITS.get(word, _TENS.get(word))
        if small is None:
            return word == "and" and self.open and self.room >= 100
        room = 10 if word in _TENS else 0
        if self.open and 0 < small < self.room:
            self.current, self.room = self.current + small, room
        else:
            self.flush(items)
            self.start(small, room)
        return True

    def _scale(self, scale: int) -> None:
        if scale == 100:
            self.current *= scale
        else:
            self.total, self.current = self.total + self.current * scale, 0.0
        self.room = scale


def _close(a: float, b: float, tolerance: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9) or abs(a - b) <= tolerance * abs(b)
