"""How others write rows, to the native row and back.

Every one of them keeps the pictures in a list beside words that say where each belongs; what
differs is the names of columns and speakers, and the mark of a picture.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vision.zoom import inline_instruction

from .readers import brief

Fields = Mapping[Any, Any]
Native = dict[str, Any]

_TAG = re.compile(r"<image>\n?")
_KEPT = ("id", "answer", "choices", "regions", "source", "tools", "chosen_images")
_SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
    "system": "system",
}


def to_native(fields: Any, dialect: str = "auto") -> Any:
    """A row of `dialect` as a native one.

    Raises:
        ValueError: there is no such dialect, or the row is not written in it.
    """
    if dialect == "auto":
        return _READ[recognise(fields)](fields)
    if dialect not in _READ:
        raise ValueError(f"expected a format of {', '.join(_READ)}, found {dialect!r}")
    return _READ[dialect](fields)


def from_native(fields: Fields, dialect: str) -> Native:
    """A native row as `dialect` writes it.

    Raises:
        ValueError: nothing is written in that dialect.
    """
    if dialect not in _WRITE:
        raise ValueError(f"expected a format of {', '.join(_WRITE)} to write, found {dialect!r}")
    return _WRITE[dialect](fields)


def recognise(fields: Any) -> str:
    """The dialect that a row's columns give away; "native" where they give nothing away."""
    if not isinstance(fields, Mapping):
        return "native"
    if "conversations" in fields:
        return "sharegpt"
    if "response_list" in fields:
        return "vlm-r3"
    if "prompt_image_path" in fields:
        return "vts"
    if "reward_model" in fields or ("ground_truth" in fields and "prompt" in fields):
        return "verl"
    said = fields.get("messages")
    if not isinstance(said, list):
        return "native"
    if any(_has(m, "image_url") for m in said):
        return "openai"
    tagged = any(isinstance(m, Mapping) and "<image>" in str(m.get("content")) for m in said)
    return "swift" if tagged or "rejected_response" in fields else "native"


def _sharegpt(fields: Any) -> Native:
    """LLaVA's and LLaMA-Factory's: `conversations` of `from` and `value`."""
    said = _list(fields, "conversations")
    messages = [_turn(turn) for turn in said]
    if system := fields.get("system"):
        messages.insert(0, {"role": "system", "content": system})
    return {**_rest(fields), "messages": messages, "images": _images(fields)}


def _turn(turn: Any) -> Native:
    speaker = turn.get("from", turn.get("role")) if isinstance(turn, Mapping) else None
    if speaker not in _SPEAKERS:
        known = ", ".join(_SPEAKERS)
        raise ValueError(f"expected 'from' to be one of {known}, found {brief(speaker)}")
    value = turn.get("value", turn.get("content"))
    if not isinstance(value, str):
        raise ValueError(f"expected text in 'value', found {brief(value)}")
    if speaker == "function_call":
        value = f"<tool_call>\n{value}\n</tool_call>"
    return {"role": _SPEAKERS[speaker], "content": _tagged(value)}


def _openai(fields: Any) -> Native:
    """The chat API's: pictures are URLs inside the messages."""
    pictures: list[Any] = []
    messages = []
    for said in _list(fields, "messages"):
        content = said.get("content") if isinstance(said, Mapping) else None
        if isinstance(content, list):
            said = {**said, "content": [_taken(part, pictures) for part in content]}
        messages.append(said)
    return {**_rest(fields), "messages": messages, "images": pictures}


def _taken(part: Any, pictures: list[Any]) -> Any:
    if not _is(part, "image_url"):
        return part
    url = part["image_url"]
    pictures.append(url.get("url") if isinstance(url, Mapping) else url)
    return {"type": "image"}


def _swift(fields: Any) -> Native:
    """ms-swift's: `<image>` in the words; a pair is `rejected_response` or `rejected_messages`."""
    messages = [_untagged(said) for said in _list(fields, "messages")]
    native = {**_rest(fields), "messages": messages, "images": _images(fields)}
    if "rejected_response" in fields:
        answer = {"role": "assistant", "content": _tagged(str(fields["rejected_response"]))}
        return _paired(native, [answer], fields)
    if "rejected_messages" in fields:
        asked = _asked(messages)
        bad = [_untagged(said) for said in _list(fields, "rejected_messages")]
        return _paired(native, bad[asked:], fields)
    return native


def _paired(native: Native, rejected: Sequence[Native], fields: Fields) -> Native:
    messages = native.pop("messages")
    asked = _asked(messages)
    images, held = native["images"], sum(_holes(m) for m in messages[:asked])
    return {
        **native,
        "prompt": messages[:asked],
        "chosen": messages[asked:],
        "rejected": list(rejected),
        "images": images[:held],
        "chosen_images": images[held:],
        "rejected_images": list(fields.get("rejected_images", []))[held:],
    }


def _vts(fields: Any) -> Native:
    """VTS-V's preferences: three lists of messages, three lists of paths."""
    native = _rest(fields)
    for key, column in (("prompt", "images"), ("chosen", None), ("rejected", None)):
        native[key] = [_untagged(said) for said in _list(fields, key)]
        native[column or f"{key}_images"] = _many(fields.get(f"{key}_image_path"))
    return native


def _vlm_r3(fields: Any) -> Native:
    """VLM-R3's: pieces of one reply, and the crop that stands behind each."""
    replies, crops = _list(fields, "response_list"), _many(fields.get("img_crop_list"))
    while crops and not crops[-1]:
        crops.pop()  # nothing is shown behind the answer
    if len(crops) > len(replies):
        raise ValueError(f"expected at most {len(replies)} crops, found {len(crops)}")
    parts = []
    for at, words in enumerate(replies):
        parts += [{"type": "text", "text": words}]
        parts += [{"type": "image"}] if at < len(crops) else []
    asked = [{"type": "image"}, {"type": "text", "text": fields.get("question")}]
    messages = [
        {"role": "user", "content": asked},
        {"role": "user", "content": inline_instruction("bbox_2d")},
        {"role": "assistant", "content": parts},
    ]
    images = [*_many(fields.get("image_path")), *crops]
    return {**_rest(fields), "messages": messages, "images": images}


def _verl(fields: Any) -> Native:
    """verl's and EasyR1's: `prompt`, `images` and a ground truth, for rewards."""
    prompt = fields.get("prompt", fields.get("problem"))
    said = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    model = fields.get("reward_model")
    truth = model.get("ground_truth") if isinstance(model, Mapping) else None
    truth = fields.get("ground_truth", fields.get("answer", truth))
    messages = [_untagged(m) for m in _list({"prompt": said}, "prompt")]
    native = {**_rest(fields), "prompt": messages, "images": _images(fields), "answer": truth}
    return {**native, "source": fields.get("data_source", "")}


def _write_swift(fields: Fields) -> Native:
    native = dict(fields)
    said = [*native.pop("messages", []), *native.pop("prompt", []), *native.pop("chosen", [])]
    out = {"messages": [_tags(m) for m in said]}
    out["images"] = [*native.pop("images", []), *native.pop("chosen_images", [])]
    if "rejected" in native:
        prompt = fields.get("prompt", fields.get("messages", []))
        out["rejected_messages"] = [_tags(m) for m in (*prompt, *native.pop("rejected"))]
        out["rejected_images"] = [*fields.get("images", []), *native.pop("rejected_images", [])]
    return {**native, **out}


def _write_sharegpt(fields: Fields) -> Native:
    native = dict(fields)
    names = {"user": "human", "assistant": "gpt", "tool": "observation", "system": "system"}
    turns = [
        {"from": names[m["role"]], "value": _tags(m)["content"]} for m in native.pop("messages", [])
    ]
    return {**native, "conversations": turns}


def _write_openai(fields: Fields) -> Native:
    native = dict(fields)
    pictures = iter(native.pop("images", []))
    messages = []
    for said in native.pop("messages", []):
        content = said.get("content")
        if isinstance(content, list):
            content = [
                {"type": "image_url", "image_url": {"url": next(pictures)}}
                if _is(part, "image")
                else part
                for part in content
            ]
        messages.append({**said, "content": content})
    return {**native, "messages": messages}


def _identity(fields: Any) -> Any:
    return fields


_READ: Mapping[str, Callable[[Any], Any]] = {
    "native": _identity,
    "trl": _identity,
    "llava": _sharegpt,
    "sharegpt": _sharegpt,
    "openai": _openai,
    "swift": _swift,
    "vts": _vts,
    "vlm-r3": _vlm_r3,
    "verl": _verl,
}
_WRITE: Mapping[str, Callable[[Fields], Native]] = {
    "native": dict,
    "trl": dict,
    "llava": _write_sharegpt,
    "sharegpt": _write_sharegpt,
    "openai": _write_openai,
    "swift": _write_swift,
}
READABLE, WRITABLE = tuple(_READ), tuple(_WRITE)


def _rest(fields: Fields) -> Native:
    return {key: fields[key] for key in _KEPT if key in fields}


def _images(fields: Fields) -> list[Any]:
    return _many(fields.get("images", fields.get("image")))


def _many(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _list(fields: Fields, key: str) -> list[Any]:
    value = fields.get(key) if isinstance(fields, Mapping) else None
    if not isinstance(value, list):
        raise ValueError(f"expected a list in {key!r}, found {brief(value)}")
    return value


def _asked(messages: Sequence[Any]) -> int:
    """How many messages come before the first reply."""
    roles = [m.get("role") if isinstance(m, Mapping) else None for m in messages]
    return roles.index("assistant") if "assistant" in roles else len(roles)


def _untagged(said: Any) -> Any:
    """A message whose `<image>` tags are parts."""
    if not isinstance(said, Mapping):
        raise ValueError(f"expected a message, found {brief(said)}")
    content = said.get("content")
    return {**said, "content": _tagged(content)} if isinstance(content, str) else said


def _tagged(text: str) -> list[Native] | str:
    if "<image>" not in text:
        return text
    parts: list[Native] = []
    for index, words in enumerate(_TAG.split(text)):
        parts += [{"type": "image"}] if index else []
        parts += [{"type": "text", "text": words}] if words else []
    return parts


def _tags(said: Native) -> Native:
    """A message as one string, pictures as tags and calls as text."""
    content = said.get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    text = "".join("<image>" if _is(p, "image") else p.get("text", "") for p in parts)
    calls = "".join(_call_text(call) for call in said.get("tool_calls", []))
    rest = {k: v for k, v in said.items() if k not in ("content", "tool_calls")}
    return {**rest, "content": text + calls}


def _call_text(call: Any) -> str:
    from mm.markup import read_call, render_call

    found = read_call(call.get("function", call) if isinstance(call, Mapping) else call)
    if found is None:
        raise ValueError(f"expected a call with a name and arguments, found {brief(call)}")
    return render_call(found)


def _holes(said: Any) -> int:
    content = said.get("content") if isinstance(said, Mapping) else None
    return sum(_is(p, "image") for p in content) if isinstance(content, list) else 0


def _has(said: Any, kind: str) -> bool:
    content = said.get("content") if isinstance(said, Mapping) else None
    return isinstance(content, list) and any(_is(part, kind) for part in content)


def _is(part: Any, kind: str) -> bool:
    return isinstance(part, Mapping) and part.get("type") == kind
