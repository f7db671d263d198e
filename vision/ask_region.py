"""Looking again in two steps, for models that never call a tool: ask where, then show it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from mm.geometry import BoxFormat, Region
from mm.session import Session
from mm.types import Features, Image, Message, Text, message, user

from .grounding import parse_boxes
from .zoom_tool import RegionCall

Ground = Callable[[Session], RegionCall | None]
"""Finds where to look, and may say and ask things in the session; None when it cannot tell."""

SHOWN = "This is that region, enlarged. Now answer the question."
NOT_SHOWN = user("No region could be read from that. Now answer the question.")

_IMG_IDX = re.compile(r"\"img_idx\"\s*:\s*(\d{1,6})\b")


def ask_where(session: Session) -> RegionCall | None:
    """The first box in the model's reply to where it must look."""
    session.say(where(session.vlm.traits.box_format, len(session.images)))
    reply = session.generate().message
    return _region_call(session, "".join(p.text for p in reply.parts if isinstance(p, Text)))


def where(box_format: BoxFormat, images: int) -> Message:
    """The question where to look, for a model that writes `box_format`."""
    example: dict[str, object] = {box_format.key: [0, 0, 0, 0]}
    names = "x0, y0, x1, y1" if box_format.order == "xyxy" else "y0, x0, y1, x1"
    shape = json.dumps(example).replace("0, 0, 0, 0", names)
    if images > 1:
        shape = shape[:-1] + f', "img_idx": n}}, n from 0 to {images - 1}'
    return user(
        "Do not answer yet. Which one region must be seen enlarged to answer the question? "
        f"Reply with its box only: {shape}"
    )


def show(seen: Image | Features) -> Message:
    """The region, and the request to answer now."""
    return message("user", seen, SHOWN)


def _region_call(session: Session, text: str) -> RegionCall | None:
    found = _IMG_IDX.search(text)
    index = int(found[1]) if found else 0
    images = session.images
    if index >= len(images):
        return None
    seen = session.vlm.seen_size(images[index].size, images[index].kind)
    regions: list[Region] = parse_boxes(text, session.vlm.traits.box_format, seen)
    return RegionCall(index, regions[0]) if regions else None
