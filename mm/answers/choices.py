"""Which of several choices an answer names: one of them, or none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .extraction import content_of
from .quantities import CHANGING, quantity
from .text import words_of
from .values import same_predicate, same_stated, same_value, same_yes_no

_LABEL = re.compile(r"\s*\(?([A-Z])[).:]\s*(?=\S)")
_WHOLE = re.compile(r"[\W_]*([A-Za-z])[\W_]*")
_QUOTED = r"[\"'*`(\[{]*"
_REASON = r"because|since|as|for|due"
_DECLARED = re.compile(  # a label, then why
    rf"\W*(?:option\s+|choice\s+|letter\s+)?{_QUOTED}([A-Za-z])(?:{_QUOTED[:-1]}|[\])}}*`\"'])*"
    rf"(?:[.:)]?\s*[,;]?\s+(?:{_REASON})\b)",
    re.IGNORECASE,
)
_START = re.compile(r"\W*(?:([A-Z])|\(([A-Za-z])\)|([a-z]))(?:[.):](?!\w)|(?<=\))|\*\*|\s*$)")
_NAMED = (
    re.compile(r"(?<!\w)[(\[{]\s*([A-Za-z])\s*[)\]}](?!\w)"),
    re.compile(r"(?<!\w)\*\*\s*\(?([A-Za-z])[).:]?\s*\*\*"),
    re.compile(
        r"\b(?i:option|choice|letter|answer|pick|choose|select|chose|be|is|it's|go\s+with)(?:\s+is)?\s*:?\s*"
        r"[\"'*(`]*([A-Z])(?![\w'\u2019+\-=*/^]|[).:]?\s+[a-z](?!s\s+(?:correct|right)))"
    ),
    re.compile(r"\b(?i:option|choice|letter)\s+[\"'*(`]*([A-Z])(?![\w'\u2019])"),
    re.compile(r"\b(?i:option|choice|answer|letter)(?:\s+is)?:?\s+[\"'*(`]*([a-z])(?=\W*$|[).:])"),
    re.compile(r"(?:^|[.,;:\n]\s*|^\s*)[\"'*(`]*([A-Z])[\W_]*$"),
    re.compile(
        r"(?:^|[\n])\W*([A-Za-z])\s+(?:is|seems)\s+(?:the\s+)?(?:correct|right|answer|best)"
    ),
)
# "A" and "I" are words before other words
_ANY_LETTER = re.compile(
    r"(?<![\w'\u2019.])(?:[B-HJ-Z]|[AI](?!\s+(?!or\b|and\b|because\b|since\b)[a-z]))(?![\w'\u2019])"
)
_LIST = re.compile(
    r"(?<![\w'\u2019])\(?[A-Za-z]\)?(?:[.]?\s*(?:,|;|/|&|\bor\b|\band\b|,\s*(?:or|and)\b|\n|\s)\s*"
    r"\(?[A-Za-z]\)?(?![\w'\u2019]))+"
)
_DENIED = (
    re.compile(
        r"(?i:\bnot|n't|\bnever|\bneither|\bnor|\bthan|\binstead\s+of|\bunlike|\bexcept|\bexcludes?"
        r"|\beliminates?|\brules?\s+out)\s+(?i:option\s+|choice\s+|letter\s+|answer\s+)?"
        r"[\"'*(]*[A-Za-z](?![\w'\u2019])[)\"'*]*"
    ),
    re.compile(
        r"(?<![\w'\u2019])[(\"'*]*[A-Za-z][)\"'*.]*\s+(?i:is|are|was|would\s+be)\s*"
        r"(?i:n't|not|wrong|incorrect|false|ruled\s+out|excluded|a\s+distractor)"
    ),
)
_DENYING = "not isn't aren't wasn't neither nor never no without unlike than except"
_NEGATIONS = frozenset(_DENYING.split())
_WRONG = frozenset(("wrong", "incorrect", "false", "excluded", "unlikely"))
_BE = frozenset(("is", "are", "was", "were"))
_SPACELESS = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff"
_BEFORE_NAME = "\u662f\u4e3a\u70ba\u306f\u5373\u9009\u9078"
_AFTER_NAME = "\u3067\u3059|\u3060|\u7684|\u3002"


def match_choice(answer: str | None, choices: Sequence[str]) -> str | None:
    """The one of `choices` that `answer` names; None when it names none or several, or is unclear.

    In this order: the choice as written, in other letters or by its value; its label ("(C)", "C.",
    "option C"), A being the first choice unless the choices are letters or carry their own; what
    a sentence states; the only choice whose words occur in the answer and are not denied there.
    """
    if answer is None or not choices:
        return None
    answer = content_of(answer)
    labels, texts = labelled(choices)
    pairs = list(zip(choices, texts, strict=True))
    if exact := [c for c in choices if c.strip() == answer]:
        return exact[0]
    if alike := _alike(answer, pairs):
        return alike[0] if len(alike) == 1 else None
    if named := named_labels(answer, labels if labels != texts else None):
        if len(named) > 1 or not named <= set(labels):
            return None
        chosen = choices[labels.index(next(iter(named)))]
        return None if _says_another(answer, chosen, pairs) else chosen
    if (stated := _stated(answer, pairs)) is not None:
        return stated
    mentioned = _mentioned(answer, texts)
    return choices[texts.index(mentioned.pop())] if len(mentioned) == 1 else None


def choice_error(answer: str | None, choices: Sequence[str]) -> str | None:
    """What is wrong with a row whose answer is none of its choices, in a line; None if nothing."""
    if answer is None or not choices or match_choice(answer, choices) is not None:
        return None
    some = ", ".join(repr(choice[:40]) for choice in choices[:6])
    more = ", ..." if len(choices) > 6 else ""
    return f"expected 'answer' to be one of the choices {some}{more}, found {answer[:60]!r}"


def letter_of(answer: str) -> str | None:
    """The letter an answer picks: "C", "(c)", "C. red", "option C", "it is C"; None if unclear."""
    letters = named_labels(answer, [chr(ord("A") + i) for i in range(26)])
    return letters.pop() if len(letters) == 1 else None


def labelled(choices: Sequence[str]) -> tuple[list[str], list[str]]:
    """Each choice's letter, and its text without it."""
    if all(len(c.strip()) == 1 and c.strip().isalpha() for c in choices):
        return [c.strip().upper() for c in choices], [c.strip().upper() for c in choices]
    labels = [match[1] for match in map(_LABEL.match, choices) if match]
    if len(labels) == len(choices) == len(set(labels)):
        return labels, [_LABEL.sub("", c, count=1) for c in choices]
    return [chr(ord("A") + i) for i in range(len(choices))], list(choices)


def named_labels(answer: str, labels: Sequence[str] | None) -> set[str]:
    """The labels that an answer names as capitals, but for those it denies.

    Args:
        labels: which there are; None where the choices are letters themselves, of which any that
            stands alone counts.
    """
    if whole := _WHOLE.fullmatch(answer):
        return {whole[1].upper()}
    for denied in _DENIED:
        answer = denied.sub(" ", answer)
    listed = _listed(answer, labels)
    if len(listed) > 1:
        return listed
    if declared := _DECLARED.match(answer):
        return {declared[1].upper()}
    found: set[str] = set()
    if start := _START.match(answer):
        found.add((start[1] or start[2] or start[3]).upper())
    for pattern in _NAMED:
        found |= {letter.upper() for letter in pattern.findall(answer)}
    if labels is None:
        found |= set(_ANY_LETTER.findall(answer))
    return found


def _listed(answer: str, labels: Sequence[str] | None) -> set[str]:
    """The labels of a list such as "A, B or C"."""
    known = set(labels) if labels is not None else None
    found: set[str] = set()
    for listed in _LIST.finditer(answer):
        letters = re.findall(r"(?<![\w'\u2019])[A-Za-z](?![\w'\u2019])", listed[0])
        upper = {letter.upper() for letter in letters}
        cased = all(letter.isupper() for letter in letters) or not re.search(r"\s[aI]\s", listed[0])
        if cased and len(upper) > 1 and (known is None or upper <= known):
            found |= upper
    return found


def _says_another(answer: str, chosen: str, pairs: Sequence[tuple[str, str]]) -> bool:
    """Whether the text behind a leading label is that of another choice: "B. red"."""
    rest = words_of(_LABEL.sub("", answer.strip(), count=1))
    texts = {words_of(text): choice for choice, text in pairs}
    return rest != words_of(answer) and texts.get(rest, chosen) != chosen


def _alike(answer: str, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """The choices that `answer` says as a whole, in other letters or, if none, by their value."""
    words = words_of(answer)
    written = _distinct(c for c, t in pairs if words and words in (words_of(t), words_of(c)))
    return written or _distinct(c for c, t in pairs if same_value(answer, t))


def _stated(answer: str, pairs: Sequence[tuple[str, str]]) -> str | None:
    """The only choice whose value a sentence states."""
    for rule in (same_predicate, same_stated, same_yes_no):
        found = _distinct(choice for choice, text in pairs if rule(answer, text))
        if len(found) == 1:
            return found[0]
    return None


def _distinct(found: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(found))


def _mentioned(answer: str, texts: Sequence[str]) -> set[str]:
    """The texts that occur in `answer` and are not denied there; of nested ones the longest."""
    words = words_of(answer)
    sized = ((words_of(t), t) for t in texts)
    longest_first = sorted((pair for pair in sized if pair[0]), key=lambda pair: -len(pair[0]))
    found: set[str] = set()
    at = 0
    while at < len(words):
        here = ((w, t) for w, t in longest_first if words[at : at + len(w)] == w)
        said, text = next(here, ((), ""))
        end = at + len(said)
        if said and not _denied(words, at, end) and _stands_alone(words, at, end, answer, text):
            found.add(text)
        at = end if said else at + 1
    return found


def _denied(words: Sequence[str], at: int, end: int) -> bool:
    before = set(words[max(at - 2, 0) : at])
    after = words[end : end + 3]
    wrong = bool(after) and after[0] in _BE and bool((_WRONG | _NEGATIONS) & set(after[1:]))
    return bool(_NEGATIONS & before) or wrong


def _stands_alone(words: Sequence[str], at: int, end: int, answer: str, text: str) -> bool:
    """Whether words from `at` to `end` are no part of a longer amount, formula or name."""
    if re.search(f"[{_SPACELESS}]", text):
        start = rf"(?:(?<![{_SPACELESS}])|(?<=[{_BEFORE_NAME}]))"
        stop = rf"(?:(?![{_SPACELESS}])|(?={_AFTER_NAME}))"
        return re.search(start + re.escape(text.strip()) + stop, answer) is not None
    beside = [*words[max(at - 1, 0) : at], *words[end : end + 1]]
    amount = any(word[-1:].isdigit() for word in words[at:end]) or quantity(text) is not None
    if any(not _is_plain(word, digits=not amount) for word in beside):
        return False
    near = {*words[max(at - 3, 0) : at], *words[end : end + 2]}
    return not (amount and CHANGING & near)


def _is_plain(word: str, *, digits: bool) -> bool:
    """Whether `word` is no symbol that would make what stands beside it another thing."""
    return word[0].isalpha() or word in "=:" or (digits and word.isdigit())
