"""In fewer bits only the decoder: what sees, and the head, stay whole."""

from typing import Literal

import pytest
import torch

import mm
from mm.local.hf_vlm import HFVLM
from mm.types import assistant, user
from training.batching.collator import Collator, forward_inputs
from training.data import Row
from training.finetune.plan import make_plan, prepare_model
from training.finetune.recipe import Recipe
from training.trainers.model_parts import bare


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_the_decoder_alone_is_quantised(bits: str) -> None:
    pytest.importorskip("bitsandbytes")
    vlm = mm.load("tiny", quantize=bits)
    assert isinstance(vlm, HFVLM)
    model = vlm.engine.model
    assert type(model.model.visual.blocks[0].attn.qkv) is torch.nn.Linear
    assert type(model.lm_head) is torch.nn.Linear
    assert type(model.model.language_model.layers[0].mlp.up_proj) is not torch.nn.Linear


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_an_adapter_learns_on_a_quantised_decoder(bits: Literal["4bit", "8bit"]) -> None:
    pytest.importorskip("bitsandbytes")
    vlm = mm.load("tiny", device="cpu", quantize=bits)
    assert isinstance(vlm, HFVLM)
    recipe = Recipe(data="x", output="y", quantize=bits, device="cpu")
    model = prepare_model(vlm.engine.model, make_plan(recipe, vlm.engine.model))
    batch = Collator(vlm.builder)([Row("a", (user("And?"), assistant("No.")))])
    model(**forward_inputs(bare(model), batch)).loss.backward()
    learning = {name for name, weights in model.named_parameters() if weights.grad is not None}
    assert learning
    assert all("lora_" in name for name in learning)
