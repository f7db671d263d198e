"""Dates and times of day, in the ways people write them."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from functools import lru_cache

from .text import plain

_NAMES = "january february march april may june july august september october november december"
_MONTHS = {name: at for at, name in enumerate(_NAMES.split(), 1)}
_MONTHS |= {name[:3]: at for name, at in _MONTHS.items()} | {"sept": 9}
_MONTH = rf"(?P<month>{'|'.join(sorted(_MONTHS, key=len, reverse=True))})\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>\d{4})"
_FORMS = [
    re.compile(form, re.IGNORECASE)
    for form in (
        rf"{_YEAR}[-/.](?P<month>\d{{1,2}})[-/.](?P<day>\d{{1,2}})",
        rf"{_YEAR}\s*\u5e74\s*(?P<month>\d{{1,2}})\s*\u6708(?:\s*(?P<day>\d{{1,2}})\s*\u65e5)?",
        rf"(?:the )?{_DAY}(?: of)? {_MONTH},?(?: {_YEAR})?",
        rf"{_MONTH} {_DAY},?(?: {_YEAR})?",
        rf"{_MONTH},? {_YEAR}",
    )
]
_DAYS = "monday tuesday wednesday thursday friday saturday sunday"
_WEEKDAY = re.compile(
    r"(?:on )?(mon|tue|wed|thu|fri|sat|sun)(?:[a-z]*day|s|rs|nes|urs?)?\.?,? (?=\w)", re.IGNORECASE
)
_NUMERIC = re.compile(rf"(?P<first>\d{{1,2}})[-/.](?P<second>\d{{1,2}})[-/.]{_YEAR}")
_CLOCK = re.compile(
    r"(?P<hour>\d{1,2})(?::(?P<minute>\d\d)(?::(?P<second>\d\d))?)?\s*(?P<half>[ap]\.?\s?m\b\.?)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Date:
    """A day, month or year; None for what is not said. In `numbers` the order of two is unknown."""

    year: int | None = None
    month: int | None = None
    day: int | None = None
    numbers: tuple[int, int] | None = None


@dataclass(frozen=True)
class Time:
    """A time of day, by the 24-hour clock."""

    hour: int
    minute: int = 0
    second: int = 0


@lru_cache(maxsize=1024)
def moment(text: str) -> Date | Time | None:
    """The date or the time of day that `text` is; None where it is neither, or says more.

    `05/01/2024` may be May or January: it equals itself, with or without the zeros.
    """
    if len(text) > 60:
        return None
    text = " ".join(plain(text).split()).strip(" .,;\"'*()")
    return _date(text) or _on_its_day(text) or _numeric(text) or _time(text)


def _date(text: str) -> Date | None:
    found = next((m for form in _FORMS if (m := form.fullmatch(text))), None)
    if found is None:
        return None
    said = {name: value for name, value in found.groupdict().items() if value}
    month = said["month"].casefold()
    number = int(month) if month.isdigit() else _MONTHS[month]
    day = int(said["day"]) if "day" in said else None
    if not 1 <= number <= 12 or not (day is None or 1 <= day <= 31):
        return None
    return Date(int(said["year"]) if "year" in said else None, number, day)


def _on_its_day(text: str) -> Date | None:
    """The date behind the name of a weekday, where it falls on that day or has no year."""
    weekday = _WEEKDAY.match(text)
    date = _date(text[weekday.end() :]) if weekday else None
    if weekday is None or date is None or date.day is None or date.month is None:
        return None
    try:
        falls = None if date.year is None else calendar.weekday(date.year, date.month, date.day)
    except ValueError:
        return None
    named = [day[:3] for day in _DAYS.split()].index(weekday[1].casefold())
    return date if falls in (None, named) else None


def _numeric(text: str) -> Date | None:
    found = _NUMERIC.fullmatch(text)
    if found is None:
        return None
    first, second, year = int(found["first"]), int(found["second"]), int(found["year"])
    if first > 12 >= second:
        return Date(year, second, first)
    if second > 12 >= first:
        return Date(year, first, second)
    return Date(year, numbers=(first, second))


def _time(text: str) -> Time | None:
    found = _CLOCK.fullmatch(text)
    if found is None or not (found["minute"] or found["half"]):
        return None
    hour = int(found["hour"])
    if found["half"]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if found["half"][0] in "pP" else 0)
    minute, second = int(found["minute"] or 0), int(found["second"] or 0)
    return Time(hour, minute, second) if hour < 24 and minute < 60 and second < 60 else None
