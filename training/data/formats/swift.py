"""ms-swift's rows: `messages` with `<image>` in strings, and `rejected_response` or `_messages`."""

from __future__ import annotations

from .conversations import read_conversation
from .declaration import Fields, Native
from .messages import as_string


def read_swift(fields: Fields) -> Native:
    """`messages` whose strings are read for tags."""
    return read_conversation(fields, tags=True, front=True)


def write_swift(native: Native) -> Native:
    """A row with `messages`; of a pair they are the good side, which shares the prompt's images.

    Raises:
        ValueError: text holds what would be read as a tag.
    """
    found = dict(native)
    if "chosen" not in found:
        key = "messages" if "messages" in found else "prompt"
        return {**found, key: [_strings(each) for each in found[key]]}
    asked, good, bad = (found.pop(key) for key in ("prompt", "chosen", "rejected"))
    images, own, theirs = (
        found.pop(key, []) for key in ("images", "chosen_images", "rejected_images")
    )
    found["messages"] = [_strings(each) for each in (*asked, *good)]
    found["images"] = [*images, *own]
    found["rejected_messages"] = [_strings(each) for each in (*asked, *bad)]
    found["rejected_images"] = [*images, *theirs]
    return found


def _strings(said: Native) -> Native:
    loss = {"loss": False} if "loss" in said else {}
    return {"role": said["role"], "content": as_string(said), **loss}
