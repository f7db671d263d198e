"""VideoRFT's rewards (arXiv 2505.12434, section 3.2): R = R_f + R_a + [R_a > 0] R_s.

The paper's rules are the default; `released=True` follows its code, whose quirks are told at each.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from mm.answers.extraction import content_of, extract_answer
from mm.answers.matching import judge
from mm.answers.rouge import rouge as alike
from mm.origins import FrameOf
from mm.types import Thinking
from video.context import apart
from video.siglip import load_siglip

from .terms import Attempt

log = logging.getLogger(__name__)

WEIGHT = 2.0
_SENTENCE = re.compile(r"[.!?](?=\s|$)")
_EPSILON = 1e-9


def typed_accuracy(attempt: Attempt, *, released: bool = False) -> float:
    """R_a by the item's own type, the row's `problem_type`.

    A row that says none is a choice where it has some, a number, or free text (ROUGE).
    """
    row = attempt.row
    if row.answer is None:
        return 0.0
    if row.problem_type:
        return _by_type(released)[row.problem_type](attempt)
    if row.choices:
        return choice(attempt, released=released)
    if _number(_right(attempt)) is not None:
        return numerical(attempt, released=released)
    return rouge(attempt)


def _by_type(released: bool) -> Mapping[str, Callable[[Attempt], float]]:
    return {
        "multiple choice": partial(choice, released=released),
        "numerical": partial(numerical, released=released),
        "OCR": transcription,
        "free-form": rouge,
        "regression": partial(regression, released=released),
    }


def choice(attempt: Attempt, *, released: bool = False) -> float:
    """1 for the right choice, by the judge of tables; released: for the same string alone."""
    answer, target = attempt.branch.answer, _right(attempt)
    if answer is None or attempt.row.answer is None:
        return 0.0
    if released:
        return float(answer.strip() == target)
    return float(judge(attempt.branch.text, target, choices=attempt.row.choices) is True)


def numerical(attempt: Attempt, *, released: bool = False) -> float:
    """1 for the same number, rounded to two decimals.

    Released: 0 where one side alone has a point or a comma, so that 3 is not 3.0.
    """
    said, right = attempt.branch.answer or "", _right(attempt)
    if released and any(c in said for c in ".,") != any(c in right for c in ".,"):
        return 0.0
    a, b = _number(said), _number(right)
    return float(a is not None and b is not None and round(a, 2) == round(b, 2))


def regression(attempt: Attempt, *, released: bool = False) -> float:
    """1 minus the relative error, down to 0; released: a right zero gets 0."""
    a, b = _number(attempt.branch.answer or ""), _number(_right(attempt))
    if a is None or b is None:
        return 0.0
    if a == b and not released:
        return 1.0
    return 1 - min(1.0, (abs(a - b) + _EPSILON) / (abs(b) + _EPSILON))


def transcription(attempt: Attempt) -> float:
    """1 minus the word error rate, down to 0."""
    said = (attempt.branch.answer or "").split()
    right = _right(attempt).split()
    if not right:
        return float(not said)
    return min(max(1 - _distance(said, right) / len(right), 0.0), 1.0)


def rouge(attempt: Attempt) -> float:
    """How like the right answer it is, by `mm.answers.rouge`."""
    return alike(attempt.branch.answer or "", _right(attempt))


def consistency(
    attempt: Attempt, *, siglip: str, weight: float = WEIGHT, released: bool = False
) -> float:
    """R_s: how well what the thought describes fits the frames, from 0 to 1.

    min(1, w max(cos(t, v), 0)), where t is the text after the thought's first sentence, of which
    SigLIP reads 64 tokens, and v the mean of the frames' embeddings. Released: the mean of that
    over the frames, and a sentence that ends at the first point, "0.5" included. Frames are 8-bit
    images: the released code is likely to have shown negatives.

    Args:
        siglip: a checkpoint's folder or hub id.
    """
    text, frames = described(attempt, released=released), _frames(attempt)
    if not text or not frames:
        log.debug("%s: nothing described, or no frame: no consistency", attempt.row.id)
        return 0.0
    model = load_siglip(siglip)
    words, seen = model.texts([text])[0], model.images(frames)
    if released:
        return float((weight * (seen @ words).clamp(min=0)).clamp(max=1).mean())
    mean = seen.mean(0)
    cosine = float(mean @ words / mean.norm().clamp(min=1e-12))
    return min(1.0, weight * max(cosine, 0.0))


def described(attempt: Attempt, *, released: bool = False) -> str:
    """What the thought says after its first sentence; all of it where it has but one."""
    parts = [p for step in attempt.branch.steps if step.sampled for p in step.message.parts]
    thought = " ".join(p.text for p in parts if isinstance(p, Thinking)).strip()
    thought = thought or attempt.written.strip()
    if released:
        _, point, rest = thought.partition(".")
        return rest.lstrip() if point else thought
    end = _SENTENCE.search(thought)
    rest = thought[end.end() :].strip() if end else ""
    return rest or thought


def _frames(attempt: Attempt) -> list:
    """The question's frames; of a question about images, those."""
    images = attempt.branch.sample.images
    shown = [image for image in images if isinstance(image.origin, FrameOf)]
    frames = [frame.pixels for image in shown for frame in apart(image)]
    return frames or [image.pixels for image in images]


def _right(attempt: Attempt) -> str:
    """What is right, without the tags that VideoRFT's own rows have around it; "" for nothing."""
    return content_of(attempt.row.answer or "")


def _number(text: str) -> float | None:
    try:
        value = float((extract_answer(text) or text).replace(",", "").strip())
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _distance(a: Sequence[str], b: Sequence[str]) -> int:
    """How many words must be put in, taken out or changed (Levenshtein)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]
