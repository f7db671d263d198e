"""The matching rules of public harnesses under their own names, faults included."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_VSTAR = tuple(
    re.compile(pattern)
    for pattern in (
        r"^([A-D])\s*[.)\]]*",
        r"(?:ANSWER|CHOICE|OPTION)(?:\s+IS)?[\s:]+\(?([A-D])",
        r"\(([A-D])\)",
        r"([A-D])\s*[.)\]]",
        r"(?:^|\s)([A-D])(?:\s|$)",
    )
)


def lmms_vstar(text: str) -> str | None:
    """lmms-eval's letter for V*Bench. A reply that begins with a to d ("Based on") is that one."""
    text = text.strip().upper()
    found = (pattern.search(text) for pattern in _VSTAR)
    return next((match[1] for match in found if match), None)


def vlmeval_mcq(text: str, choices: Mapping[str, str]) -> str | None:
    """VLMEvalKit's `can_infer`: the key of `choices` (letter to text) that `text` means.

    "Z" is a refusal; None is where VLMEvalKit would ask a judge.
    """
    if any(refusal in text for refusal in _REFUSALS):
        return "Z"
    return _letter_near_the_end(text, choices) or _text_mentioned(text, choices)


def _letter_near_the_end(text: str, choices: Mapping[str, str]) -> str | None:
    words = re.sub(r"[.()\[\],:;!*#{}]", " ", text).split()
    found = [letter for letter in choices if letter in words]
    if len(found) == 1 and words.index(found[0]) > len(words) - 5:
        return found[0]
    if not found and "Z" in words:
        return "Z"
    said = re.search(r"(?i)(?:correct\s+)?answer\s+is\s+\**([A-Z])\**(?![a-z])", text)
    return said[1].upper() if said and said[1].upper() in choices else None


def _text_mentioned(text: str, choices: Mapping[str, str]) -> str | None:
    if len(text) > 2 * sum(len(choice) for choice in choices.values()):
        return None
    found = [letter for letter, choice in choices.items() if choice.lower() in text.lower()]
    return found[0] if len(found) == 1 else None


def relaxed_accuracy(prediction: str, target: str, *, tolerance: float = 0.05) -> bool:
    """ChartQA's relaxed correctness: floats within 5 % of the target, else the same words.

    A trailing % divides by 100. "1,234" and "$5" are no floats; a target of 0 is compared as text.
    """
    prediction = prediction.strip()
    said, right = _to_float(prediction), _to_float(target)
    if said is None or not right:
        return prediction.lower() == target.lower()
    return abs(said - right) / abs(right) <= tolerance


def _to_float(text: str) -> float | None:
    try:
        return float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def anls(prediction: str, targets: Sequence[str]) -> float:
    """DocVQA's similarity to the nearest target, in [0, 1]; 0 below one half.

    As in the harnesses, edits of the normalised strings are divided by the length of the raw ones.
    """
    scores = (1 - _distance(prediction, target) for target in targets)
    best = max(scores, default=0.0)
    return best if best >= 0.5 else 0.0


def _distance(prediction: str, target: str) -> float:
    a, b = (" ".join(text.strip().lower().split()) for text in (prediction, target))
    return _edits(a, b) / max(len(prediction), len(target), 1)


def _edits(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
    return row[-1]
