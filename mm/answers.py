"""What a reply answers, and whether two answers are the same: one service for votes, rewards and grades."""

from __future__ import annotations

import re
from collections.abc import Sequence


def extract_answer(text: str) -> str | None:
    text = re.sub(r"<think>.*?(</think>|\Z)", "", text, flags=re.DOTALL)
    found = re.findall(r"<answer>(.*?)(?:</answer>|\Z)", text, flags=re.DOTALL)
    return (found[-1] if found else text).strip() or None


def match_choice(answer: str | None, choices: Sequence[str]) -> str | None:
    for choice in choices:
        if answer and answer.casefold().strip(" .()") == choice.casefold():
            return choice
    return None


def same_answer(a: str | None, b: str | None, *, choices: Sequence[str] = ()) -> bool:
    return a is not None and b is not None and a.casefold().strip(" .()") == b.casefold().strip(" .()")
