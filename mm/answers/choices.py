"""Which of several choices an answer names: one of them, or none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from .denials import clauses, denied, passed_over
from .extraction import content_of
from .labels import (
    LABEL,
    LONGEST,
    labelled,
    led_by,
    named_labels,
    numbers_of,
    only_label_number,
)
from .quantities import quantity
from .sentences import CHANGING, stated
from .text import words_of
from .values import (
    NO_ANSWER,
    YES_NO,
    is_unsure,
    same_predicate,
    same_stated,
    same_value,
    same_yes_no,
)

_JOINING = "+-/^%#@<>\u2264\u2265\u00b1\u221a~"
_SPACELESS = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff"
_BEFORE_NAME = "\u662f\u4e3a\u70ba\u306f\u5373\u9009\u9078"
_AFTER_NAME = "\u3067\u3059|\u3060|\u7684|\u3002"


def match_choice(answer: str | None, choices: Sequence[str]) -> str | None:
    """The one of `choices` that `answer` names; None when it names none or several, or is unclear.

    In this order: the choice as written, in other letters or by its value; its label ("(C)", "C.",
    "option C"), A being the first choice unless the choices are letters or carry their own; what
    a sentence states; the only choice whose words occur in the answer and are not denied there.
    Choices that carry numbers ("1. red") are named by these, too.
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
    if len(answer) > LONGEST:
        return None
    return _searched(answer, labels, pairs)


def _searched(answer: str, labels: Sequence[str], pairs: Sequence[tuple[str, str]]) -> str | None:
    """The choice that a label or the words of a short answer name."""
    choices, texts = [choice for choice, _ in pairs], dict(pairs)
    numbered = dict(zip(numbers_of(choices), choices, strict=False))
    label, rest = led_by(answer) or (only_label_number(answer), "")
    own = {**dict(zip(labels, choices, strict=True)), **numbered}.get(label or "")
    if own and rest and words_of(rest) == words_of(texts[own]):
        return own  # "C. Both A and B" names no other letters
    chosen = _numbered(answer, numbered, [*texts.values()]) or _named(answer, labels, pairs)
    return None if label in numbered and chosen != own else chosen


def _numbered(answer: str, numbered: Mapping[str, str], texts: Sequence[str]) -> str | None:
    """The choice that is named by the number which it carries, and that is no amount of one."""
    number = only_label_number(answer) if numbered else None
    bare = number is not None and words_of(answer) == words_of(number)
    counted = any(re.search(r"\d", text) or stated(text) for text in texts)
    return None if number is None or (bare and counted) else numbered.get(number)


def _named(answer: str, labels: Sequence[str], pairs: Sequence[tuple[str, str]]) -> str | None:
    """The choice that is named by its letter, its value in a sentence, or its words."""
    choices, texts = [choice for choice, _ in pairs], [text for _, text in pairs]
    if named := named_labels(answer, None if labels == texts else labels):
        if len(named) > 1 or not named <= set(labels):
            return None
        chosen = choices[labels.index(next(iter(named)))]
        return None if _says_another(answer, chosen, pairs) else chosen
    if (said := _stated(answer, pairs)) is not None:
        return said
    mentioned = _mentioned(answer, texts) if labels != texts else set()
    return choices[texts.index(mentioned.pop())] if len(mentioned) == 1 else None


def choice_error(answer: str | None, choices: Sequence[str]) -> str | None:
    """What is wrong with a row whose answer is none of its choices, in a line; None if nothing."""
    if answer is None or not choices or match_choice(answer, choices) is not None:
        return None
    some = ", ".join(repr(choice[:40]) for choice in choices[:6])
    more = ", ..." if len(choices) > 6 else ""
    return f"expected 'answer' to be one of the choices {some}{more}, found {answer[:60]!r}"


def _says_another(answer: str, chosen: str, pairs: Sequence[tuple[str, str]]) -> bool:
    """Whether the text behind a leading label is that of another choice: "B. red"."""
    rest = words_of(LABEL.sub("", answer.strip(), count=1))
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
    """The texts that occur in `answer` and are not denied there; of nested ones the longest.

    Those that are passed over for another name count only where there is none.
    """
    if any(words_of(t) in YES_NO for t in texts) and not any(map(NO_ANSWER.search, texts)):
        answer = NO_ANSWER.sub(" ", answer)
    words, clause = clauses(answer)
    if is_unsure(words):
        texts = [t for t in texts if words_of(t) not in YES_NO]
    sized = ((words_of(t), t) for t in texts)
    longest_first = sorted((pair for pair in sized if pair[0]), key=lambda pair: -len(pair[0]))
    found: set[str] = set()
    passed: set[str] = set()
    at = 0
    while at < len(words):
        here = ((w, t) for w, t in longest_first if (*words[at : at + len(w)],) == w)
        said, text = next(here, ((), ""))
        end = at + len(said)
        if said and not denied(words, clause, at, end) and _alone(words, at, end, answer, text):
            (passed if passed_over(words, clause, end) else found).add(text)
        at = end if said else at + 1
    return found or passed


def _alone(words: Sequence[str], at: int, end: int, answer: str, text: str) -> bool:
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
    return word[0] not in _JOINING and (digits or not word[-1].isdigit())
