"""LaTeX as plain text where it is no more than that, and plain text as LaTeX for mathematics."""

from __future__ import annotations

import re
from functools import lru_cache

from .text import plain

_WRAPPED = re.compile(
    r"\\(?:text|mathrm|textbf|mathbf|textit|mathit|textrm|mbox|operatorname|boldsymbol|mathsf|bm)\s*"
    r"\{([^{}]*)\}"
)
_FRACTIONS = re.compile(
    r"(\d?)\s*\\[dtc]?frac\s*(?:\{\s*(-?\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))"
)
_DEGREE = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree\b")
_SYMBOLS = {
    r"\%": "%",
    r"\$": "$",
    r"\#": "#",
    r"\&": "&",
    r"\_": "_",
    "{,}": ",",
    r"\,": " ",
    r"\;": " ",
    r"\:": " ",
    r"\!": "",
    r"\ ": " ",
    r"\quad": " ",
    r"\left": "",
    r"\right": "",
    r"\times": "\u00d7",
    r"\cdot": "\u00b7",
    r"\leq": "\u2264",
    r"\geq": "\u2265",
    r"\le": "\u2264",
    r"\ge": "\u2265",
    r"\neq": "\u2260",
    r"\ne": "\u2260",
    r"\pi": "\u03c0",
    r"\infty": "\u221e",
    r"\pm": "\u00b1",
    r"\div": "\u00f7",
    r"\pounds": "\u00a3",
    r"\euro": "\u20ac",
    r"\approx": "\u2248",
    r"\lt": "<",
    r"\gt": ">",
    r"\colon": ":",
    r"\rightarrow": "\u2192",
    r"\to": "\u2192",
    r"\leftarrow": "\u2190",
    r"\dfrac": r"\frac",
    r"\tfrac": r"\frac",
    r"\cfrac": r"\frac",
}
_COMMAND = re.compile(
    "|".join(
        re.escape(name) + (r"(?![A-Za-z])" if name[-1].isalpha() else "")
        for name in sorted(_SYMBOLS, key=len, reverse=True)
    )
)
_DELIMITED = re.compile(r"\\\((.*?)\\\)|\\\[(.*?)\\\]|\$\$([^$]*)\$\$|\$([^$]*)\$", re.DOTALL)
_BESIDE_HAN = re.compile(r"(?<=\d)(?=[\u3400-\u9fff])|(?<=[\u3400-\u9fff])(?=-?\d)")
_POWER = re.compile(r"\^\s*\{\s*([-+]?\w)\s*\}|\^\s*\{\s*([-+]?\d+)\s*\}")


@lru_cache(maxsize=4096)
def simplified(text: str) -> str:
    """`text` in one spelling, LaTeX that only sets numbers, units and words written out.

    Such as `$5\\,\\text{cm}$` as "5 cm", `\\frac{1}{2}` as "1/2", `90^\\circ` as "90\u00b0".
    """
    text = _BESIDE_HAN.sub(" ", plain(undelimited(text)))
    if "\\" not in text and "^" not in text:
        return text
    text = _raised(text)
    for _ in range(3):
        text = _WRAPPED.sub(r" \1 ", text)
    text = _DEGREE.sub("\u00b0", text)
    text = _COMMAND.sub(lambda found: _SYMBOLS[found[0]], text)
    text = _FRACTIONS.sub(_fraction, text)
    return " ".join(_raised(text).split(" ")).strip()


def _raised(text: str) -> str:
    """`text` with `^2` for `^{2}`."""
    return _POWER.sub(lambda found: "^" + (found[1] or found[2]), text)


def undelimited(text: str) -> str:
    """`text` without the marks that open and close its mathematics; prices keep their signs."""
    if "$" not in text and "\\" not in text:
        return text
    return _DELIMITED.sub(_inside, text)


def _inside(found: re.Match[str]) -> str:
    dollars = found[4]
    if dollars is not None and re.match(r"\d[\d,.]*\s+[A-Za-z]{3}", dollars):
        return found[0]  # "$5 and $6"
    return next((inner for inner in found.groups() if inner is not None), "")


def _fraction(found: re.Match[str]) -> str:
    whole, above, below = found[1], found[2] or found[3], found[4] or found[5]
    return f"{whole} {above}/{below}" if whole else f"{above}/{below}"


_TO_LATEX = {
    "\u2264": r"\leq ",
    "\u2265": r"\geq ",
    "\u2260": r"\neq ",
    "\u00d7": r"\times ",
    "\u00b7": r"\cdot ",
    "\u22c5": r"\cdot ",
    "\u00f7": r"\div ",
    "\u03c0": r"\pi ",
    "\u221e": r"\infty ",
    "\u00b1": r"\pm ",
    "\u222a": r"\cup ",
    "\u2229": r"\cap ",
    "\u2208": r"\in ",
    "\u03b1": r"\alpha ",
    "\u03b2": r"\beta ",
    "\u03b8": r"\theta ",
    "\u03bb": r"\lambda ",
    "\u03bc": r"\mu ",
    "\u2205": r"\emptyset ",
}
_ROOT = re.compile(r"(?:\u221a|(?<!\\)\bsqrt)\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+(?:\.\d+)?|\w))")
_NAMES = re.compile(
    r"(?<![\\A-Za-z])(sin|cos|tan|cot|sec|log|ln|exp|pi|theta|alpha|beta)(?![A-Za-z])"
)
_RAISED = re.compile(r"\^\s*([-+]?\d{2,}|[-+]\w|\((?:[^()]*)\))")


def as_latex(text: str) -> str:
    """Mathematics in plain text, or in LaTeX, as LaTeX: `\u221a2` as `\\sqrt{2}`."""
    text = plain(undelimited(text)).replace("**", "^")
    text = _ROOT.sub(lambda found: rf"\sqrt{{{found[1] or found[2] or found[3]}}}", text)
    text = re.sub(r"\\sqrt\s*(\w)", r"\\sqrt{\1}", text)
    text = _NAMES.sub(r"\\\1 ", text)
    text = _RAISED.sub(
        lambda found: "^{" + found[1].removeprefix("(").removesuffix(")") + "}", text
    )
    text = re.sub(r"(?<=[\w)])\s*\*\s*(?=[\w(\\])", r" \\cdot ", text)
    return "".join(_TO_LATEX.get(char, char) for char in text).strip().rstrip(".,;")
