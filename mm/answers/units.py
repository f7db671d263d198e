"""Units as people write them, each with what it measures and how much of that it is."""

from __future__ import annotations

import re
from collections import Counter
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
    "mol": "substance",
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
    "mole": "mol",
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

MONEY = frozenset(("usd", "eur", "gbp", "jpy", "cny", "inr", "krw"))

_POWER = re.compile(r"(.+?)\s*(\^?)\s*([23])")
_RAISED = re.compile(r"(.+?)\s*\^\s*\(?(-?[1-4])\)?|(.+?)\s+(squared|cubed)|(s)\s*([23])")
_TIMES = re.compile(r"\s*[\u00b7\u22c5*]\s*|\s+(?=[^\W\d]+\s*\^\s*\(?-)")
_FRACTION = re.compile(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_IN_PRODUCTS = frozenset("mgshlLAVNKJW\u03a9")
_IN_POWERS = _IN_PRODUCTS - frozenset("ghl")
"""Units of one letter beside others: any letter may be a name in a formula, and these least."""

_SQUARE = re.compile(r"(sq\.?|square|cu\.?|cubic)\s+(.+)", re.IGNORECASE)
_DEGREES = re.compile(r"(?:deg|degs|degree|degrees|\u00b0)\s+(c|f|celsius|fahrenheit|centigrade)")


def unit(text: str) -> Readings | None:
    """What `text` measures as a unit; None where it is none.

    Case counts where two units differ by it alone (mW, MW), and not otherwise. `km/h` and `m per s`
    divide; `m^2`, `square metres` and `cm3` are powers of a length. Other units have powers beside
    others alone, since `3s^2` may be a formula: `m/s^2`, `J/(kg\u00b7K)`, `mol L^-1`.
    """
    text = " ".join(plain(text).split()).strip(". ") or plain(text).strip()
    if not text or len(text) > 40:
        return None
    if fraction := _FRACTION.fullmatch(text):
        text = f"{fraction[1].strip()}/{fraction[2].strip()}"
        if not re.search(r"[^\W\d_]{2}|/s", text):  # all of them may be names
            return None
    over, per, under = re.sub(r"\s*/\s*|\s+per\s+", "/", text).rpartition("/")
    if per:
        return _joined(_part(over), _part(under), -1) if over.count("/") < 2 else None
    if hot := _DEGREES.fullmatch(text.casefold()):
        text = hot[1]
    return _simple(text) or _power(text) or _product(text)


def _simple(text: str) -> Readings | None:
    if text in _UNITS:
        return _UNITS[text]
    folded = _FOLDED.get(text.casefold(), [])
    return folded[0] if len(folded) == 1 else None


def _power(text: str) -> Readings | None:
    if found := _SQUARE.fullmatch(text):
        base, power = found[2], 2 if found[1].casefold().startswith("sq") else 3
    elif found := _POWER.fullmatch(text):
        base, power = found[1], int(found[3])
    else:
        return None
    readings = _simple(base.strip())
    if readings is None or "length" not in readings:
        return None
    factor = readings["length"] ** power
    return {"area": factor} if power == 2 else {"volume": factor * 1000}  # in litres


def _part(text: str) -> Readings | None:
    """What one side of "per" measures: a unit, a power of one, or a product, in brackets or not."""
    text = text.strip()
    if text[:1] + text[-1:] == "()":
        text = text[1:-1].strip()
    return unit(text) or _raised(text) or _product(text, alone=False)


def _raised(text: str) -> Readings | None:
    """What a power of any unit measures: `s^2`, `second squared`, `kg^-1`."""
    found = _RAISED.fullmatch(text)
    if found is None:
        return None
    name = (found[1] or found[3] or found[5]).strip()
    base = _simple(name) if len(name) > 1 or name in _IN_POWERS else None
    power = int(found[2] or found[6] or {"squared": 2, "cubed": 3}[found[4]])
    if base is None:
        return None
    if set(base) == {"length"} and power in (2, 3):
        return _power(f"{name}^{power}")
    return {_measure({kind: power}): factor**power for kind, factor in base.items()}


def _product(text: str, *, alone: bool = True) -> Readings | None:
    """What units that are multiplied measure.

    Args:
        alone: no "per" stands beside it, so that small single letters may be a formula's names.
    """
    parts = _TIMES.split(text)
    if not 2 <= len(parts) <= 4:
        return None
    if alone and "^" not in text and all(len(part) == 1 and part.islower() for part in parts):
        return None
    found: Readings | None = {"": 1.0}
    for part in parts:
        plainly = _simple(part) if len(part) > 1 or part in _IN_PRODUCTS else None
        found = _joined(found, plainly or _power(part) or _raised(part), 1)
    return found


def _joined(one: Readings | None, two: Readings | None, power: int) -> Readings | None:
    """The readings of a product or, for a `power` of -1, a ratio."""
    if one is None or two is None:
        return None
    return {_kind(a, b, power): one[a] * two[b] ** power for a in one for b in two}


def _kind(one: str, two: str, power: int) -> str:
    powers = Counter(_powers(one))
    for base, exponent in _powers(two).items():
        powers[base] += power * exponent
    return _measure(powers)


def _powers(kind: str) -> dict[str, int]:
    """The powers of a name that `_measure` made: "mass\u00b7length/time^2"."""
    found: dict[str, int] = {}
    for side, sign in zip(kind.split("/"), (1, -1), strict=False):
        for part in filter(None, side.split("\u00b7")):
            base, _, power = part.partition("^")
            found[base] = sign * int(power or 1)
    return found


def _measure(powers: Mapping[str, int]) -> str:
    """The name of what a product of powers measures, the same in whatever order they stand."""
    sides = [[], []]
    for base, power in sorted(powers.items()):
        if power:
            sides[power < 0].append(base if abs(power) == 1 else f"{base}^{abs(power)}")
    return "/".join("\u00b7".join(side) for side in sides).removesuffix("/")
