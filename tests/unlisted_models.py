"""Tiny random models of classes that no family here lists, as folders of checkpoints.

`UNLISTED[name]()` gives one: its parts, what its processor's config holds, a chat template in the
shape of the real ones, and, written out by hand, what stands in a prompt for an image.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tiny_models import (
    QWEN_SPECIALS,
    TEXT,
    TOWER,
    bytes_tokenizer,
    qwen_ids,
    spaced_tokenizer,
    template,
)

IMAGE = "\0"
"""Stands for an image in the prompts of tests."""

Expand = Callable[[Mapping[str, Any], int], str]
"""What stands in the prompt for an image, of what the image processor makes of it and its number
in the conversation."""


@dataclass(frozen=True)
class Unlisted:
    """One class's parts.

    Attributes:
        settings: of its processor's config.
        options: that its processor passes to its image processor.
        unused: what of the image processor's output the model does not take.
        typed: whether the model wants to know which tokens are an image's.
        sees: what else the model is told of a prompt with images, of its other inputs.
    """

    model: Any
    tokenizer: Any
    image_processor: Any
    expand: Expand
    placeholder: str
    settings: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    typed: bool = False
    sees: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    def save(self, folder: Path) -> Path:
        """The folder of a checkpoint, as it would come from a hub."""
        self.model.save_pretrained(str(folder))
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
        (folder / "processor_config.json").write_text(json.dumps(self.settings))
        return folder

    def inputs(self, prompt: str, images: list[Any]) -> dict[str, Any]:
        """A prompt, with `IMAGE` for each image, as the model takes it."""
        for number, image in enumerate(images):
            one = self.image_processor([image], return_tensors="pt", **self.options)
            prompt = prompt.replace(IMAGE, self.expand(one, number), 1)
        made = {}
        if images:
            made = dict(self.image_processor(images, return_tensors="pt", **self.options))
        bos = self.tokenizer.bos_token
        begun = bool(bos) and prompt.startswith(bos)
        encoded = self.tokenizer(prompt, return_tensors="pt", add_special_tokens=not begun)
        made |= {k: encoded[k] for k in ("input_ids", "attention_mask")}
        if self.typed:
            here = made["input_ids"] == self.tokenizer.convert_tokens_to_ids(self.placeholder)
            made["mm_token_type_ids"] = here.long()
        if self.sees and images:
            made |= self.sees(made)
        return {k: v for k, v in made.items() if k not in self.unused}


def built(model_class: Any, config: Any, *ends: int) -> Any:
    """The model, which forgets slowly where it has recurrent states: else they hardly show."""
    torch.manual_seed(0)
    model = model_class(config).float().eval()
    for name, weight in model.named_parameters():
        if name.endswith("A_log"):
            torch.nn.init.constant_(weight, -4.0)
    model.generation_config.eos_token_id = list(ends)
    return model


def rope(**more: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 1e4, **more}


MROPE = rope(mrope_section=[1, 1, 2], partial_rotary_factor=0.5)
HYBRID = {
    **TEXT,
    "num_hidden_layers": 4,
    "rope_parameters": {**MROPE, "mrope_interleaved": True},
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": [*["linear_attention"] * 3, "full_attention"],
}


@cache
def qwen3_5() -> Unlisted:
    tokenizer = bytes_tokenizer(QWEN_SPECIALS, template("qwen3_5"), "<|im_end|>")
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 4,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": 64,
        "num_position_embeddings": 64,
    }
    config = hf.Qwen3_5Config(
        text_config={**HYBRID, "vocab_size": len(tokenizer)},
        vision_config=vision,
        **qwen_ids(tokenizer),
    )
    processor = hf.Qwen2VLImageProcessorPil(
        patch_size=16, merge_size=2, temporal_patch_size=2, min_pixels=64 * 64, max_pixels=128 * 128
    )

    def expand(made: Mapping[str, Any], _: int) -> str:
        slots = "<|image_pad|>" * (int(made["image_grid_thw"].prod()) // 4)
        return f"<|vision_start|>{slots}<|vision_end|>"

    model = built(hf.Qwen3_5ForConditionalGeneration, config, tokenizer.eos_token_id)
    return Unlisted(model, tokenizer, processor, expand, "<|image_pad|>", typed=True)


@cache
def glm4v() -> Unlisted:
    names = ["[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]
    sees = [f"<|{kind}|>" for kind in ("image", "video")]
    sees += [f"<|{edge}_of_{kind}|>" for kind in ("image", "video") for edge in ("begin", "end")]
    tokenizer = bytes_tokenizer([*names, *sees], template("glm4v"), "<|endoftext|>")
    image, video, begin, end = tokenizer.convert_tokens_to_ids(sees[:4])
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 4,
        "image_size": 56,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": 64,
    }
    config = hf.Glm4vConfig(
        text_config={**TEXT, "vocab_size": len(tokenizer), "rope_parameters": MROPE},
        vision_config=vision,
        image_token_id=image,
        video_token_id=video,
        image_start_token_id=begin,
        image_end_token_id=end,
    )
    size = {"shortest_edge": 2 * 56 * 56, "longest_edge": 2 * 112 * 112}

    def expand(made: Mapping[str, Any], _: int) -> str:
        slots = "<|image|>" * (int(made["image_grid_thw"].prod()) // 4)
        return f"<|begin_of_image|>{slots}<|end_of_image|>"

    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|user|>")]
    model = built(hf.Glm4vForConditionalGeneration, config, *ends)
    processor = hf.Glm4vImageProcessorPil(size=size)
    return Unlisted(model, tokenizer, processor, expand, "<|image|>", typed=True)


def gemma4(bidirectional: str | None, per_layer: int, shared: int) -> Unlisted:
    names = {
        "image_token": "<|image|>",
        "boi_token": "<|image>",
        "eoi_token": "<image|>",
        "audio_token": "<|audio|>",
        "boa_token": "<|audio>",
        "eoa_token": "<audio|>",
    }
    others = ["<bos>", "<|turn>", "<turn|>", "<|video|>"]
    tokenizer = bytes_tokenizer(
        [*others, *names.values()],
        template("gemma4"),
        "<turn|>",
        bos_token="<bos>",
        extra_special_tokens=names,
    )
    ids = {f"{k}_id": tokenizer.convert_tokens_to_ids(v) for k, v in names.items()}
    ids.pop("boa_token_id")
    ids.pop("eoa_token_id")
    text = {
        **TEXT,
        "vocab_size": len(tokenizer),
        "num_hidden_layers": 4,
        "pad_token_id": 0,
        "sliding_window": 24,
        "global_head_dim": 16,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "vocab_size_per_layer_input": len(tokenizer),
        "use_bidirectional_attention": bidirectional,
        "hidden_size_per_layer_input": per_layer,
        "num_kv_shared_layers": shared,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "patch_size": 4,
        "pooling_kernel_size": 3,
        "position_embedding_size": 1024,
    }
    config = hf.Gemma4Config(
        text_config=text,
        vision_config=vision,
        audio_config=None,
        video_token_id=tokenizer.convert_tokens_to_ids("<|video|>"),
        **ids,
    )

    def expand(made: Mapping[str, Any], _: int) -> str:
        return f"<|image>{'<|image|>' * int(made['num_soft_tokens_per_image'][0])}<image|>"

    model = built(hf.Gemma4ForConditionalGeneration, config, tokenizer.eos_token_id)
    processor = hf.Gemma4ImageProcessorPil(patch_size=4, max_soft_tokens=70, pooling_kernel_size=3)
    return Unlisted(
        model,
        tokenizer,
        processor,
        expand,
        "<|image|>",
        unused=("num_soft_tokens_per_image",),
        typed=True,
    )


@cache
def gemma4_31b() -> Unlisted:
    return gemma4("vision", 0, 0)


@cache
def gemma4_e() -> Unlisted:
    return gemma4(None, 8, 2)


def pixtral(made: Mapping[str, Any], _: int) -> str:
    rows, columns = (int(side) // 28 for side in made["image_sizes"][0])
    return "[IMG_BREAK]".join(["[IMG]" * columns] * rows) + "[IMG_END]"


@cache
def mistral3() -> Unlisted:
    names = [f"[{slash}{name}]" for name in ("INST", "SYSTEM_PROMPT") for slash in ("", "/")]
    names += ["[IMG]", "[IMG_BREAK]", "[IMG_END]"]
    tokenizer = bytes_tokenizer(
        ["<s>", "</s>", *names], template("mistral3"), "</s>", bos_token="<s>"
    )
    config = hf.Mistral3Config(
        text_config={
            "model_type": "mistral",
            **TEXT,
            "vocab_size": len(tokenizer),
            "sliding_window": None,
        },
        vision_config={"model_type": "pixtral", **TOWER, "image_size": 112},
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
        spatial_merge_size=2,
        tie_word_embeddings=False,
    )
    settings = {
        "processor_class": "PixtralProcessor",
        "patch_size": 14,
        "spatial_merge_size": 2,
        "image_token": "[IMG]",
    }
    processor = hf.PixtralImageProcessorPil(
        patch_size={"height": 14, "width": 14}, size={"longest_edge": 112}
    )
    model = built(hf.Mistral3ForConditionalGeneration, config, tokenizer.eos_token_id)
    return Unlisted(
        model, tokenizer, processor, pixtral, "[IMG]", settings, options={"patch_size": 28}
    )


@cache
def llava() -> Unlisted:
    tokenizer = spaced_tokenizer(["<image>"], template("llava"))
    config = hf.LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **TOWER},
        text_config=hf.LlamaConfig(**TEXT, vocab_size=len(tokenizer)).to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    settings = {
        "processor_class": "LlavaProcessor",
        "patch_size": 14,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    }
    processor = hf.LlavaImageProcessorPil(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}
    )
    model = built(hf.LlavaForConditionalGeneration, config, tokenizer.eos_token_id)
    return Unlisted(
        model, tokenizer, processor, lambda _, __: "<image>" * 16 + "\n", "<image>", settings
    )


@cache
def minicpmv4_6() -> Unlisted:
    names = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "image_start_token": "<image>",
        "image_end_token": "</image>",
        "slice_start_token": "<slice>",
        "slice_end_token": "</slice>",
        "image_id_start_token": "<image_id>",
        "image_id_end_token": "</image_id>",
    }
    tokenizer = bytes_tokenizer(
        ["<|im_start|>", "<|im_end|>", *names.values()],
        template("minicpmv4_6"),
        "<|im_end|>",
        extra_special_tokens=names,
    )
    config = hf.MiniCPMV4_6Config(
        text_config={"model_type": "qwen3_5_text", **HYBRID, "vocab_size": len(tokenizer)},
        vision_config={**TOWER, "num_hidden_layers": 3, "image_size": 112},
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        insert_layer_id=1,
        image_size=112,
    )
    processor = hf.MiniCPMV4_6ImageProcessorPil(
        scale_resolution=112, max_slice_nums=4, patch_size=14
    )

    def expand(made: Mapping[str, Any], number: int) -> str:
        whole, *tiles = (int(n) // 16 for n in made["target_sizes"].prod(-1))
        _, columns = (int(n) for n in made["grids"][0])
        slots = [f"<slice>{'<|image_pad|>' * n}</slice>" for n in tiles]
        rows = ["".join(slots[at : at + columns]) for at in range(0, len(slots), columns or 1)]
        before = f"<image_id>{number}</image_id><image>{'<|image_pad|>' * whole}</image>"
        return before + "\n".join(rows)

    model = built(hf.MiniCPMV4_6ForConditionalGeneration, config, tokenizer.eos_token_id)
    return Unlisted(
        model,
        tokenizer,
        processor,
        expand,
        "<|image_pad|>",
        {"processor_class": "MiniCPMV4_6Processor"},
        unused=("grids", "num_patches_per_image"),
    )


MLLAMA = {"hidden_size": 32, "intermediate_size": 32, "attention_heads": 2, "image_size": 56}


@cache
def mllama() -> Unlisted:
    """Its placeholder is the one token without a logit; layers of their own read its images."""
    names = ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
    tokenizer = bytes_tokenizer(
        [*names, "<|python_tag|>"],
        template("mllama"),
        "<|eot_id|>",
        bos_token="<|begin_of_text|>",
    )
    vocabulary = len(tokenizer)
    tokenizer.add_tokens(["<|image|>"], special_tokens=True)
    text = {**TEXT, "num_hidden_layers": 3, "cross_attention_layers": [1], "pad_token_id": 0}
    vision = {
        **MLLAMA,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "intermediate_layers_indices": [0],
        "vision_output_dim": 64,
    }
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = hf.MllamaConfig(
        text_config={**text, **ends, "vocab_size": vocabulary, "rope_parameters": rope()},
        vision_config=vision,
        image_token_index=vocabulary,
    )
    model = built(hf.MllamaForConditionalGeneration, config, tokenizer.eos_token_id)
    for name, weight in model.named_parameters():
        if "gate" in name and weight.numel() == 1:  # closed before any training
            torch.nn.init.ones_(weight)

    def sees(made: dict[str, Any]) -> dict[str, Any]:
        at = (made["input_ids"][0] == vocabulary).nonzero()[:, 0].tolist()
        mask = torch.zeros(1, made["input_ids"].shape[1], len(at), 4, dtype=torch.long)
        for number, (begin, end) in enumerate(zip(at, [*at[1:], None], strict=True)):
            mask[0, begin:end, number, : made["num_tiles"][0][number]] = 1
        return {"cross_attention_mask": mask}

    processor = hf.MllamaImageProcessorPil(size={"height": 56, "width": 56}, max_image_tiles=4)
    return Unlisted(
        model,
        tokenizer,
        processor,
        lambda _, __: "<|image|>",
        "<|image|>",
        unused=("num_tiles",),
        sees=sees,
    )


UNLISTED: dict[str, Callable[[], Unlisted]] = {
    "qwen3_5": qwen3_5,
    "glm4v": glm4v,
    "gemma4_31b": gemma4_31b,
    "gemma4_e": gemma4_e,
    "mistral3": mistral3,
    "llava": llava,
    "minicpmv4_6": minicpmv4_6,
    "mllama": mllama,
}

PROMPTS = {
    "qwen3_5": "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<think>\n",
    "glm4v": "[gMASK]<sop><|user|>\n{}<|assistant|>\n",
    "gemma4_31b": "<bos><|turn>user\n{}<turn|>\n<|turn>model\n",
    "gemma4_e": "<bos><|turn>user\n{}<turn|>\n<|turn>model\n",
    "mistral3": "<s>[INST]{}[/INST]",
    "llava": "USER: {} ASSISTANT:",
    "minicpmv4_6": "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "mllama": (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
}
"""How each asks a question."""
