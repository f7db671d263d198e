"""A model family of your own: one record of facts, from which prompts, boxes and costs follow.

    python -m app.examples.own_family

A family that everybody should have goes into `mm/families/registry.py`; `mm.load` finds it there
by the `model_type` of a checkpoint's config. Here the weights of `tiny` serve a family that writes
its boxes in pixels. A transformers class of your own must offer `get_decoder`,
`get_input_embeddings`, `get_output_embeddings`, and inside `model` `get_image_features`.
"""

from __future__ import annotations

from pathlib import Path

import mm
from mm.engine import Engine
from mm.families import chat_templates, image_layouts
from mm.families.registry import Family
from mm.local.hf_vlm import HFVLM
from mm.tokens.loading import compose

TABLE = Path(__file__).with_name("table.png")

MINE = Family(
    name="Mine",
    model_types=("mine",),  # of the checkpoint's config.json
    layout=image_layouts.qwen,  # what its processor makes of an image, by the image's size
    templates=(chat_templates.QWEN3,),
    placeholder="<|image_pad|>",
    markers=("<|vision_start|>", "<|vision_end|>", "<|video_pad|>"),
    tensors=("pixel_values", "image_grid_thw"),
    box_format=mm.BoxFormat(frame=None),  # pixels of the resized image
    mrope=True,
)

if __name__ == "__main__":
    tiny = mm.load("tiny")
    assert isinstance(tiny, HFVLM)
    parts = tiny.builder
    model = tiny.engine.model
    builder = compose(MINE, model.config, parts.tokenizer, parts.image_processor)
    sample = mm.question("How many objects are there?", TABLE)
    size = sample.images[0].size
    print(f"seen at {builder.seen_size(size)}, {builder.visual_tokens(size)} visual tokens")
    print(mm.run(mm.direct, sample, HFVLM(Engine(model, builder))).answer)
