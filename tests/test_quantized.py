"""In fewer bits only the decoder: what sees, and the head, stay whole."""

import pytest
import torch

import mm
from mm.model import HFVLM


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_the_decoder_alone_is_quantised(bits: str) -> None:
    pytest.importorskip("bitsandbytes")
    vlm = mm.load("tiny", quantize=bits)
    assert isinstance(vlm, HFVLM)
    model = vlm.engine.model
    assert type(model.model.visual.blocks[0].attn.qkv) is torch.nn.Linear
    assert type(model.lm_head) is torch.nn.Linear
    assert type(model.model.language_model.layers[0].mlp.up_proj) is not torch.nn.Linear
