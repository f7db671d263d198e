"""Tags in text: `<image>` and Qwen's `<img>path</img>` stand for images, others are refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

Part = dict[str, Any]

IMAGE_TAG = "<image>"
_IMAGE = re.compile(r"(?:<image>|<img>(?P<path>[^<>]+)</img>)\n?")
_REFUSED = (
    (
        r"<(?:video|audio)>|<\|(?:video_pad|audio|video)\|>",
        "clips are named in the column 'video', of which there is none",
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
_ANY = re.compile("|".join([_IMAGE.pattern, *(pattern for pattern, _ in _REFUSED)]))


def has_tags(text: str) -> bool:
    """Whether `text` holds a tag of any kind that another toolkit reads."""
    return _ANY.search(text) is not None


def tagged(text: str) -> list[Part]:
    """The parts of `text`: text, and an image for each tag with the line break behind it.

    Raises:
        ValueError: it holds a tag that stands for something that is not read.
    """
    for pattern, reason in _REFUSED:
        if found := re.search(pattern, text):
            raise ValueError(f"tag {found[0]!r} in text: {reason}")
    parts: list[Part] = []
    at = 0
    for tag in _IMAGE.finditer(text):
        parts += text_parts(text[at : tag.start()])
        parts.append({"type": "image", **({"image": tag["path"]} if tag["path"] else {})})
        at = tag.end()
    return [*parts, *text_parts(text[at:])]


def text_parts(text: str) -> list[Part]:
    """`text` as parts, of which there is none where it is empty."""
    return [{"type": "text", "text": text}] if text else []


def untagged(parts: Sequence[Part]) -> str:
    """Parts as one string, images as tags; `tagged` reads it back.

    Raises:
        ValueError: the text holds what would be read as a tag.
    """
    out = ""
    for part in parts:
        if part["type"] == "image":
            out += IMAGE_TAG
            continue
        text = part["text"]
        if has_tags(text):
            raise ValueError(f"text holds a tag, which would be read as one: {text[:60]!r}")
        swallowed = out.endswith(IMAGE_TAG) and text.startswith("\n")
        out += "\n" + text if swallowed else text
    return out
