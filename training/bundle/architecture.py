"""The shape of `tiny`: a Qwen3-VL of about ten million parameters."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from training.tabletop.traces import ZOOM

from .shards import VIEW

PATCH, MERGE = 16, 2


def make_config(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLConfig:
    """The configuration of `tiny` for this vocabulary; `crop_rule` tells `zoom` how it was shown
    crops, `attend` which attention tells where it looks (found by calibration)."""
    ids: Any = tokenizer.convert_tokens_to_ids
    text = {
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
        "eos_token_id": ids("<|im_end|>"),
        "pad_token_id": ids("<|endoftext|>"),
        "bos_token_id": None,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "mrope_section": [12, 10, 10],
            "mrope_interleaved": True,
        },
    }
    vision = {
        "depth": 6,
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_heads": 6,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
        "out_hidden_size": 256,
        "num_position_embeddings": (VIEW // PATCH) ** 2,
        "deepstack_visual_indexes": [3],
    }
    extra: Any = {  # ours; a configuration keeps what it does not know
        "crop_rule": "square",
        "tools": [ZOOM],  # it was taught to call no other
        "memory": {"tile": VIEW, "max_tiles": 36, "replay": 1},
        "attend": {"layer": 0, "query": "words", "relative": False, "base": 128},
    }
    return Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
        **extra,
    )


def make_model(config: Qwen3VLConfig) -> Qwen3VLForConditionalGeneration:
    """A model of random float32 weights."""
    return Qwen3VLForConditionalGeneration(config).float()
