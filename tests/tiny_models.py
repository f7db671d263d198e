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
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    GotOcr2ImageProcessorPil,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessorPil,
)

from mm.families.registry import family_of
from mm.tokens.builder import TokenBuilder
from mm.tokens.loading import compose

TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 8192,
    "bos_token_id": None,
    "eos_token_id": None,
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


def qwen_ids(tokenizer: Any) -> dict[str, Any]:
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
def qwen3_vl(**sizes: int) -> TinyModel:
    """`sizes` replace those of `TEXT`."""
    tokenizer = bytes_tokenizer(QWEN_SPECIALS, template("qwen3_vl"), "<|im_end|>")
    text = {
        **TEXT,
        **sizes,
        "vocab_size": len(tokenizer),
        "rope_parameters": rope(mrope_interleaved=True),
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 4,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": text["hidden_size"],
        "deepstack_visual_indexes": [0],
        "num_position_embeddings": 64,
    }
    config = Qwen3VLConfig(text_config=text, vision_config=vision, **qwen_ids(tokenizer))
    processor = Qwen2VLImageProcessorPil(
        patch_size=16, merge_size=2, temporal_patch_size=2, min_pixels=64 * 64, max_pixels=128 * 128
    )
    return made(Qwen3VLForConditionalGeneration, config, tokenizer, processor)


def qwen2(config_class: Any, model_class: Any, vision: dict[str, Any]) -> TinyModel:
    tokenizer = bytes_tokenizer(QWEN_SPECIALS, template("qwen2_5_vl"), "<|im_end|>")
    text = {**TEXT, "vocab_size": len(tokenizer), "rope_parameters": rope()}
    config = config_class(text_config=text, vision_config=vision, **qwen_ids(tokenizer))
    processor = Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=112 * 112)
    return made(model_class, config, tokenizer, processor)


@cache
def qwen2_vl() -> TinyModel:
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 4, "mlp_ratio": 2}
    return qwen2(Qwen2VLConfig, Qwen2VLForConditionalGeneration, vision)


@cache
def qwen2_5_vl() -> TinyModel:
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 4,
        "out_hidden_size": 64,
        "fullatt_block_indexes": [1],
        "window_size": 56,
    }
    return qwen2(Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, vision)


TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}
POINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168], [168, 168]]


def spaced_tokenizer(specials: list[str], template: str, scheme: Any = "first") -> Any:
    """A tokenizer in the manner of Llama's: spaces are letters, one stands before a text."""
    letters = [chr(c) for c in range(33, 127)]
    merges = [("▁", c) for c in "abistwz"] + [("▁t", "h"), ("▁th", "e"), ("i", "s"), ("▁i", "s")]
    names = ["<unk>", "<s>", "</s>", *[f"<0x{b:02X}>" for b in range(256)], "▁", *letters]
    names += [a + b for a, b in merges]
    vocab = {name: i for i, name in enumerate(dict.fromkeys(names))}
    rules = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    rules.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    rules.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    rules.add_special_tokens(["<unk>", "<s>", "</s>", *specials])
    rules.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocab["<s>"])]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=rules,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
    )
    tokenizer.chat_template = template
    return tokenizer


@cache
def llava_next() -> TinyModel:
    tokenizer = spaced_tokenizer(["<image>"], template("llava_next"))
    text = MistralConfig(**TEXT, vocab_size=len(tokenizer), sliding_window=None)
    config = LlavaNextConfig(
        vision_config={"model_type": "clip_vision_model", **TOWER},
        text_config=text.to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=POINTS,
        image_seq_length=16,
    )
    processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": 56},
        crop_size={"height": 56, "width": 56},
        image_grid_pinpoints=POINTS,
    )
    return made(LlavaNextForConditionalGeneration, config, tokenizer, processor)


@cache
def llava_onevision() -> TinyModel:
    specials = ["<|im_start|>", "<|im_end|>", "<image>", "<video>"]
    tokenizer = bytes_tokenizer(specials, template("llava_onevision"), "<|im_end|>")
    config = LlavaOnevisionConfig(
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **TOWER},
        text_config=Qwen2Config(**TEXT, vocab_size=len(tokenizer)).to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=POINTS,
        vision_aspect_ratio="anyres_max_4",
    )
    processor = LlavaOnevisionImageProcessorPil(
        size={"height": 56, "width": 56}, image_grid_pinpoints=POINTS
    )
    return made(LlavaOnevisionForConditionalGeneration, config, tokenizer, processor)


def tiles(classes: tuple[Any, Any, Any], begin: str, name: str) -> TinyModel:
    config_class, model_class, processor_class = classes
    marks = ["<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>"]
    rows = [f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)]
    tokenizer = bytes_tokenizer([begin, *marks, *rows], template(name), "<end_of_utterance>")
    config = config_class(
        vision_config=TOWER,
        text_config={"model_type": "llama", **TEXT, "vocab_size": len(tokenizer)},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    processor = processor_class(size={"longest_edge": 168}, max_image_size={"longest_edge": 56})
    return made(model_class, config, tokenizer, processor)


@cache
def idefics3() -> TinyModel:
    parts = Idefics3Config, Idefics3ForConditionalGeneration, Idefics3ImageProcessorPil
    return tiles(parts, "<|begin_of_text|>", "idefics3")


@cache
def smolvlm() -> TinyModel:
    parts = SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMImageProcessorPil
    return tiles(parts, "<|im_start|>", "smolvlm")


@cache
def internvl() -> TinyModel:
    specials = ["<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"]
    tokenizer = bytes_tokenizer(specials, template("internvl"), "<|im_end|>")
    tower = {**TOWER, "image_size": [56, 56], "patch_size": [14, 14]}
    config = InternVLConfig(
        vision_config={"model_type": "internvl_vision", **tower},
        text_config=Qwen2Config(**TEXT, vocab_size=len(tokenizer)).to_dict(),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    processor = GotOcr2ImageProcessorPil(size={"height": 56, "width": 56}, max_patches=6)
    return made(InternVLForConditionalGeneration, config, tokenizer, processor)


@cache
def gemma3() -> TinyModel:
    names = ["<bos>", "<start_of_turn>", "<end_of_turn>"]
    names += ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]
    tokenizer = bytes_tokenizer(names, template("gemma3"), "<|endoftext|>", bos_token="<bos>")
    text = {**TEXT, "vocab_size": len(tokenizer), "num_hidden_layers": 3, "sliding_window": 24}
    text["layer_types"] = ["sliding_attention", "full_attention", "sliding_attention"]
    boi, eoi, image = tokenizer.convert_tokens_to_ids(names[3:])
    config = Gemma3Config(
        text_config=text,
        vision_config={"vision_use_head": False, **TOWER},
        mm_tokens_per_image=4,
        boi_token_index=boi,
        eoi_token_index=eoi,
        image_token_index=image,
    )
    processor = Gemma3ImageProcessorPil(size={"height": 56, "width": 56})
    return made(Gemma3ForConditionalGeneration, config, tokenizer, processor)


FAMILIES: dict[str, Callable[[], TinyModel]] = {
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "idefics3": idefics3,
    "smolvlm": smolvlm,
    "internvl": internvl,
    "gemma3": gemma3,
}
