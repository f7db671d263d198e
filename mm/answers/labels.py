"""The letters by which an answer names choices: "(C)", "C. red", "option C", "A or B"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .text import words_of

LONGEST = 1000
"""Characters from which on an answer is compared as a whole, and not searched for what it names."""

LABEL = re.compile(r"\s*\(?([A-Za-z])[).:]\s*(?=\S)")
"""The label that a choice carries itself."""

_NUMBER = re.compile(r"\s*\(?(\d{1,2})[).:]\s+(?=\S)")
"""The number that a choice carries instead, where all of them count from 0 or 1."""

_MARKS = r"[\s:*_(]*"
_SAID = (
    rf"{_MARKS}(?:(?:(?:so|thus|therefore),?\s+)?(?:the\s+)?(?:(?:correct|final|right|best)\s+)?"
    rf"(?:answer|option|choice)(?:\s+is\b)?{_MARKS})?"
)
_LED = re.compile(rf"{_SAID}([A-Za-z]|\d{{1,2}})[).:*_]+\s*(\S.*)", re.IGNORECASE | re.DOTALL)
_NUMBERED = re.compile(
    rf"{_SAID}(?:(?:number\b|no\.){_MARKS})?(\d{{1,2}})[\s).:*_]*", re.IGNORECASE
)

_OPEN = r"[\s\"'*(`\[{_]*"
_CLOSE = r"[\s\"'*)`\]}_.,:;!?]*"
_NO_WORD = r"(?![\w'\u2019])"
_WHY = re.compile(  # a label, then why
    rf"{_OPEN}(?:(?:option|choice|letter)\s+{_OPEN})?([A-Za-z])[)\]}}*`\"'.:,;]*"
    r"\s+(?:because|since|as|for|due)\b",
    re.IGNORECASE,
)
_NOT = "n['\u2019]t"
_ITEM = "(?:\u9009?\u9879|\u9078?\u9805)"
_ASIAN = (  # what goes on behind a letter: "is" in Japanese and Korean, "item is right" in Chinese
    r"\u3067\u3059|\u3060(?=\W|$)|\u3067\u3057\u3087\u3046|\uc785\ub2c8\ub2e4|\uc774\ub2e4"
    rf"|\uc774\uc5d0\uc694|\uc608\uc694|{_ITEM}(?:(?:\u662f?\u6b63[\u786e\u78ba]\u7684?)(?=\W|$)"
    r"|(?=\s*(?:[.!\u3002\uff01]|$)))"
)
_ASIAN_NOT = (  # "not", "wrong", "exclude" in Chinese, but for "very" and "not wrong"
    "(?:[\u4e0d\u672a\u8bef\u8aa4]|\u975e(?!\u5e38)|(?<!\u6ca1)[\u9519\u932f]|\u6392\u9664)"
)
_ASIAN_NEAR = "[\u3040-\u7683\u7685-\u9fff]{0,4}"  # none of it "of": "the wrong one is A" names A
_FIRST = re.compile(rf"{_OPEN}([A-Za-z])(?:[.):](?!\w)|\*\*|[ \t]*(?:\n|$))")
_NAMED = (
    re.compile(r"(?<!\w)[(\[{]\s*([A-Za-z])\s*[)\]}](?!\w)"),
    re.compile(r"(?<!\w)\*\*\s*\(?([A-Za-z])[).:]?\s*\*\*"),
    re.compile(r"(?:^|\n)[ \t]*\(?([A-Z])[.):][ \t]"),
    re.compile(  # said to be it, and no article before a word
        r"\b(?i:option|choice|letter|answer|pick|choose|select|chose|be|is|it's|go\s+with)"
        r"(?:\s+is)?\s*(?::\s*)?[\"'*(`]*([A-Z])(?![\w'\u2019+\-=*/^]|[).:]?\s+[a-z])"
    ),
    re.compile(rf"\b(?i:option|choice|letter)\s+[\"'*(`]*([A-Z]){_NO_WORD}"),
    re.compile(r"\b(?i:option|choice|answer|letter)(?:\s+is)?:?\s+[\"'*(`]*([a-z])(?=\W*$|[).:])"),
    re.compile(r"\b(?i:pick|choose|select)\s+[\"'*(`]*([B-HJ-Z])(?![\w'\u2019])"),
    re.compile(rf"(?:^|[.,;:\n]\s*)[\"'*(`]*([A-Z]){_CLOSE}$"),
    re.compile(r"(?:^|\n)\W*([A-Za-z])\s+(?:is|seems)\s+(?:the\s+)?(?:correct|right|answer|best)"),
    re.compile(rf"^{_OPEN}([A-Z])[)\s]*(?:{_ASIAN})"),
    re.compile(  # chosen, or said to be it, in Chinese, Japanese or Korean; and no list follows
        r"(?:[\u9009\u9078\u662f\u306f\uc740\ub294]|(?<![\u56e0\u56fe\u5716])[\u4e3a\u70ba]"
        r"|\u9009[\u9879\u62e9]|\u9078[\u9805\u64c7])"
        r"[\s:\uff1a\"'*(\uff08]*([A-Z])"
        rf"(?=[)\uff09*]*\s*(?:{_ASIAN}|\u56e0|[.!;\u3002\uff01\uff1b]|[,\uff0c](?!\s*[A-Z])|\n|$))"
    ),
)
_ANY = re.compile(  # "A" and "I" are words before other words
    r"(?<![\w'\u2019.])(?:[B-HJ-Z]|[AI](?!\s+(?!or\b|and\b|because\b|since\b)[a-z]))(?![\w'\u2019])"
)
_LETTER = rf"(?<![\w'\u2019])\(?([A-Za-z])\)?{_NO_WORD}"
_LIST = re.compile(
    rf"{_LETTER}(?:[.]?\s*(?:,|;|/|&|\bor\b|\band\b|,\s*(?:or|and)\b|\s)\s*\(?[A-Za-z]\)?{_NO_WORD})+"
)
_MARKED = r"(?<![\w'\u2019])[(\"'*]{0,4}[A-Za-z]"
_FAILS = (
    rf"(?i:(?:do|does|did|ca|could|would|wo){_NOT}|cannot"
    r"|(?:can|do|does|did|could|would|will)\s+not)"
)
_DENIED = (
    re.compile(
        rf"(?i:\bnot|{_NOT}|\bnever|\bneither|\bnor|\bthan|\binstead\s+of|\bunlike|\bexcept"
        r"|\bexcludes?|\beliminates?|\brules?\s+out"
        r"|\bnicht|\bpas|\bno\s+es|\bnon\s+\u00e8|\bn\u00e3o\s+\u00e9)\s+(?i:option\s+|choice\s+|letter\s+)?"
        rf"[\"'*(]*[A-Za-z]{_NO_WORD}[)\"'*]*"
    ),
    re.compile(
        rf"(?i:{_NOT}|\bcannot|\bnot)\s+(?i:think|believe|say|pick|choose|be)\s+(?i:that\s+)?"
        r"(?i:it\s+is\s+|it's\s+|the\s+answer\s+is\s+)?(?i:option\s+)?"
        rf"[\"'*(]*[A-Z]{_NO_WORD}[)\"'*]*"
    ),
    re.compile(
        rf"{_MARKED}[)\"'*.]*\s+(?i:is|are|was|would\s+be)\s*"
        rf"(?i:{_NOT}|not|wrong|incorrect|false|ruled\s+out|excluded|a\s+distractor)"
    ),
    re.compile(
        rf"{_MARKED}[)\"'*]*\s+(?:{_FAILS}\s+(?:\w+ly\s+|quite\s+)?(?:fit|match|work|apply"
        r"|(?:be|look|seem)\s+(?:the\s+)?(?:right|correct|best|it|answer))"
        r"|(?:can|could|would|should|must|may)\s+be\s+(?:wrong|incorrect|false|excluded|eliminated"
        r"|ruled\s+out)|(?:seems?|looks?)\s+(?:wrong|incorrect|false|unlikely)"
        r"|(?:is|was)\s+(?:unlikely|eliminated))\b"
    ),
    re.compile(  # a letter or a list behind, then a letter before
        rf"{_ASIAN_NOT}{_ASIAN_NEAR}[\s:\uff1a\"'*(\uff08]*[A-Za-z]"
        r"(?:\s*[\u3001\u548c\u4e0e\u8207\u6216\u53ca/]\s*[A-Za-z])*(?![A-Za-z])"
    ),
    re.compile(rf"[A-Za-z][)\"'*\uff09]*\s*{_ITEM}{_ASIAN_NEAR}{_ASIAN_NOT}"),
)
_PASSED_OVER = re.compile(  # "A doesn't bark, so B": what it cannot do denies it if another follows
    rf"{_MARKED}[)\"'*]*\s+{_FAILS}(?!\s+be\s+(?:wrong|incorrect|false))\b"
    r"(?=.*[,;.!?]\s+(?i:so|thus|therefore|hence|leaving|the\s+(?:\w+\s+)?answer)\b)",
    re.DOTALL,
)


def labelled(choices: Sequence[str]) -> tuple[list[str], list[str]]:
    """Each choice's letter, and its text without it."""
    if all(len(c.strip()) == 1 and c.strip().isalpha() for c in choices):
        return [c.strip().upper() for c in choices], [c.strip().upper() for c in choices]
    labels = [match[1].upper() for match in map(LABEL.match, choices) if match]
    if len(labels) == len(choices) == len(set(labels)):
        return labels, [LABEL.sub("", c, count=1) for c in choices]
    if numbers_of(choices):
        choices = [_NUMBER.sub("", c, count=1) for c in choices]
    return [chr(ord("A") + i) for i in range(len(choices))], list(choices)


def numbers_of(choices: Sequence[str]) -> list[str]:
    """The numbers that choices carry as their labels, as "1." and "2."; none where they do not."""
    numbers = [match[1] for match in map(_NUMBER.match, choices) if match]
    counted = [[str(first + i) for i in range(len(choices))] for first in (0, 1)]
    return numbers if len(choices) > 1 and numbers in counted else []


def led_by(answer: str) -> tuple[str, str] | None:
    """The letter, as a capital, or the number before an answer's words, and those: "C. red"."""
    found = _LED.fullmatch(answer)
    return (found[1].upper(), found[2]) if found else None


def only_label_number(answer: str) -> str | None:
    """The number of a choice, where an answer says nothing else: "2", "Option 2"."""
    found = _NUMBERED.fullmatch(answer)
    return found[1] if found else None


def letter_of(answer: str) -> str | None:
    """The letter an answer picks: "C", "(c)", "C. red", "option C", "it is C"; None if unclear."""
    if len(answer) > LONGEST:
        return None
    letters = named_labels(answer, [chr(ord("A") + i) for i in range(26)])
    return letters.pop() if len(letters) == 1 else None


def is_letter(answer: str) -> bool:
    """Whether `answer` is a letter of the Latin alphabet and nothing but."""
    words = words_of(answer) if len(answer) < 40 else ()
    return len(words) == 1 and len(words[0]) == 1 and "a" <= words[0] <= "z"


def named_labels(answer: str, labels: Sequence[str] | None) -> set[str]:
    """The labels that an answer names, as capitals, but for those it denies.

    Args:
        labels: which there are; None where the choices are letters themselves, of which any that
            stands alone counts.
    """
    if is_letter(answer):
        return {words_of(answer)[0].upper()}
    for denied in _DENIED:
        answer = denied.sub(" ", answer)
    found = _found(left := _PASSED_OVER.sub(" ", answer), labels)
    return found if found or left == answer else _found(answer, labels)


def _found(answer: str, labels: Sequence[str] | None) -> set[str]:
    """The labels that an answer names, where what it denies is gone."""
    if len(listed := _listed(answer, labels)) > 1:
        return listed
    if reasoned := _WHY.match(answer):
        return {reasoned[1].upper()}
    patterns = (*_NAMED, _ANY) if labels is None else _NAMED
    found = {letter.upper() for pattern in patterns for letter in pattern.findall(answer)}
    first = _FIRST.match(answer)
    return found | {first[1].upper()} if first else found


def _listed(answer: str, labels: Sequence[str] | None) -> set[str]:
    """The labels of lists such as "A, B or C"; "B. a dog" is none."""
    found: set[str] = set()
    for listed in _LIST.finditer(answer):
        letters = re.findall(_LETTER, listed[0])
        upper = {letter.upper() for letter in letters}
        article = letters[-1] in "aI" and re.match(r"\s+[a-z]{2}", answer[listed.end() :])
        one_case = len({letter.isupper() for letter in letters}) == 1
        if one_case and not article and (labels is None or upper <= set(labels)):
            found |= upper
    return found
