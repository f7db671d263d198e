"""The process behind mm/answers/mathematics.py: reads pairs of LaTeX, a JSON line each, compares.

Started as a script. A pair that takes too much processor time ends the process, since that is the
only thing that ends one long operation on large numbers.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys


def main() -> None:
    """Answer lines `["a", "b"]` with true, false, or null where one cannot be read."""
    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig
    from math_verify import LatexExtractionConfig

    logging.disable(logging.CRITICAL)
    _limit_memory()
    latex = LatexExtractionConfig(
        # units, which say what a number means, must not be dropped
        normalization_config=NormalizationConfig(units=False, nits=False, boxed="none"),
    )
    answers = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        _start_clock()
        a, b = json.loads(line)
        answer = _same(a, b, latex)
        _start_clock(0)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _same(a: str, b: str, latex: object) -> bool | None:
    from math_verify import parse, verify

    try:
        first, second = (
            parse(
                f"${text}$",
                extraction_config=[latex],  # pyright: ignore[reportArgumentType]
                fallback_mode="no_fallback",
                extraction_mode="first_match",
                parsing_timeout=None,  # pyright: ignore[reportArgumentType]
            )
            for text in (a, b)
        )
        if not first or not second:
            return None
        both = ((first, second), (second, first))
        return all(
            verify(gold, said, timeout_seconds=None, allow_set_relation_comp=True)
            for gold, said in both
        )
    except (Exception, MemoryError):  # a parser's or SymPy's, of any kind: it cannot tell
        return None


def _start_clock(seconds: float | None = None) -> None:
    if seconds is None:
        seconds = float(os.environ.get("MM_CPU_SECONDS", "3"))
    if hasattr(signal, "setitimer"):  # without a handler the signal ends the process
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)


def _limit_memory(most: int = 2 << 30) -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    except (ImportError, ValueError, OSError):
        pass


if __name__ == "__main__":
    main()
