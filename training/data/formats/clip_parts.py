"""Where in a row's conversation its clips stand: by tags, by parts, or before the first words."""

from __future__ import annotations

from .declaration import CLIPS, Native, clips_of
from .messages import holes, lifted
from .tags import CLIP_TAG, tags_in_parts


def with_clips(native: Native) -> Native:
    """`native` with a part for each of its clips where the row says where they stand.

    Clips that parts name are listed in `videos`. Without tags or parts none has one: clips then
    stand before what the user says first.

    Raises:
        ValueError: there are not as many parts and tags as clips, or some in a reply.
    """
    key = "messages" if "messages" in native else "prompt"
    given = clips_of(native)
    clips = lifted(native[key], given, "videos", "video")
    said = native[key]
    if not holes(said, "video"):
        said = tags_in_parts(said, CLIP_TAG, "clips", len(clips))
    _check(native, said, len(clips))
    rest = {k: v for k, v in native.items() if k not in CLIPS} if clips != given else native
    return {**rest, key: said, **({} if clips == given else {"videos": clips})}


def _check(native: Native, said: list[Native], clips: int) -> None:
    replies = [m for m in said if m["role"] == "assistant"]
    sides = [m for side in ("chosen", "rejected") for m in native.get(side, ())]
    found = holes(said, "video") + holes(sides, "video")
    if found and not clips:
        raise ValueError(
            f"tag {CLIP_TAG!r} in text: clips are named in the column 'video', of which there is "
            "none"
        )
    if holes([*replies, *sides], "video"):
        raise ValueError(f"expected {CLIP_TAG} in what is asked, found it in a reply")
    if found not in (0, clips):
        raise ValueError(f"expected {found} clips, as many as {CLIP_TAG} in text, found {clips}")
