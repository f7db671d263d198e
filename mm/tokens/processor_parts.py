"""A checkpoint's tokenizer and image processor, loaded one by one: no `AutoProcessor` is made."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mm.errors import UserError
from mm.types import Sampling

from .torchvision_compat import hide_broken_torchvision

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProcessorParts:
    """What a token builder is composed of.

    Attributes:
        end_ids: ids that end a reply, as the generation config has them.
        sampling: how the checkpoint's authors sample, as far as the generation config says.
    """

    config: Any
    tokenizer: Any
    image_processor: Any
    end_ids: frozenset[int] = frozenset()
    sampling: Sampling | None = None


def read_processor_parts(folder_or_id: str, *, config: Any = None, **kw: Any) -> ProcessorParts:
    """The ingredients in a checkpoint's folder; `kw` goes to transformers' `from_pretrained`.

    Raises:
        OSError: there is no such checkpoint, or it lacks a file.
    """
    hide_broken_torchvision()
    from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

    config = config or AutoConfig.from_pretrained(folder_or_id, **kw)
    tokenizer = AutoTokenizer.from_pretrained(folder_or_id, **kw)
    tokenizer.chat_template = _processors_template(folder_or_id, kw) or tokenizer.chat_template
    processor = AutoImageProcessor.from_pretrained(folder_or_id, backend="pil", **kw)
    _name_edges(processor)
    generation = _generation(folder_or_id, kw)
    ends = ids_of(generation.get("eos_token_id"))
    return ProcessorParts(config, tokenizer, processor, ends, sampling_of(generation))


def ids_of(value: int | Sequence[int] | None) -> frozenset[int]:
    """Ids that a config gives as one, several or none."""
    if value is None:
        return frozenset()
    return frozenset({value} if isinstance(value, int) else value)


def _name_edges(processor: Any) -> None:
    """Name the bounds of an image's area as transformers reads them.

    Some checkpoints have them under `min_pixels` and `max_pixels` alone.
    """
    size: Any = getattr(processor, "size", None)
    low, high = (getattr(size, f"{bound}_pixels", None) for bound in ("min", "max"))
    if low and high and not getattr(size, "shortest_edge", None):
        processor.size = type(size)(shortest_edge=low, longest_edge=high)


def _processors_template(folder_or_id: str, kw: dict[str, Any]) -> str | None:
    """The chat template that older checkpoints keep with their processor, unless a newer file has
    one. The tokenizer's config may have another, of the language model that it was made of."""
    from transformers.utils.hub import cached_file

    kw = {k: v for k, v in kw.items() if k != "trust_remote_code"}
    newer, older = (
        cached_file(folder_or_id, name, _raise_exceptions_for_missing_entries=False, **kw)
        for name in ("chat_template.jinja", "chat_template.json")
    )
    if newer or not older:
        return None  # transformers has read it
    return json.loads(Path(older).read_text(encoding="utf-8"))["chat_template"]


def sampling_of(generation: Mapping[str, Any]) -> Sampling | None:
    """The sampling that a generation config recommends; None where it says nothing of it.

    Where it does not sample, that is greedy decoding, whatever temperature it names. A number out
    of its bounds is left out, with a warning.
    """
    read = {name: _read(name, generation.get(name)) for name in _RECOMMENDED}
    numbers = {name: value for name, value in read.items() if value is not None}
    if not numbers and "do_sample" not in generation:
        return None
    if not generation.get("do_sample"):
        numbers = {k: v for k, v in numbers.items() if "penalty" in k} | {"temperature": 0.0}
    return replace(Sampling(temperature=1.0), **numbers)


_RECOMMENDED = (
    *("temperature", "top_p", "top_k", "min_p"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty"),
)


def _read(name: str, value: object) -> float | None:
    """A number of a generation config; None where it is none, or out of its bounds."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    if name == "top_k" and value <= 0:
        return 0  # all tokens: some write -1
    try:
        return getattr(replace(Sampling(), **{name: value}), name)
    except UserError as error:
        log.warning("generation_config.json: %s; leaving it out", error)
        return None


def _generation(folder_or_id: str, kw: dict[str, Any]) -> dict[str, Any]:
    """What the generation config says; nothing where there is none."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(folder_or_id, **kw).to_diff_dict()
    except OSError:  # it has no such file
        return {}
