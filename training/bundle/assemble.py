"""Assembles the parts of `tiny`, and writes the folder it ships in."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast, Qwen2VLImageProcessorPil, Qwen3VLConfig
from transformers import Qwen3VLForConditionalGeneration as Model

from mm.families.registry import family_of
from mm.tokens.builder import TokenBuilder
from mm.tokens.loading import compose
from vision.zoom_tool import ZOOM_TOOL

from .architecture import MERGE, PATCH, make_config, make_model
from .extend_stage import grow_vocabulary
from .shards import VIEW
from .vocabulary import PHRASES, frames, make_tokenizer


def tokenizer() -> PreTrainedTokenizerFast:
    """The vocabulary, with the block that offers the zoom tool as one token."""
    plain = make_tokenizer(())
    nothing = [{"role": "system", "content": ""}]
    said = plain.apply_chat_template(nothing, tools=[ZOOM_TOOL.json], tokenize=False)
    assert isinstance(said, str)
    return make_tokenizer(frames(said[said.index("# Tools") : said.rindex("<|im_end|>")]))


def image_processor() -> Qwen2VLImageProcessorPil:
    """Every image becomes about as many pixels as one view; a square one exactly a view."""
    return Qwen2VLImageProcessorPil(
        patch_size=PATCH,
        merge_size=MERGE,
        temporal_patch_size=2,
        size={"shortest_edge": VIEW * VIEW, "longest_edge": VIEW * VIEW},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )


def parts() -> tuple[Model, TokenBuilder]:
    """An untrained `tiny` and its token builder."""
    words = tokenizer()
    torch.manual_seed(0)
    config = make_config(words)
    return make_model(config), builder_of(config, words)


def builder_of(config: Qwen3VLConfig, words: PreTrainedTokenizerFast) -> TokenBuilder:
    """The token builder of `tiny` with these words."""
    family = family_of(config.model_type)
    assert family is not None
    return compose(family, config, words, image_processor())


def grown(folder: Path) -> tuple[Model, TokenBuilder]:
    """The exported `tiny`, in float32, with the words that the extend stage adds."""
    model = Model.from_pretrained(folder).float()
    words = PreTrainedTokenizerFast.from_pretrained(folder)
    grow_vocabulary(model, words, PHRASES)
    return model, builder_of(model.config, words)


def export(model: Model, builder: TokenBuilder, folder: Path) -> None:
    """Write the folder that ships: bf16 weights, configuration, tokenizer, processor."""
    folder.mkdir(parents=True, exist_ok=True)
    model.model.language_model.set_attn_implementation("sdpa")
    whole = {k: v.detach().clone() for k, v in model.state_dict().items()}
    model.bfloat16().save_pretrained(folder)
    model.float().load_state_dict(whole)
    (folder / "model.safetensors").chmod(0o644)
    builder.tokenizer.save_pretrained(folder)
    image_processor().save_pretrained(folder)
