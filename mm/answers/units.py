"""Units as people write them, each with what it measures and how much of that it is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from .text import plain

Readings = Mapping[str, float]
"""What a unit may measure, and how many base units one of it is; `'` is feet, or minutes."""

_PREFIXES = {
    "n": 1e-9,
    "\u03bc": 1e-6,
    "u": 1e-6,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
}
_PREFIXED = {
    "m": "length",
    "g": "mass",
    "s": "time",
    "L": "volume",
    "l": "volume",
    "W": "power",
    "J": "energy",
    "V": "voltage",
    "A": "current",
    "Hz": "frequency",
    "Pa": "pressure",
    "N": "force",
    "Wh": "watt hours",
    "cal": "calories",
    "bit": "bits",
    "\u03c9": "resistance",
    "\u03a9": "resistance",
    "px": "pixels",
}
_LONG_PREFIXES = {
    "nano": 1e-9,
    "micro": 1e-6,
    "milli": 1e-3,
    "centi": 1e-2,
    "kilo": 1e3,
    "mega": 1e6,
    "giga": 1e9,
}
_LONG = {
    "meter": "m",
    "metre": "m",
    "gram": "g",
    "gramme": "g",
    "second": "s",
    "liter": "L",
    "litre": "L",
    "watt": "W",
    "joule": "J",
    "volt": "V",
    "ampere": "A",
    "hertz": "Hz",
    "pascal": "Pa",
    "newton": "N",
    "calorie": "cal",
    "ohm": "\u03a9",
    "pixel": "px",
}
_OTHERS: Mapping[str, Readings] = {
    "cm cms": {"length": 0.01},
    "dm": {"length": 0.1},
    "in inch inches": {"length": 0.0254},
    "ft foot feet": {"length": 0.3048},
    "yd yard yards": {"length": 0.9144},
    "mi mile miles": {"length": 1609.344},
    "lb lbs": {"mass": 453.59237},
    "oz ounce ounces": {"mass": 28.349523125, "volume": 0.0295735295625},
    "tonne tonnes": {"mass": 1e6},
    "ton tons": {"mass": 1e6, "short tons": 1.0},
    "sec secs": {"time": 1.0},
    "min mins minute minutes": {"time": 60.0},
    "h hr hrs hour hours": {"time": 3600.0},
    "day days": {"time": 86400.0},
    "week weeks": {"time": 604800.0},
    "month months": {"months": 1.0},
    "yr yrs year years": {"months": 12.0},
    "cl cL": {"volume": 0.01},
    "mph": {"length/time": 0.44704},
    "kph kmh": {"length/time": 1 / 3.6},
    "rpm": {"turns/time": 1 / 60},
    "rad radian radians": {"radians": 1.0},
    "deg degs degree degrees \u00b0": {"angle": 1.0, "celsius": 1.0, "fahrenheit": 1.0},
    "\u00b0C C celsius centigrade": {"celsius": 1.0},
    "\u00b0F F fahrenheit": {"fahrenheit": 1.0},
    "K kelvin kelvins": {"kelvin": 1.0},
    "'": {"length": 0.3048, "angle": 1 / 60, "time": 60.0},
    '"': {"length": 0.0254, "angle": 1 / 3600, "time": 1.0},
    "B byte bytes": {"bytes": 1.0},
    "KB kB kilobyte kilobytes": {"bytes": 1e3},
    "MB megabyte megabytes": {"bytes": 1e6},
    "GB gigabyte gigabytes": {"bytes": 1e9},
    "TB terabyte terabytes": {"bytes": 1e12},
    "$ usd us$ dollar dollars": {"usd": 1.0},
    "\u20ac eur euro euros": {"eur": 1.0},
    "\u00a3 gbp": {"gbp": 1.0},
    "pound pounds": {"mass": 453.59237, "gbp": 1.0},
    "\u00a5": {"jpy": 1.0, "cny": 1.0},
    "jpy yen \u5186": {"jpy": 1.0},
    "cny rmb yuan \u5143": {"cny": 1.0},
    "\u20b9 inr rupee rupees": {"inr": 1.0},
    "\u20a9 krw won": {"krw": 1.0},
    "cent cents": {"usd": 0.01, "eur": 0.01},
    "\u7c73": {"length": 1.0},
    "\u5398\u7c73": {"length": 0.01},
    "\u6beb\u7c73": {"length": 0.001},
    "\u516c\u91cc \u5343\u7c73": {"length": 1000.0},
    "\u514b": {"mass": 1.0},
    "\u516c\u65a4 \u5343\u514b": {"mass": 1000.0},
    "\u5ea6": {"angle": 1.0, "celsius": 1.0},
}


def _named() -> Iterator[tuple[str, Readings]]:
    for symbol, measures in _PREFIXED.items():
        yield symbol, {measures: 1.0}
        for prefix, factor in _PREFIXES.items():
            yield prefix + symbol, {measures: factor}
    for word, symbol in _LONG.items():
        for prefix, factor in {"": 1.0, **_LONG_PREFIXES}.items():
            for ending in ("", "s"):
                yield prefix + word + ending, {_PREFIXED[symbol]: factor}
    for names, readings in _OTHERS.items():
        for name in names.split():
            yield name, readings


_UNITS: Mapping[str, Readings] = dict(_named())
_FOLDED: dict[str, list[Readings]] = {}
for _name, _readings in _UNITS.items():
    known = _FOLDED.setdefault(_name.casefold(), [])
    if _readings not in known:
        known.append(_readings)

CURRENCIES = ("US$", "$", "\u20ac", "\u00a3", "\u00a5", "\u20b9", "\u20a9")
"""Signs that stand before the number, too."""

_POWER = re.compile(r"(.+?)\s*\^?\s*([23])")
_SQUARE = re.compile(r"(sq\.?|square|cu\.?|cubic)\s+(.+)", re.IGNORECASE)
_DEGREES = re.compile(r"(?:deg|degs|degree|degrees|\u00b0)\s+(c|f|celsius|fahrenheit|centigrade)")


def unit(text: str) -> Readings | None:
    """What `text` measures as a unit; None where it is none.

    Case counts where two units differ by it alone (mW, MW), and not otherwise. `km/h` and `m per s`
    divide; `m^2`, `square metres` and `cm3` are powers of a length.
    """
    text = " ".join(plain(text).split()).strip(". ") or plain(text).strip()
    if not text or len(text) > 40:
        return None
    over, per, under = re.sub(r"\s*/\s*|\s+per\s+", "/", text).partition("/")
    if per:
        return _ratio(unit(over), unit(under)) if "/" not in under else None
    if hot := _DEGREES.fullmatch(text.casefold()):
        text = hot[1]
    return _simple(text) or _power(text)


def _simple(text: str) -> Readings | None:
    if text in _UNITS:
        return _UNITS[text]
    folded = _FOLDED.get(text.casefold(), [])
    return folded[0] if len(folded) == 1 else None


def _power(text: str) -> Readings | None:
    if found := _SQUARE.fullmatch(text):
        base, power = found[2], 2 if found[1].casefold().startswith("sq") else 3
    elif found := _POWER.fullmatch(text):
        base, power = found[1], int(found[2])
    else:
        return None
    readings = _simple(base.strip())
    if readings is None or "length" not in readings:
        return None
    factor = readings["length"] ** power
    return {"area": factor} if power == 2 else {"volume": factor * 1000}  # in litres


def _ratio(over: Readings | None, under: Readings | None) -> Readings | None:
    if over is None or under is None:
        return None
    return {f"{a}/{b}": over[a] / under[b] for a in over for b in under}
