"""A tiny SigLIP of random weights, saved as checkpoints are."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_models import bytes_tokenizer
from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel


def save_siglip(folder: Path) -> Path:
    """The checkpoint in `folder`."""
    torch.manual_seed(0)
    tokenizer = bytes_tokenizer(["<pad>", "</s>"], "", "</s>")
    tokenizer.pad_token = "<pad>"
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    small["num_attention_heads"] = 2
    config = SiglipConfig(
        text_config={**small, "vocab_size": len(tokenizer), "max_position_embeddings": 64},
        vision_config={**small, "image_size": 32, "patch_size": 16},
    )
    SiglipModel(config).eval().save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(str(folder))
    return folder
