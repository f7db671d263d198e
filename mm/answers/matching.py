"""Whether two answers are the same, and which choice one means."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from .benchmark_rules import anls as anls
from .benchmark_rules import lmms_vstar as lmms_vstar
from .benchmark_rules import relaxed_accuracy as relaxed_accuracy
from .benchmark_rules import vlmeval_mcq as vlmeval_mcq
from .numbers import UNITS, numbers_in, only_number

Box = tuple[float, float, float, float]
_LETTERS = (
    re.compile(r"^\W*([A-Za-z])\W*$"),
    re.compile(r"\(([A-Za-z])\)"),
    re.compile(r"^\W*([A-Z])[.):](?!\w)"),
    re.compile(
        r"(?i:\b(?:option|choice|letter|answer)(?:\s+is)?:?)\s*[\"'*(]*"
        r"([A-Z])(?![\w'\u2019]|\s+[a-z])"
    ),
    re.compile(r"(?<![\w'\u2019.])([A-Z])\W*$"),
)
# "A" and "I" are words before other words
_ANY_LETTER = re.compile(
    r"(?<![\w'\u2019])(?:[B-HJ-Z]|[AI](?!\s+(?!or\b|and\b|because\b|since\b)[a-z]))(?![\w'\u2019])"
)
_LABEL = re.compile(r"\s*\(?([A-Z])[).:]\s*(?=\S)")
_FLOAT = r"\s*(-?\d+(?:\.\d+)?)\s*"
_BOX = re.compile(rf"[\[(]{_FLOAT},{_FLOAT},{_FLOAT},{_FLOAT}[\])]")
_NEGATIONS = {"not", "isn't", "aren't", "wasn't", "neither", "nor", "never"}
_ARTICLES = {"a", "an", "the"}


def match_choice(answer: str | None, choices: Sequence[str]) -> str | None:
    """The one of `choices` that `answer` means; None when it means none of them, or it is unclear.

    In this order: the choice itself; its letter ("(C)", "C.", "option C"), A being the first choice
    unless the choices are letters or carry their own; its number; yes or no; the only choice whose
    words occur in the answer without a "not" before them.
    """
    if answer is None:
        return None
    labels, texts = _labelled(choices)
    same = [c for c in choices if c.strip() == answer.strip()]
    if words := words_of(answer):
        same += [c for c, text in zip(choices, texts, strict=True) if words_of(text) == words]
    if same:
        return same[0]
    patterns = (*_LETTERS, _ANY_LETTER) if labels == texts else _LETTERS
    if letters := _letters(answer, patterns):
        letter = letters.pop()
        return choices[labels.index(letter)] if letter in labels and not letters else None
    by_text = dict(zip(texts, choices, strict=True))
    for rule in (_same_number, _same_yes_no):
        found = [text for text in texts if rule(answer, text)]
        if len(found) == 1:
            return by_text[found[0]]
    mentioned = _mentioned(words, texts)
    return by_text[mentioned.pop()] if len(mentioned) == 1 else None


def same_answer(
    a: str | None,
    b: str | None,
    *,
    choices: Sequence[str] = (),
    tolerance: float = 0.0,
    min_iou: float | None = None,
) -> bool:
    """Whether `a` and `b` answer the same; None answers nothing and equals nothing.

    Case, articles and punctuation do not count, nor how a number is written. A bare number, letter,
    yes or no equals a sentence that says it and no other.

    Args:
        choices: where `b` means one of these, `a` must mean the same one.
        tolerance: how far numbers may differ, as a share of `b`.
        min_iou: boxes are the same from this intersection over union on; None wants equal numbers.
    """
    if a is None or b is None:
        return False
    if (right := match_choice(b, choices)) is not None:
        return match_choice(a, choices) == right
    box_a, box_b = parse_box(a), parse_box(b)
    if box_a and box_b:
        return box_a == box_b if min_iou is None else _iou(box_a, box_b) >= min_iou
    if only_number(a) and only_number(b):
        return _same_number(a, b, tolerance)
    return (
        _same_words(a, b)
        or _same_number(a, b, tolerance)
        or _same_yes_no(a, b)
        or _same_letter(a, b)
    )


def parse_box(answer: str) -> Box | None:
    """The box an answer gives as four numbers in brackets, as written; None for none or several."""
    found = {tuple(float(n) for n in numbers) for numbers in _BOX.findall(answer)}
    if len(found) != 1:
        return None
    x0, y0, x1, y1 = found.pop()
    return x0, y0, x1, y1


def parse_number(answer: str) -> float | None:
    """The only number in an answer, a percentage as a share of one; None for none or several."""
    numbers = numbers_in(answer)
    return numbers[0].share if len(numbers) == 1 else None


def letter_of(answer: str) -> str | None:
    """The letter an answer picks: "C", "(c)", "C. red", "option C", "it is C"; None if unclear."""
    letters = _letters(answer, _LETTERS)
    return letters.pop() if len(letters) == 1 else None


def words_of(text: str) -> tuple[str, ...]:
    """The words that count in a comparison: no case, articles, punctuation; digits for numbers."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    words = [str(UNITS.get(word, word)) for word in re.findall(r"\w+(?:[.,']\w+)*|[%+#=<>/]", text)]
    return tuple(w for w in words if w not in _ARTICLES) or tuple(words)


def _letters(answer: str, patterns: Sequence[re.Pattern[str]]) -> set[str]:
    """What the first pattern that finds letters finds, as capitals."""
    found = ({letter.upper() for letter in pattern.findall(answer)} for pattern in patterns)
    return next((letters for letters in found if letters), set())


def _labelled(choices: Sequence[str]) -> tuple[list[str], list[str]]:
    """Each choice's letter, and its text without it."""
    if all(len(c.strip()) == 1 and c.strip().isalpha() for c in choices):
        return [c.strip().upper() for c in choices], list(choices)
    labels = [match[1] for match in map(_LABEL.match, choices) if match]
    if len(labels) == len(choices) == len(set(labels)):
        return labels, [_LABEL.sub("", c, count=1) for c in choices]
    return [chr(ord("A") + i) for i in range(len(choices))], list(choices)


def _mentioned(words: tuple[str, ...], texts: Sequence[str]) -> set[str]:
    """The texts that occur in `words` without a "not" before them; of nested ones the longest."""
    longest_first = sorted(((words_of(t), t) for t in texts), key=lambda pair: -len(pair[0]))
    found: set[str] = set()
    at = 0
    while at < len(words):
        here = ((w, t) for w, t in longest_first if w and words[at : at + len(w)] == w)
        said, text = next(here, ((), ""))
        if said and not _NEGATIONS & set(words[max(at - 2, 0) : at]):
            found.add(text)
        at += len(said) or 1
    return found


def _same_words(a: str, b: str) -> bool:
    """The same words, or one is what the other says of something: "red", "It is red."."""
    if a.strip() == b.strip() != "":
        return True
    words_a, words_b = words_of(a), words_of(b)
    return bool(words_a and words_b) and (
        words_a == words_b or _predicate(words_a) == words_b or words_a == _predicate(words_b)
    )


def _predicate(words: tuple[str, ...]) -> tuple[str, ...]:
    """What comes after "it is" or "object is" at the start; nothing when there is no such start."""
    text = " ".join(words)
    match = re.match(r"(?:it's|they're|that's|(?:\w+ ){1,2}(?:is|are|says|reads)) ", text)
    return tuple(text[match.end() :].split()) if match else ()


def _same_number(a: str, b: str, tolerance: float = 0.0) -> bool:
    if not (only_number(a) or only_number(b)):
        return False
    said, right = numbers_in(a), numbers_in(b)
    if len(said) != 1 or len(right) != 1 or _NEGATIONS & {*words_of(a), *words_of(b)}:
        return False
    return said[0].close_to(right[0], tolerance)


def _same_yes_no(a: str, b: str) -> bool:
    bare = {("yes",), ("no",)}
    if words_of(a) not in bare and words_of(b) not in bare:
        return False
    said = _yes_no(a)
    return said is not None and said == _yes_no(b)


def _yes_no(text: str) -> str | None:
    """The first word if it is one of the two, else the only one of the two in `text`."""
    words = words_of(text)
    first = words[:1] in {("yes",), ("no",)} and words[1:2] != ("or",)
    said = words[:1] if first else {*words} & {"yes", "no"}
    return next(iter(said)) if len(said) == 1 else None


def _same_letter(a: str, b: str) -> bool:
    if not any(len(words) == 1 and len(words[0]) == 1 for words in (words_of(a), words_of(b))):
        return False
    letter = letter_of(a)
    return letter is not None and letter == letter_of(b)


def _iou(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (a, b)]
    return width * height / (sum(areas) - width * height)
