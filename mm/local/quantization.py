"""Weights in four or eight bits, through bitsandbytes where it is installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, get_args

from mm.errors import ModelUnavailable

if TYPE_CHECKING:
    import torch

Bits = Literal["4bit", "8bit"]

_SEES = ("visual", "vision_tower", "vision_model", "multi_modal_projector", "connector")
_WHOLE = ["lm_head", *(rf".*\.{name}" for name in _SEES)]
"""Kept in full: what the model sees with, and the head, which may share the embeddings' weights."""


def quantization(bits: str | None, dtype: torch.dtype) -> Any:
    """How transformers shall quantise, computing in `dtype`: NF4 twice quantised as in QLoRA
    (arXiv 2305.14314), or LLM.int8; None for not at all.

    Raises:
        ModelUnavailable: bitsandbytes is missing.
        ValueError: `bits` are neither.
    """
    if bits is None:
        return None
    if bits not in get_args(Bits):
        raise ValueError(f"quantize must be one of {', '.join(get_args(Bits))}, got {bits!r}")
    if find_spec("bitsandbytes") is None:
        raise ModelUnavailable(f"weights in {bits} need bitsandbytes: pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=_WHOLE)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=_WHOLE,
    )
