"""Rows of a question and its answer: our short form, Alpaca's, verl's and EasyR1's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.data.readers import brief

from .conversations import read_conversation
from .declaration import Fields, Native, clips_of, images_of, is_empty
from .tags import CLIP_TAG, IMAGE_TAG

_TRUTHS = ("answer", "solution", "ground_truth")


def read_short(fields: Fields) -> Native:
    """An image or several, or a clip, a question, and an answer or a good and a bad one."""
    if not (images_of(fields) or clips_of(fields)):
        raise ValueError(f"expected the path of an image, found {brief(fields.get('image'))}")
    asked = text_in(fields, "question")
    rest = {k: v for k, v in fields.items() if k != "question"}
    if "chosen" in fields or "rejected" in fields:
        made = {**rest, "prompt": asked}
    else:
        reply = {"role": "assistant", "content": text_in(fields, "answer")}
        made = {**rest, "messages": [{"role": "user", "content": asked}, reply]}
    tags = IMAGE_TAG in asked or (CLIP_TAG in asked and bool(clips_of(fields)))
    return read_conversation(made, tags=tags, front=True)


def read_alpaca(fields: Fields) -> Native:
    """`instruction`, `input`, `output`, or ms-swift's `query`, `response`, after `history`."""
    asked = [
        text_in(fields, key)
        for key in ("instruction", "query", "input")
        if not is_empty(fields.get(key))
    ]
    said = [turn for pair in _history(fields) for turn in pair]
    said.append({"role": "user", "content": "\n".join(asked)})
    for key in ("output", "response"):
        if not is_empty(fields.get(key)):
            said.append({"role": "assistant", "content": text_in(fields, key)})
    own = ("instruction", "query", "input", "output", "response", "history")
    rest = {k: v for k, v in fields.items() if k not in own}
    key = "prompt" if "chosen" in fields or "rejected" in fields else "messages"
    return read_conversation({**rest, key: said}, tags=True, front=True)


def read_verl(fields: Fields) -> Native:
    """verl's and EasyR1's: `prompt` or `problem`, `images` and a ground truth, for rewards."""
    if not (is_empty(fields.get("prompt")) or is_empty(fields.get("problem"))):
        raise ValueError("expected 'prompt' or 'problem', found both: --ignore one of them")
    prompt = fields.get("prompt") or fields.get("problem")
    own = ("problem", "reward_model", *_TRUTHS, "data_source")
    rest = {k: v for k, v in fields.items() if k not in own}
    truth = _truth(fields)
    made = {**rest, "prompt": prompt, **({} if truth is None else {"answer": truth})}
    if source := fields.get("data_source"):
        made["source"] = source
    return read_conversation(made, tags=True, front=True)


def text_in(fields: Fields, key: str) -> str:
    """The text, or the number, in column `key`.

    Raises:
        ValueError: there are none.
    """
    value = fields.get(key)
    known = isinstance(value, str | int | float) and not isinstance(value, bool)
    if not known or not str(value).strip():
        raise ValueError(f"expected text in {key!r}, found {brief(value)}")
    return str(value).strip()


def _truth(fields: Fields) -> Any:
    """What the row says is right; a list of one is that one.

    Raises:
        ValueError: it says several things.
    """
    model = fields.get("reward_model")
    said = {key: fields.get(key) for key in _TRUTHS}
    said["reward_model"] = model.get("ground_truth") if isinstance(model, Mapping) else None
    found = [(k, v[0] if isinstance(v, list) and len(v) == 1 else v) for k, v in said.items()]
    found = [(key, value) for key, value in found if not is_empty(value)]
    if any(value != found[0][1] for _, value in found):
        raise ValueError(f"expected one answer, found {' and '.join(k for k, _ in found)}")
    return found[0][1] if found else None


def _history(fields: Fields) -> list[list[Native]]:
    turns = fields.get("history") or []
    if not isinstance(turns, list) or not all(isinstance(t, list) and len(t) == 2 for t in turns):
        raise ValueError(f"expected pairs of texts in 'history', found {brief(turns)}")
    return [
        [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        for asked, said in turns
    ]
