"""Text as the judge compares it: only what is named here as harmless is dropped."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

HARMLESS = frozenset(
    ".,;:!?\"`*_'()[]{}"  # as punctuation; between letters, digits or in mathematics they stay
    "\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb\u2039\u203a"  # quotation marks
    "\u3001\u3002\u300c\u300d\u300e\u300f\u300a\u300b\u3008\u3009\u3010\u3011\u30fb"  # CJK
    "\u00bf\u00a1\u0964\u0965\u060c\u061b\u061f\u06d4\u0589\u05be\u05f3\u05f4\u0387\u1362"
    "\u2026\u2025\u00b7\u2022\u2027\u2013\u2014\u2015\u2122\u00ae\u00a9"
)
"""Punctuation of several scripts; every other symbol counts."""

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen"
)
NUMBER_WORDS = {word: value for value, word in enumerate(_SMALL.split())}
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
_ENDINGS = ("st", "nd", "rd", *["th"] * 9)
_ORDINAL_WORDS = {
    f"{place}{ending}": word
    for place, (ending, word) in enumerate(zip(_ENDINGS, _ORDINALS.split(), strict=True), 1)
}
_ORDINAL = re.compile(rf"(?<![\w.,])(?:{'|'.join(_ORDINAL_WORDS)})(?!\w)", re.IGNORECASE)
_RATIO = re.compile(r"\s*\d+(?:\.\d+)?(?:\s*:\s*\d+(?:\.\d+)?)+\s*")
_DEPENDING = frozenset("-*_'\"!()[]{},:")
ARTICLES = frozenset({"a", "an", "the"})

_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f\u00ad\u0640\u200b-\u200f\u202a-\u202e\u2060\u2066-\u2069\ufe0e\ufe0f\ufeff]"
)
_SUPERSCRIPTS = str.maketrans(
    "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b\u207f",
    "0123456789+-n",
)
_RAISED = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u207b\u207f]+")
_DASH = re.compile("(?<=\\d)\\s*[\u2012-\u2014]\\s*(?=\\d)|[\u2012-\u2014](?=[\\d.])")
_FRACTION = re.compile("(\\d?)([\u00bc-\u00be\u2150-\u215e])")
_KEPT_APART = ("<super>", "<fraction>", "<circle>")
_MARK = "\x01"
_SPACELESS = (  # scripts written without spaces: each character is a word of its own
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30fa\u30fc-\u30ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_ACRONYM = re.compile(r"(?<!\w)[^\W\d_](?:\.[^\W\d_])+\.?(?!\w)")
_TOKEN = re.compile(
    rf"(?P<single>[{_SPACELESS}]\u0001*)"
    rf"|(?P<number>(?:(?<![\w)\]}}])[-+])?(?:\d{{1,3}}(?:,\d{{3}})+(?![\d,])|\d+(?:[.:]\d+)*)"
    rf"|(?<!\w)[-+]?\.\d+)"
    rf"|(?P<word>(?:[^\W\d_{_SPACELESS}]|\u0001)(?:[^\W{_SPACELESS}]|\u0001|['.](?=[^\W_]))*)"
    r"|(?P<symbol>\S)"
)
_MATHEMATICAL = re.compile(r"[\d+=<>\u2264\u2265\u2260^\\\u221a\u222a\u2229]")


@lru_cache(maxsize=4096)
def plain(text: str) -> str:
    """`text` in one spelling for each character that has several; what carries meaning stays.

    Wide, narrow, ligature, letter-like and subscript forms become the ordinary characters, digits
    of every script ASCII's, `10\u00b2` 10^2, `\u00bd` 1/2, every minus sign a hyphen. Invisible
    characters go.
    """
    text = _INVISIBLE.sub("", unicodedata.normalize("NFC", text))
    text = _FRACTION.sub(_fraction, text)
    text = _DASH.sub("-", text)
    text = _RAISED.sub(lambda found: "^" + found[0].translate(_SUPERSCRIPTS), text)
    return unicodedata.normalize("NFC", "".join(map(_ordinary, text)))


@lru_cache(maxsize=4096)
def words_of(text: str) -> tuple[str, ...]:
    """The tokens that count in a comparison: no case, articles or harmless punctuation.

    Words keep their marks, numbers their signs, "three" is 3, and every symbol that is not
    harmless is a token.
    """
    text = _unwrapped(plain(text)).replace("\u2019", "'")
    text = "".join(text.split()) if _RATIO.fullmatch(text) else text
    text = _ACRONYM.sub(lambda found: found[0].replace(".", ""), text)
    # one stand-in for all marks, so that a regular expression can take them for letters
    marks = iter([c for c in text if _is_mark(c)])
    flat = "".join(_MARK if _is_mark(c) else c for c in text)
    strict = bool(_MATHEMATICAL.search(flat))
    found: list[str] = []
    for token in _TOKEN.finditer(flat):
        word = re.sub(_MARK, lambda _: next(marks), token[0])
        if token.lastgroup != "symbol" or not _is_harmless(flat, token.start(), strict):
            # an article stands before a blank, unlike the label of "A. red"
            found.append(word if flat[token.end() : token.end() + 1].isspace() else _Last(word))
    capitals = flat.isupper()
    kept = [w for at, w in enumerate(found) if not _is_article(found, at, capitals)]
    return tuple(map(_folded, kept))


def with_ordinals(text: str) -> str:
    """`text` with the first twelve ordinals in words: "1st" as "first"."""
    return _ORDINAL.sub(lambda found: _ORDINAL_WORDS[found[0].casefold()], text)


class _Last(str):
    """A token with no blank behind it."""


def _folded(token: str) -> str:
    token = token.casefold()
    if token[0].isdigit() or token[-1:].isdigit():
        return token.replace(",", "").removeprefix("+")
    return "and" if token == "&" else str(NUMBER_WORDS.get(token, token))


def _is_article(tokens: Sequence[str], at: int, capitals: bool) -> bool:
    """Whether a token is an article before a word; within a sentence "A" is a name."""
    token = tokens[at]
    if token.casefold() not in ARTICLES or isinstance(token, _Last):
        return False
    if token == "A" and at and not capitals:
        return False
    following = tokens[at + 1] if at + 1 < len(tokens) else ""
    return len(following) > 1 and following[0].isalpha()


def _is_mark(char: str) -> bool:
    return not char.isascii() and unicodedata.category(char) in ("Mn", "Mc", "Me")


def _is_harmless(text: str, at: int, strict: bool) -> bool:
    """Whether the symbol at `at` says nothing; `strict` where there are numbers or mathematics."""
    char = text[at]
    if char not in _DEPENDING:
        return char in HARMLESS
    before, after = text[at - 1 : at] if at else "", text[at + 1 : at + 2]
    behind, ahead = text[max(at - 9, 0) : at].rstrip()[-1:], text[at + 1 : at + 10].lstrip()[:1]
    if char == "-":  # a hyphen, a bullet or a dash; what is left is a minus
        joins = (before.isalpha() or before == _MARK) and after.isalpha()
        return joins or (not strict and not before.isdigit() and not after.strip())
    if char in "*_" and before.isalnum() and after.isalnum():
        return False
    if char in "'\"" and (before.isdigit() or after == "("):
        return False
    if char == "!" and before.isdigit() and not ahead:
        return " " in text.strip()  # it ends a sentence; "5!" alone is a factorial
    if char in "()[]{}!":
        return not strict
    if char == ",":
        return not (
            (behind.isdigit() or behind in ")]}") and (ahead.isdigit() or ahead in "([{+-.")
        )
    if char == ":" and before.isdigit() and after.isdigit():
        return False
    return char in HARMLESS


def _unwrapped(text: str) -> str:
    """`text` without the quotation marks or brackets around all of it, and the stop behind it."""
    text = text.strip()
    for _ in range(4):
        inner = text.rstrip(".,;:?\u3002 ") if len(text) > 1 else text
        pairs = ('""', "''", "**", "__", "``", "()", "\u201c\u201d", "\u2018\u2019", "\u300c\u300d")
        if len(inner) > 2 and inner[0] + inner[-1] in pairs:
            middle = inner[1:-1]
            if not any(c in middle for c in inner[0] + inner[-1] + ",;"):
                inner = middle.strip()
        if inner == text or not inner:
            return text
        text = inner
    return text


def _fraction(found: re.Match[str]) -> str:
    parts = unicodedata.normalize("NFKC", found[2]).replace("\u2044", "/")
    return f"{found[1]} {parts}" if found[1] else parts


@lru_cache(maxsize=4096)
def _ordinary(char: str) -> str:
    if char.isascii():
        return char
    if char in "\u2212\u2010\u2011\ufe63\uff0d\u2012":
        return "-"
    if char.isspace():
        return " " if char not in "\n\r\u2028\u2029\x85" else "\n"
    digit = unicodedata.decimal(char, None)
    if digit is not None:
        return str(digit)
    decomposed = unicodedata.decomposition(char)
    if not decomposed.startswith("<") or decomposed.startswith(_KEPT_APART):
        return char
    return unicodedata.normalize("NFKC", char)
