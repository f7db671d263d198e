"""The answer that a reply gives, thinking and talk left out."""

from __future__ import annotations

import re

from .benchmark_rules import anls as anls
from .benchmark_rules import lmms_vstar as lmms_vstar
from .benchmark_rules import relaxed_accuracy as relaxed_accuracy
from .benchmark_rules import vlmeval_mcq as vlmeval_mcq

SHORT_WORDS = 40
"""A reply of at most this many words is its own answer when it marks none; a longer one is not."""

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_MARK = re.compile(
    r"<answer>(?P<tagged>.*?)(?:</answer>|\Z)"
    r"|(?P<boxed>\\boxed\s*\{)"
    r"|\banswer\b(?:\s+to\s+\w+\s+question)?[*_]*(?:\s*:|\s+is\b:?)[*_]*",
    re.DOTALL | re.IGNORECASE,
)
_LEAD = re.compile(r"(?:\b(?:so|thus|therefore|the|my|final)\b[\W_]*)+\Z", re.IGNORECASE)


def extract_answer(text: str) -> str | None:
    """The answer that `text` gives; None when it gives none.

    Thinking is left out. The last mark wins, whatever its kind: `<answer>`, `\\boxed{}`, "answer:"
    or "answer is" up to the end of the sentence. One that the token limit cut off is read as far as
    it goes. Without a mark the whole text is the answer if it has at most `SHORT_WORDS` words.
    """
    text = spoken(text)
    marks = list(_MARK.finditer(text))
    if not marks:
        return text.strip() or None if len(text.split()) <= SHORT_WORDS else None
    mark = marks[-1]
    if mark["tagged"] is not None:  # a mark inside the tags says it more exactly
        tagged = mark["tagged"]
        return extract_answer(tagged) if _MARK.search(tagged) else _trim(tagged)
    rest = text[mark.end() :]
    return _trim(_in_braces(rest) if mark["boxed"] else _sentence(rest))


def before_answer(text: str) -> str:
    """The words of `text` before the last mark of an answer, thinking left out.

    Without a mark they are "" where the whole text is the answer, else all of it.
    """
    text = spoken(text)
    marks = list(_MARK.finditer(text))
    if marks:
        return _LEAD.sub("", text[: marks[-1].start()]).strip()
    return text.strip() if extract_answer(text) is None else ""


def spoken(text: str) -> str:
    """`text` without what was thought between <think> and </think>, opened here or before."""
    text = _THOUGHT.sub("", text)
    return text.rpartition("</think>")[2]


def _trim(text: str) -> str | None:
    return text.strip().strip('*_`"').strip() or None


def _sentence(text: str) -> str:
    """Up to the first line break or full stop that ends a sentence, without the stop."""
    first = text.lstrip("*_ \n\t").partition("\n")[0]
    return re.split(r"(?<=\w{2})[.!?](?:\s+[A-Z]|\s*$)|[.!?]\s*$", first, maxsplit=1)[0]


def _in_braces(text: str) -> str:
    """Up to the brace that closes one opened before `text`, or to the end; `\\text{}` taken off."""
    depth = 1
    for at, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if not depth:
            text = text[:at]
            break
    return re.sub(r"^\s*\\(?:text|mathrm|textbf)\s*\{(.*)\}\s*$", r"\1", text, flags=re.DOTALL)
