"""One tiny random model of each family's real class, with the builder that belongs to it.

`FAMILIES[name]()` makes it on first use: float32, seeded, eval mode, in well under a second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from mm.families import family_of
from mm.tokens import TokenBuilder, compose

TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 8192,
}
WORDS = [
    "what letter is on the red square? zoom in and look again.\n\n",
    '<tool_call>\n{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 20]}}\n</tool_call>',
    "User: Assistant: system\n You are a helpful assistant. [INST] [/INST]\n",
]


def template(name: str) -> str:
    """A chat template that checkpoints of the family come with."""
    return (Path(__file__).parent / "chat_templates" / f"{name}.jinja").read_text()


@dataclass(frozen=True)
class TinyModel:
    model: Any
    builder: TokenBuilder


def bytes_tokenizer(specials: list[str], template: str, eos: str, **kw: Any) -> Any:
    """A byte-level tokenizer of about 400 tokens, `specials` among them."""
    rules = Tokenizer(models.BPE())
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", *specials],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rules.train_from_iterator(WORDS * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=rules, eos_token=eos, pad_token="<|endoftext|>", **kw
    )
    tokenizer.chat_template = template
    return tokenizer


def made(model_class: Any, config: Any, tokenizer: Any, image_processor: Any) -> TinyModel:
    torch.manual_seed(0)
    model = model_class(config).float().eval()
    family = family_of(config.model_type)
    assert family is not None
    return TinyModel(model, compose(family, config, tokenizer, image_processor))


QWEN_SPECIALS = [
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]


def qwen_ids(tokenizer: Any) -> dict[str, int]:
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {key: tokenizer.convert_tokens_to_ids(name) for key, name in names.items()}


def rope(**more: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3], **more}


@cache
def qwen3_vl() -> TinyModel:
    tokenizer = bytes_tokenizer(QWEN_SPECIALS, template("qwen3_vl"), "<|im_end|>")
    text = {
        **TEXT,
        "vocab_size": len(tokenizer),
        "rope_parameters": rope(mrope_interleaved=True),
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 4,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": 64,
        "deepstack_visual_indexes": [0],
        "num_position_embeddings": 64,
    }
    config = Qwen3VLConfig(text_config=text, vision_config=vision, **qwen_ids(tokenizer))
    processor = Qwen2VLImageProcessorPil(
        patch_size=16, merge_size=2, temporal_patch_size=2, min_pixels=64 * 64, max_pixels=128 * 128
    )
    return made(Qwen3VLForConditionalGeneration, config, tokenizer, processor)


FAMILIES: dict[str, Callable[[], TinyModel]] = {"qwen3_vl": qwen3_vl}
