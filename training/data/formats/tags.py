"""Tags in text: `<image>` and Qwen's `<img>path</img>` stand for images, `<video>` for a clip;
others are refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

Part = dict[str, Any]
Message = dict[str, Any]

IMAGE_TAG, CLIP_TAG = "<image>", "<video>"
_TAGS = {"image": IMAGE_TAG, "video": CLIP_TAG}
_SHOWN = re.compile(r"(?:<image>|(?P<clip><video>)|<img>(?P<path>[^<>]+)</img>)\n?")
_REFUSED = (
    (
        r"<audio>|<\|(?:video_pad|audio|video)\|>",
        "write <video> where a clip belongs, sound is not read",
    ),
    (
        r"<image[_ -]?\d+>|<image_placeholder>|<ImageHere>|<IMG_CONTEXT>"
        r"|<\|(?:image|image_\d+|image_pad|vision_start)\|>",
        "write <image> where an image belongs",
    ),
    (
        r"<\|(?:box_start|object_ref_start|quad_start)\|>",
        "it is no token of this model: give boxes in 'objects' and write <bbox>, <ref-object>",
    ),
)
_ANY = re.compile("|".join([_SHOWN.pattern, *(pattern for pattern, _ in _REFUSED)]))


def has_tags(text: str) -> bool:
    """Whether `text` holds a tag of any kind that another toolkit reads."""
    return _ANY.search(text) is not None


def tagged(text: str) -> list[Part]:
    """The parts of `text`: text, and an image or a clip for each tag with the line break behind it.

    Raises:
        ValueError: it holds a tag that stands for something that is not read.
    """
    for pattern, reason in _REFUSED:
        if found := re.search(pattern, text):
            raise ValueError(f"tag {found[0]!r} in text: {reason}")
    parts: list[Part] = []
    at = 0
    for tag in _SHOWN.finditer(text):
        parts += text_parts(text[at : tag.start()])
        kind = "video" if tag["clip"] else "image"
        parts.append({"type": kind, **({"image": tag["path"]} if tag["path"] else {})})
        at = tag.end()
    return [*parts, *text_parts(text[at:])]


def tags_in_parts(messages: Sequence[Message], tag: str, what: str, count: int) -> list[Message]:
    """`messages` with each `tag` in text parts read as one, where a column gives `count` of `what`
    and no part shows any; the tags of a reply stay text where nobody else writes any.

    Raises:
        ValueError: there are tags, and not as many.
    """
    asked = [m for m in messages if m["role"] != "assistant"]
    if not count or not _tags(asked, tag):
        return list(messages)
    if (found := _tags(messages, tag)) != count:
        raise ValueError(f"expected {found} {what}, as many as {tag} in text, found {count}")
    return [{**m, "content": _split(m["content"], tag)} for m in messages]


def _tags(messages: Sequence[Message], tag: str) -> int:
    return sum(part.get("text", "").count(tag) for m in messages for part in m["content"])


def _split(parts: Sequence[Part], tag: str) -> list[Part]:
    """`parts`, those whose text holds `tag` read for tags."""
    read = (tagged(part["text"]) if tag in part.get("text", "") else [part] for part in parts)
    return [each for some in read for each in some]


def text_parts(text: str) -> list[Part]:
    """`text` as parts, of which there is none where it is empty."""
    return [{"type": "text", "text": text}] if text else []


def untagged(parts: Sequence[Part]) -> str:
    """Parts as one string, images and clips as tags; `tagged` reads it back.

    Raises:
        ValueError: the text holds what would be read as a tag.
    """
    out = ""
    for part in parts:
        if part["type"] in _TAGS:
            out += _TAGS[part["type"]]
            continue
        text = part["text"]
        if has_tags(text):
            raise ValueError(f"text holds a tag, which would be read as one: {text[:60]!r}")
        swallowed = out.endswith(tuple(_TAGS.values())) and text.startswith("\n")
        out += "\n" + text if swallowed else text
    return out
