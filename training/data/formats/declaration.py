"""What the columns of rows are for: each is read, harmless by name, or refused by name.

A format declares the columns it reads. Whatever else a row has could carry an image, a box, text,
a side of a pair or a weight, so nothing of it is left out unless its name is known to be harmless
or the user says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from training.data.readers import brief

Fields = Mapping[Any, Any]
Native = dict[str, Any]


@dataclass(frozen=True)
class Format:
    """How rows are written.

    Attributes:
        read: a row of this format as a native one.
        columns: those that `read` reads.
        write: a native row in this format; None where rows are only read.
    """

    name: str
    read: Callable[[Fields], Native]
    columns: frozenset[str]
    write: Callable[[Native], Native] | None = None


CLIPS = ("videos", "video")
"""Columns that name a row's clips: one of them or a list."""

KEPT = frozenset(
    {
        *("id", "answer", "choices", "depth", "regions", "source", "tools", "objects"),
        *("problem_type", *CLIPS),
    }
)
"""Columns that mean the same in every format, and are written again by every one."""

IMAGES = ("images", "image", "image_path")
"""Columns that name a row's images: one of them, or several that say the same."""

TALK = frozenset({"messages", "prompt", "completion", "chosen", "rejected", "system"})
PAIRED = frozenset({"chosen_images", "rejected_images", "rejected_response", "rejected_messages"})

# fmt: off
HARMLESS = frozenset(
    {
        "ability", "author", "category", "chosen_score", "created_at", "data_id",
        "data_source", "dataset", "dataset_name", "date", "difficulty", "domain",
        "extra_info", "hash", "height", "idx", "image_id", "index", "lang", "language",
        "level", "license", "meta", "metadata", "model", "model_name", "number",
        "origin_dataset", "page", "pass_rate", "prompt_id", "qid", "question_id",
        "question_type", "rating", "rejected_score", "row", "sample_id", "score",
        "score_chosen", "score_rejected", "scores", "sha256", "split", "subject", "subset",
        "tags", "task", "task_type", "timestamp", "topic", "type", "uid", "uuid", "width",
        "", "__index_level_0__", "unnamed: 0", "Unnamed: 0",
    }
)
# fmt: on
"""Columns that describe a row and of which nothing is shown to a model."""

_SAID = frozenset({"role", "from", "content", "value", "tool_calls", "function_call"})
MESSAGE_KEYS = _SAID | {"loss", "weight", "reasoning_content", "reasoning"}
HARMLESS_IN_MESSAGES = frozenset({"id", "name", "tool_call_id", "timestamp", "model"})

_CLIPS = "clips are read from 'video' or 'videos', sound is not read: rename it"
_REASONS = (
    (r"video|audio|clip|speech|sound", _CLIPS),
    (r"choice|option|candidate", "choices are read from 'choices': rename it"),
    (r"weight|loss|kto|label|margin", "only whole messages are left out of training, by 'loss'"),
    (r"chosen|reject|prefer", "the sides of a pair are read from 'chosen' and 'rejected'"),
    (r"depth", "depth maps are read from 'depth': rename it"),
    (r"box|region|polygon|point|coord|segment", "boxes are read from 'regions' or 'objects'"),
    (
        r"image|img|pic|photo|frame|screenshot|mask|file",
        "images are read from 'images' or 'image': rename it",
    ),
)


def refuse_unread(fields: Fields, format: Format, texts: Collection[str]) -> None:
    """Refuse the columns of `fields` that would be lost.

    Lost is what is neither read nor harmless, unless it is empty or one of the `texts` that the
    messages say anyway.

    Raises:
        ValueError: a column would be lost.
    """
    for key, value in fields.items():
        if key in format.columns | HARMLESS or is_empty(value):
            continue
        reason = reason_of(str(key))
        if reason or not (isinstance(value, str) and value.strip() in texts):
            reason = reason or f"{format.name} rows have none of that name"
            name = str(key)[:60]
            given = name if name.isprintable() and name.strip() else repr(name)
            raise ValueError(f"column {name!r} would be lost: {reason}; or --ignore {given}")


def refuse_keys(value: Fields, known: Collection[str], what: str) -> None:
    """Refuse the keys of a message or a part that would be lost.

    Raises:
        ValueError: it has one that is not among the `known` and not empty.
    """
    for key, each in value.items():
        if key not in known and not is_empty(each):
            reason = reason_of(str(key)) or f"expected {', '.join(sorted(known))}"
            raise ValueError(f"{str(key)[:60]!r} of {what} would be lost: {reason}")


def reason_of(key: str) -> str:
    """Why a column or key of that name is not read; "" where the name tells nothing."""
    return next((why for pattern, why in _REASONS if re.search(pattern, key.lower())), "")


def is_empty(value: Any) -> bool:
    """Whether `value` carries nothing; 0 and False do carry something."""
    return value is None or (isinstance(value, str | list | dict) and not value)


def filled(fields: Fields, known: Collection[str], what: str) -> Native:
    """`fields` without those that carry nothing.

    Raises:
        ValueError: as `refuse_keys`.
    """
    refuse_keys(fields, known, what)
    return {key: value for key, value in fields.items() if not is_empty(value)}


def kept(fields: Fields) -> Native:
    """The columns that every format hands on as they are, and the harmless ones."""
    return {k: v for k, v in fields.items() if k in KEPT | HARMLESS and not is_empty(v)}


def images_of(fields: Fields) -> list[Any]:
    """What the row's columns of images name, in order; [] where they are empty.

    Raises:
        ValueError: two columns name different images.
    """
    named = {key: many(fields[key]) for key in IMAGES if not is_empty(fields.get(key))}
    found = list(named.values())
    if any(each != found[0] for each in found):
        raise ValueError(f"expected one column of images, found {' and '.join(named)}: merge them")
    return found[0] if found else []


def many(value: Any) -> list[Any]:
    """`value` as a list of image sources: of Arrow's and TRL's wrappings the content alone."""
    if is_empty(value):
        return []
    return [source_of(each) for each in (value if isinstance(value, list) else [value])]


def source_of(value: Any) -> Any:
    """What an image is read from: `{"bytes"}`, `{"path"}`, `{"image"}` or `{"url"}` unwrapped."""
    if not isinstance(value, Mapping) or "crop_of" in value:
        return value
    sources = [value[key] for key in ("bytes", "path", "image", "url") if value.get(key)]
    refuse_keys(value, ("bytes", "path", "image", "url"), "an image")
    return source_of(sources[0]) if sources else value


def list_in(fields: Fields, key: str) -> list[Any]:
    """The list in column `key`.

    Raises:
        ValueError: something else is there.
    """
    value = fields.get(key)
    if not isinstance(value, list):
        raise ValueError(f"expected a list in {key!r}, found {brief(value)}")
    return value


def may_show_clips(native: Native) -> bool:
    """Whether a column, a part or a tag could name a clip; of most rows none does."""
    said = [native[key] for key in ("messages", "prompt", "chosen", "rejected") if key in native]
    return bool(native.keys() & CLIPS) or "video" in str(said)


def clips_of(fields: Mapping[str, Any]) -> list[Any]:
    """What the row's columns of clips name, in order."""
    return [clip for key in CLIPS for clip in many(fields.get(key))]
