"""The rows that come with papers: VTS-V's preferences and VLM-R3's replies with crops inside."""

from __future__ import annotations

from training.data.readers import brief
from vision.zoom import inline_instruction

from .conversations import read_conversation
from .declaration import Fields, Native, kept, list_in, many

_VTS_IMAGES = {
    "prompt_image_path": "images",
    "chosen_image_path": "chosen_images",
    "rejected_image_path": "rejected_images",
}


def read_vts(fields: Fields) -> Native:
    """VTS-V's: three lists of messages, three lists of paths."""
    for key in ("prompt", "chosen", "rejected"):
        list_in(fields, key)
    made = {_VTS_IMAGES.get(key, key): value for key, value in fields.items()}
    return read_conversation(made, tags=True, front=False)


def read_vlm_r3(fields: Fields) -> Native:
    """VLM-R3's: pieces of one reply, and the crop that stands behind each."""
    replies, crops = list_in(fields, "response_list"), fields.get("img_crop_list") or []
    if not isinstance(crops, list) or not all(isinstance(r, str) for r in replies):
        raise ValueError(f"expected texts and their crops, found {brief(replies)}, {brief(crops)}")
    crops = list(crops)
    while crops and not crops[-1]:
        crops.pop()  # nothing is shown behind the answer
    if len(crops) > len(replies):
        raise ValueError(f"expected at most {len(replies)} crops, found {len(crops)}")
    parts = []
    for at, text in enumerate(replies):
        parts += [{"type": "text", "text": text}]
        parts += [{"type": "image"}] if at < len(crops) else []
    named = many(fields.get("image_path"))
    if len(named) != 1 or not isinstance(fields.get("question"), str):
        asked = brief(fields.get("question"))
        raise ValueError(f"expected one image and a question, found {len(named)} and {asked}")
    messages = [
        {"role": "user", "content": [{"type": "image"}, _text(fields["question"])]},
        {"role": "user", "content": [_text(inline_instruction("bbox_2d"))]},
        {"role": "assistant", "content": parts},
    ]
    return {**kept(fields), "messages": messages, "images": [*named, *many(crops)]}


def _text(text: str) -> Native:
    return {"type": "text", "text": text}
