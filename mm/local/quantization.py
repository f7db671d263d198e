"""Weights in four or eight bits, through bitsandbytes where it is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, get_args

from mm.errors import ModelUnavailable

from .checkpoints import Checkpoint

if TYPE_CHECKING:
    import torch

Bits = Literal["4bit", "8bit"]

_PACKAGES = {
    "awq": "gptqmodel",
    "gptq": "gptqmodel",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
    "torchao": "torchao",
    "hqq": "hqq",
    "quanto": "optimum-quanto",
    "auto-round": "auto-round",
    "aqlm": "aqlm",
    "eetq": "eetq",
    "vptq": "vptq",
}
"""What reads weights quantised by a method, as the package is called where it is installed."""

_SEES = ("visual", "vision_tower", "vision_model", "multi_modal_projector", "connector")
_WHOLE = ["lm_head", *(rf".*\.{name}" for name in _SEES)]
"""Not quantised: the vision parts, and the head, which may share the embeddings' weights."""


def quantization(bits: str | None, dtype: torch.dtype) -> Any:
    """How transformers quantises, computing in `dtype`: NF4 twice quantised as in QLoRA
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


def check_readable(checkpoint: Checkpoint, quantize: str | None) -> None:
    """Refuse a checkpoint whose stored weights are quantised in a way that cannot be read here.

    Raises:
        ModelUnavailable: the package for it is missing, or it is to be quantised again.
    """
    if checkpoint.quantization is None:
        return
    method = str(checkpoint.quantization.get("quant_method", "an unnamed method"))
    if quantize is not None:
        raise ModelUnavailable(
            f"{checkpoint.folder} is quantised already ({method}): leave out quantize={quantize!r}"
        )
    package = _PACKAGES.get(method)
    if package and not _installed(package):
        raise ModelUnavailable(
            f"{checkpoint.folder} is quantised with {method}, which needs {package}: pip install "
            f"{package}, or take the checkpoint that is not quantised"
        )


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
