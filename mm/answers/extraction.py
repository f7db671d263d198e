"""What a reply answers and what a person is shown of it; how a reply that was cut off answers."""

from __future__ import annotations

import re

SHORT_WORDS = 40
"""A reply of at most this many words is its own answer when it marks none; a longer one is not."""

THOUGHT_END = "</think>"
ANSWER_START = "<answer>"

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_ANSWER_WORDS = (  # followed by a colon, or by a word for "is" or "choose"
    "\u7b54\u6848|\u7b54\u3048|\u89e3\u7b54|\uc815\ub2f5|\ub2f5|\u043e\u0442\u0432\u0435\u0442|respuesta"
    "|r\u00e9ponse|antwort|resposta|risposta|\u0909\u0924\u094d\u0924\u0930"
    "|\u0627\u0644\u062c\u0648\u0627\u0628|\u0627\u0644\u0625\u062c\u0627\u0628\u0629"
)
_MARK = re.compile(
    r"<answer>(?P<tagged>.*?)(?:</answer>|\Z)"
    r"|<\|begin_of_box\|>(?P<glm>.*?)(?:<\|end_of_box\|>|\Z)"
    r"|\[\[\s*(?P<double>[A-Za-z])\s*\]\]"
    r"|(?P<boxed>\\(?:boxed|fbox)\s*\{)"
    r"|(?:^|\n)####[ \t]*(?P<hashed>[^\n]+)"
    r"|\banswer\b(?:\s+to\s+\w+\s+question)?[*_]*(?:\s*:|\s+is\b:?)[*_]*"
    rf"|(?:{_ANSWER_WORDS})[*_]*\s*(?:[:\uff1a\u662f\u4e3a\u70ba\u306f\uc740\ub294]"
    r"|[\u9009\u9078][\u62e9\u64c7]?(?![\u9879\u9805])|(?:ist|es|est|\u00e9|\u00e8)\b:?)[*_]*"
    r"|\u6545[\u9009\u9078][:\uff1a]?",
    re.DOTALL | re.IGNORECASE,
)
_OF_THE_ANSWER = re.compile(
    r"\s*(?:(?:also|only|clearly|therefore|thus)\s+)?(?:approximate|based|because|clear|consistent"
    r"|correct|derived|found|given|incorrect|obtained|obvious|right|supported|unclear|wrong"
    r"|falsch|klar|korrekt|richtig|unklar|(?:in)?corr?ect[aeo]|correcta|errad[ao])\b",
    re.IGNORECASE,
)
"""What prose goes on with behind "the answer is" where it speaks of the answer, and gives none."""
_LEAD = re.compile(r"(?:\b(?:so|thus|therefore|the|my|final|correct)\b[\W_]*)+\Z", re.IGNORECASE)
_WRITTEN_OUT = re.compile(r"\s*\\(?:text|mathrm|textbf)\s*\{([^{}]*)\}\s*")
_ALL_WRITTEN_OUT = re.compile(rf"(\$?){_WRITTEN_OUT.pattern}\1\.?\s*")
_CLOSING_TAGS = re.compile(r"<answer>((?:(?!</?answer>).)*?)(?:</answer>)?\s*\Z", re.DOTALL)
_OPENING_TAGS = re.compile(r"(?:<answer>\s*+)++")
_BOX_MARKS = re.compile(r"<\|(?:begin|end)_of_box\|>")
_SAID_FIRST = re.compile(
    r"\s*(?:the\s+)?(?:final\s+|correct\s+)?answer(?:\s*:|\s+is\b)", re.IGNORECASE
)
_SPACELESS = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]")

_SHORTENED_WORDS = """
    st dr mr mrs ms mt ft jr sr prof gen col capt lt sgt rev hon pres gov sen rep no nos vs etc
    approx ca jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri sat
    sun ave blvd rd inc ltd co corp bros fig eq vol ed al
"""
_SHORTENED = frozenset(_SHORTENED_WORDS.split())
"""Words that a full stop shortens, so that it ends no sentence before a capital."""

_STOP = re.compile(r"(?<=\w{2})[.!?](?=\s+[A-Z]|\s*$)|[.!?](?=\s*$)|[\u3002\uff01\uff1f]")


def extract_answer(text: str) -> str | None:
    """The answer that `text` gives, for grading; None when it gives none.

    Thinking is left out. The last mark wins: `<answer>`, `\\boxed{}`, GLM's box tokens, `[[B]]`,
    "answer:" up to the end of the sentence, and its word in other languages; where nothing encloses
    the answer, also "answer is", and "####" in the last line. A mark that the token limit cut off
    is read as far as it goes. Without one the whole text is the answer if it has at most
    `SHORT_WORDS` words.
    """
    text = spoken(text)
    mark = _last_mark(text)
    if mark is None:
        return text.strip() or None if is_short(text) else None
    return _marked(text, mark)


def marked_answer(text: str) -> str | None:
    """The answer that `text` marks by tags, a box or "####"; None where it marks none so."""
    text = spoken(text)
    mark = _last_mark(text)
    return _marked(text, mark) if mark and mark.lastgroup else None


def content_of(text: str) -> str:
    """`text` itself, or what it marks as its answer: a target written `<answer>B</answer>`."""
    marked = marked_answer(text)
    if marked is None and _SAID_FIRST.match(text):
        marked = extract_answer(text)
    content = text.strip() if marked is None else marked
    whole = _ALL_WRITTEN_OUT.fullmatch(content)
    return whole[2].strip() if whole else content


def before_answer(text: str) -> str:
    """The words of `text` before the last mark of an answer, thinking left out.

    Without a mark they are "" where the whole text is the answer, else all of it.
    """
    text = spoken(text)
    if mark := _last_mark(text):
        before = text[: mark.start()]
        return (before[:-200] + _LEAD.sub("", before[-200:])).strip()
    return text.strip() if extract_answer(text) is None else ""


def spoken(text: str) -> str:
    """`text` without what was thought between <think> and </think>, opened here or before."""
    text = _THOUGHT.sub("", text)
    return text.rpartition(THOUGHT_END)[2]


def shown_reply(text: str) -> str:
    """What a person is shown of a reply: all of it but its thinking and the tags of its answer.

    Unlike `extract_answer` nothing else is dropped, however long the reply is; "" where there is
    nothing besides a thought.
    """
    text = spoken(text)
    if closing := _CLOSING_TAGS.search(text):
        opened = (tags.span() for tags in _OPENING_TAGS.finditer(text))
        begins = next(start for start, end in opened if end > closing.start())
        text = text[:begins] + closing[1]
    return _BOX_MARKS.sub("", text).strip()


def answer_opening(text: str, *, thinking: bool = False) -> str:
    """What to append to `text`, a reply that was cut off, so that an answer follows.

    Closes an open thought and opens the answer (forced answer, GLM-4.1V-Thinking, 2507.01006);
    "" where the answer is open already, or given.

    Args:
        thinking: the reply began inside a thought, which the chat template had opened.
    """
    opened = text.rfind("<think>") if "<think>" in text else (0 if thinking else -1)
    closed = text.rfind(THOUGHT_END)
    if opened > closed or (opened == 0 and closed < 0):
        return f"\n{THOUGHT_END}\n{ANSWER_START}"
    after = text[closed + len(THOUGHT_END) :] if closed >= 0 else text
    if ANSWER_START in after:
        return ""
    return ANSWER_START if not text or text.endswith("\n") else f"\n{ANSWER_START}"


def is_short(text: str) -> bool:
    """Whether `text` has at most `SHORT_WORDS` words; two characters are one without spaces."""
    return len(text.split()) + len(_SPACELESS.findall(text)) // 2 <= SHORT_WORDS


def is_shortened(text: str, at: int) -> bool:
    """Whether the full stop of `text` at `at` shortens a word, so that it ends no sentence."""
    word = re.search(r"[^\W\d_]*\Z", text[max(at - 20, 0) : at])
    return word is not None and word[0].casefold() in _SHORTENED


def _last_mark(text: str) -> re.Match[str] | None:
    """The mark that tells the answer: words that happen to be one, behind it, do not replace it."""
    marks = [m for m in _MARK.finditer(text) if m["hashed"] is None or not text[m.end() :].strip()]
    if any(map(_encloses, marks)):
        marks = [mark for mark in marks if _encloses(mark) or mark[0].rstrip("*_")[-1] in ":\uff1a"]
    given = [mark for mark in marks if not _OF_THE_ANSWER.match(text, mark.end())]
    return next((found[-1] for found in (given, marks) if found), None)


def _encloses(mark: re.Match[str]) -> bool:
    return mark.lastgroup not in (None, "hashed")


def _marked(text: str, mark: re.Match[str]) -> str | None:
    if mark["tagged"] is not None:
        tagged = mark["tagged"].rpartition(ANSWER_START)[2]
        inner = _last_mark(tagged)  # a mark inside the tags says it more exactly
        return _marked(tagged, inner) if inner else _trim(tagged)
    if mark["boxed"]:
        return _trim(_in_braces(text[mark.end() :]))
    said = mark["glm"] or mark["double"] or mark["hashed"]
    return _trim(said if said is not None else _sentence(_before_prose(text[mark.end() :])))


def _before_prose(text: str) -> str:
    """`text`, which follows a mark, up to the sentence that has another."""
    mark = _MARK.search(text)
    if mark is None:
        return text
    before, stop, _ = text[: mark.start()].rpartition(".")
    return before if stop else text[: mark.start()]


def _trim(text: str) -> str | None:
    return text.strip().strip('*_`"').strip() or None


def _sentence(text: str) -> str:
    """Up to the first line break or full stop that ends a sentence, without the stop."""
    first = text.lstrip("*_ \n\t").partition("\n")[0]
    for stop in _STOP.finditer(first):
        last = not first[stop.end() :].strip()
        if last or not is_shortened(first, stop.start()):
            return first[: stop.start()]
    return first


def _in_braces(text: str) -> str:
    """Up to the brace that closes one opened before `text`, or to the end; `\\text{}` taken off."""
    depth = 1
    for at, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if not depth:
            text = text[:at]
            break
    whole = _WRITTEN_OUT.fullmatch(text)
    return whole[1] if whole else text
