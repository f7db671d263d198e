"""Spellings that a template's reader would take for special tokens, made harmless."""

from __future__ import annotations

import re


def spelt_apart(text: str, controls: re.Pattern[str]) -> str:
    """`text`, in which each match of `controls` reads the same and is no token: a word joiner
    (U+2060) stands behind its first character."""
    return controls.sub(lambda found: f"{found[0][0]}\u2060{found[0][1:]}", text)
