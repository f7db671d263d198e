"""LLaVA's and LLaMA-Factory's rows: `conversations` of `from` and `value`."""

from __future__ import annotations

from .conversations import read_conversation
from .declaration import Fields, Native, is_empty, list_in
from .messages import as_string

NAMES = {"user": "human", "assistant": "gpt", "tool": "observation", "system": "system"}


def read_sharegpt(fields: Fields) -> Native:
    """`conversations`, and where they end with a question `chosen` and `rejected` replies."""
    said = list_in(fields, "conversations")
    rest = {key: value for key, value in fields.items() if key != "conversations"}
    found = read_conversation({**rest, "messages": said}, tags=True, front=False)
    if "chosen" in found and found["prompt"] and found["prompt"][-1]["role"] == "assistant":
        raise ValueError("expected 'conversations' that end with a question, found a reply there")
    return found


def write_sharegpt(native: Native) -> Native:
    """A row with `conversations`; a pair's sides are one reply each.

    Raises:
        ValueError: a side has several messages, or images of its own.
    """
    found = dict(native)
    said = [*found.pop("messages", ()), *found.pop("prompt", ())]
    found["conversations"] = [_turn(each) for each in said]
    for side in ("chosen", "rejected"):
        if side not in found:
            continue
        if len(found[side]) != 1 or not is_empty(found.pop(f"{side}_images", None)):
            raise ValueError(f"expected one reply without images in {side!r}: write it as swift")
        found[side] = _turn(found[side][0])
    return found


def _turn(said: Native) -> Native:
    loss = {"loss": False} if "loss" in said else {}
    return {"from": NAMES[said["role"]], "value": as_string(said), **loss}
