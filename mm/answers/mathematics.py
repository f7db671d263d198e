"""Whether two pieces of mathematics say the same, by math-verify, in a process of its own.

math-verify limits its time by signals, which only a main thread can take, and no limit inside a
process can stop one power of large numbers. So it runs in a helper process that is ended when an
answer takes too long, from whatever thread it was asked.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from .latex import as_latex, simplified
from .quantities import quantity
from .text import plain
from .units import Readings, unit

LONGEST = 300
"""Characters from which on mathematics is compared as written only."""

CPU_SECONDS = 3
"""Of the helper's own processor time for one pair, so that a busy machine changes no verdict."""

PATIENCE = 60.0
"""Seconds by the clock, for a machine that stands still; the helper's start takes a few."""

STARTING_CPU_SECONDS = 5
"""What the helper's start may take, where it has no timer and its processor time is read here."""

_TICK_S = 0.2  # between two readings of it

_COMMAND = re.compile(r"\\[A-Za-z]+")
_FUNCTIONS = re.compile(
    r"(?<![A-Za-z])(?:sin|cos|tan|cot|sec|log|ln|exp|sqrt|pi|theta|alpha|beta|lim|max|min|mod|and|or)"
    r"(?![A-Za-z])"
)
_ALLOWED = re.compile(
    r"[\w\s+\-*/^=<>|!()\[\]{}.,'&\\\u2264\u2265\u2260\u221a\u221e\u00b1\u222a\u2229\u2208\u2205\u00d7"
    r"\u00b7\u22c5\u00f7\u03c0]+"
)
_OPERATOR = re.compile(
    r"[+\-*/^=<>|!\\\u2264\u2265\u2260\u221a\u221e\u00b1\u222a\u2229\u2208\u00d7\u00b7\u00f7\u03c0(\[{]"
    r"|(?<![A-Za-z])\d+[a-z]"
)
_PLAIN_RANGE = re.compile(r"\s*\d+(?:\.\d+)?(?:\s*-\s*\d+(?:\.\d+)?)+\s*|\s*\d+(?:/\d+){2,}\s*")
_TOO_LARGE = re.compile(r"\^[\s{(]*-?\d+[\s)}]*\^|\^[\s{(]*-?\d{5,}|\d{4,}\s*!|!\s*!")
"""Powers of powers and factorials that are too large to compute."""

_UNIT = re.compile(
    r"(?:\\[,;: ]|~|\s)*\\(?:text|mathrm|textrm|mbox|operatorname)\s*"
    r"\{\s*~?([^{}]+)\}(\^\{?[23]\}?)?\s*$"
)
_PLAIN_UNIT = re.compile(r"(?<=[\d)}\u03c0i])(?:\s|\\[,;: ]|~)+([^\W\d_][^\s{}\\]*)\s*$")
_IRRATIONAL = re.compile(r"[\u03c0\u221a]|\\pi|sqrt")
_NUMERIC = re.compile(r"(?:[\d\s+\-*/^().,{}\u03c0\u221a\u00d7\u00b7]|\\(?:frac|sqrt|pi)|sqrt|pi)+")


def is_mathematics(text: str) -> bool:
    """Whether `text` is a formula rather than words: symbols, numbers and names of one letter."""
    if len(text) > LONGEST:
        return False
    body = _split_unit(text)[0]
    shown = simplified(body)
    if not _OPERATOR.search(shown) or _PLAIN_RANGE.fullmatch(shown) or _has_bare_comma(shown):
        return False
    if not _ALLOWED.fullmatch(shown):
        return False
    rest = _FUNCTIONS.sub(" ", _COMMAND.sub(" ", shown))
    return not re.search(r"[^\W\d_]{3,}", rest) and bool(re.search(r"[\w\u221e]", rest))


def same_mathematics(a: str, b: str) -> bool | None:
    """Whether `a` and `b`, one of them mathematics, are the same; None where it cannot be told.

    Both ways round have to hold, since math-verify reads a target and a reply differently.
    """
    (a, unit_a), (b, unit_b) = _split_unit(a), _split_unit(b)
    if unit_a and unit_b and unit_a != unit_b:
        return False
    first, second = as_latex(a), as_latex(b)
    if "".join(first.split()) == "".join(second.split()) != "":
        return True
    if _TOO_LARGE.search(first) or _TOO_LARGE.search(second):
        return None
    return _verified(*sorted((first, second)))


def _split_unit(text: str) -> tuple[str, Readings | None]:
    """A formula and the unit set in upright letters behind it, or behind one without names."""
    bare = text.strip().rstrip("$. ")
    found = _UNIT.search(bare) or _plain_unit(bare)
    named = unit(re.sub("[{}]", "", "".join(filter(None, found.groups())))) if found else None
    if found is None or named is None or quantity(text) is not None:
        return text, None
    return bare[: found.start()] + ("$" if "$" in text else ""), named


def _plain_unit(bare: str) -> re.Match[str] | None:
    """The letters behind a formula without names that may be a unit: "12π cm^2"."""
    found = _PLAIN_UNIT.search(bare)
    if found is None or not _NUMERIC.fullmatch(plain(bare[: found.start()]).lstrip("$ ")):
        return None
    if len(found[1]) > 1:
        return found
    # one letter may be a name, "m" and "s" hardly behind a root
    return found if found[1] in "ms" and _IRRATIONAL.search(bare) else None


def _has_bare_comma(text: str) -> bool:
    """Whether a comma stands outside of all brackets: a list, whose order counts."""
    depth = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth <= 0:
            return True
    return False


@lru_cache(maxsize=8192)
def _verified(a: str, b: str) -> bool | None:
    if not _available():
        return None
    return _helper.ask(a, b)


@lru_cache(maxsize=1)
def _available() -> bool:
    if find_spec("math_verify") is not None:
        return True
    warnings.warn(
        "math-verify is not installed, so mathematics counts as right only as it is written:"
        " pip install math-verify",
        stacklevel=2,
    )
    return False


class _Helper:
    """The process that compares, started when it is first asked and again after it was ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()

    def ask(self, a: str, b: str) -> bool | None:
        """Whether the two are the same; None after the time limit."""
        with self._lock:
            for _ in range(2):  # once more where the process had been ended from outside
                process = self._running()
                try:
                    assert process.stdin is not None
                    process.stdin.write(json.dumps([a, b]) + "\n")
                    process.stdin.flush()
                except OSError:
                    self.end()
                    continue
                answer = self._heard(process)
                if answer:
                    return json.loads(answer)
                self.end()
                return None
            return None

    def _heard(self, process: subprocess.Popen[str]) -> str:
        """The answer's line; "" where the process ended, or takes too long."""
        timed = hasattr(signal, "setitimer")  # it then ends itself
        limit = 0 if timed else max(_cpu_s(process), STARTING_CPU_SECONDS) + CPU_SECONDS
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends and (timed or _cpu_s(process) <= limit):
            with suppress(queue.Empty):
                return self._lines.get(timeout=PATIENCE if timed else _TICK_S)
        return ""

    def end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def forget(self) -> None:
        """Leave the process to the parent that started it, in a forked child."""
        self.__init__()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._lines = queue.Queue()
            # -P keeps this folder, whose `numbers` is not the standard library's, off the path
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__).with_name("math_process.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env={**os.environ, "MM_CPU_SECONDS": str(CPU_SECONDS)},
            )
            threading.Thread(
                target=_forward, args=(self._process.stdout, self._lines), daemon=True
            ).start()
        return self._process


def _cpu_s(process: subprocess.Popen[str]) -> float:
    """Seconds of processor time that it has taken; 0 where it is gone."""
    import psutil

    try:
        return psutil.Process(process.pid).cpu_times().user
    except psutil.Error:
        return 0.0


def _forward(lines: object, into: queue.Queue[str]) -> None:
    """Hand on each line, and "" at the end."""
    for line in lines:  # pyright: ignore[reportGeneralTypeIssues, reportAttributeAccessIssue]
        into.put(line)
    into.put("")


_helper = _Helper()
atexit.register(_helper.end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helper.forget)
