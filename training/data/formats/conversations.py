"""Rows of messages: whole conversations, prompts with completions, and pairs.

OpenAI's, TRL's and ms-swift's rows differ in where images stand: in parts, or as tags in strings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mm.types import Role

from .declaration import PAIRED, Fields, Native, images_of, is_empty, kept, many
from .messages import holes, lifted, messages_in, system_in
from .tags import IMAGE_TAG, tags_in_parts

_SIDES = ("chosen", "rejected")
_SPEAKERS: Mapping[str, Role] = {
    "messages": "user",
    "prompt": "user",
    "completion": "assistant",
    "chosen": "assistant",
    "rejected": "assistant",
}
"""Who says what a column holds, where that is a string."""


def read_conversation(fields: Fields, *, tags: bool, front: bool) -> Native:
    """A row with `messages`, or `prompt` and what follows it.

    Args:
        tags: strings are read for tags.
        front: where no message shows an image, all stand before the first user text, as TRL
            and ms-swift put them.

    Raises:
        ValueError: columns contradict each other, or something would be lost.
    """
    said = {
        key: messages_in(fields, key, tags=tags, speaker=speaker) if key in fields else []
        for key, speaker in _SPEAKERS.items()
    }
    if any(key in fields for key in _SIDES):
        return _pair(fields, said, front)
    if extra := [k for k in PAIRED if k in fields and not is_empty(fields[k])]:
        if {"rejected_response", "rejected_messages"} & set(extra):
            return _swift_pair(fields, said["messages"], tags, front)
        raise ValueError(f"expected 'chosen' and 'rejected' beside {extra[0]!r}, found no pair")
    if said["prompt"] and said["messages"]:
        raise ValueError("expected 'messages' or 'prompt', found both: --ignore one of them")
    if said["completion"]:
        if not said["prompt"]:
            raise ValueError("expected a 'prompt' before 'completion', found none")
        untrained = [{**m, "loss": False} if _replies(m) else m for m in said["prompt"]]
        return _whole(fields, "messages", [*untrained, *said["completion"]], front)
    key = "messages" if "messages" in fields else "prompt"
    return _whole(fields, key, said[key], front)


def _whole(fields: Fields, key: str, messages: list[Native], front: bool) -> Native:
    messages = [*system_in(fields, messages), *messages]
    images = images_of(fields)
    messages = _in_front(messages, images) if front else messages
    return {**kept(fields), key: messages, "images": lifted(messages, images, "images")}


def _pair(fields: Fields, said: dict[str, list[Native]], front: bool) -> Native:
    if not (said["chosen"] and said["rejected"]):
        raise ValueError("expected both 'chosen' and 'rejected', found one of them")
    if extra := [k for k in ("rejected_response", "rejected_messages") if fields.get(k)]:
        raise ValueError(f"expected one rejected side, found 'rejected' and {extra[0]!r}")
    if said["completion"]:
        raise ValueError("expected 'chosen' and 'rejected', found 'completion' beside them")
    asked, good, bad = said["prompt"], said["chosen"], said["rejected"]
    if not asked and not said["messages"]:
        asked = _common(good, bad)
    asked = asked or said["messages"]
    good, bad = (_continued(side, asked) for side in (good, bad))
    said_again = (asked, [*asked, *good], [*asked, *bad])
    if said["prompt"] and said["messages"] and said["messages"] not in said_again:
        raise ValueError("expected 'messages' or 'prompt', found both: --ignore one of them")
    asked = [*system_in(fields, asked), *asked]
    images = images_of(fields)
    asked = _in_front(asked, images) if front and not holes([*good, *bad]) else asked
    own = {side: many(fields.get(f"{side}_images")) for side in _SIDES}
    return _sided(fields, asked, (good, bad), images, own["chosen"], own["rejected"])


def _swift_pair(fields: Fields, messages: list[Native], tags: bool, front: bool) -> Native:
    """ms-swift's: the good side is in `messages`, whose images the bad side has too."""
    given = [k for k in ("rejected_response", "rejected_messages") if not is_empty(fields.get(k))]
    if len(given) > 1:
        raise ValueError("expected 'rejected_response' or 'rejected_messages', found both")
    bad = messages_in(fields, given[0], tags=tags, speaker="assistant")
    if given == ["rejected_messages"]:
        at = len(_common(messages, bad))
    else:
        at = _last_reply(messages, alone=isinstance(fields[given[0]], str))
    asked, good = messages[:at], messages[at:]
    if not good:
        raise ValueError(f"expected a good reply in 'messages' beside {given[0]!r}, found none")
    bad = _continued(bad, asked)
    asked = [*system_in(fields, asked), *asked]
    images, own, theirs = (
        images_of(fields),
        many(fields.get("chosen_images")),
        many(fields.get("rejected_images")),
    )
    asked = _in_front(asked, images) if front and not holes([*good, *bad]) else asked
    held = holes(asked)
    theirs = theirs or (images if holes(bad) else images[:held])
    if theirs[:held] != images[:held]:
        raise ValueError("expected 'rejected_images' to begin with the prompt's, found others")
    if not own:
        images, own = images[:held], images[held:]
    return _sided(fields, asked, (good, bad), images, own, theirs[held:])


def _sided(
    fields: Fields,
    asked: list[Native],
    sides: tuple[list[Native], list[Native]],
    images: list[Any],
    chosen_images: list[Any],
    rejected_images: list[Any],
) -> Native:
    if any("loss" in m for side in sides for m in side):
        raise ValueError("expected both sides to train whole, found a message with 'loss' 0")
    if not any(m["role"] == "user" for m in asked):
        raise ValueError("expected a question before both sides, found none: give a 'prompt'")
    good, bad = sides
    return {
        **kept(fields),
        "prompt": asked,
        "chosen": good,
        "rejected": bad,
        "images": lifted(asked, images, "images"),
        "chosen_images": lifted(good, chosen_images, "chosen_images"),
        "rejected_images": lifted(bad, rejected_images, "rejected_images"),
    }


def _continued(side: Sequence[Native], asked: Sequence[Native]) -> list[Native]:
    """`side` without the prompt, where it repeats it.

    Raises:
        ValueError: nothing is left of it, or it begins with another question.
    """
    repeats = list(side[: len(asked)]) == list(asked)
    left = list(side[len(asked) :]) if repeats else list(side)
    if not left:
        raise ValueError("expected a reply behind the prompt in each side, found none")
    if left[0]["role"] in ("user", "system") and (not asked or asked[-1]["role"] != "assistant"):
        raise ValueError(f"expected a side that goes on from the prompt, found {left[0]['role']!r}")
    return left


def _common(good: Sequence[Native], bad: Sequence[Native]) -> list[Native]:
    """The prompt that both sides begin with, up to the first reply that differs."""
    at = 0
    while at < min(len(good), len(bad)) - 1 and good[at] == bad[at]:
        at += 1
    while at and not (_replies(good[at]) and _replies(bad[at])):
        at -= 1
    return list(good[:at])


def _in_front(messages: list[Native], images: list[Any]) -> list[Native]:
    """`messages` with all `images` before the first user text, where none shows any, and no text
    says by tags where they belong."""
    at = next((i for i, m in enumerate(messages) if m["role"] == "user"), None)
    if at is None or not images or holes(messages):
        return messages
    messages = tags_in_parts(messages, IMAGE_TAG, "images", len(images))
    if holes(messages):
        return messages
    shown = [{"type": "image"} for _ in images]
    first = {**messages[at], "content": [*shown, *messages[at]["content"]]}
    return [*messages[:at], first, *messages[at + 1 :]]


def _replies(said: Native) -> bool:
    return said["role"] == "assistant"


def _last_reply(messages: Sequence[Native], *, alone: bool) -> int:
    """Where the last message of the assistant is, or with it the turn that ends in it begins."""
    at = len(messages)
    while at and not _replies(messages[at - 1]):
        at -= 1
    if alone or not at:
        return at - 1 if at else len(messages)
    while at and messages[at - 1]["role"] != "user":
        at -= 1
    return at
