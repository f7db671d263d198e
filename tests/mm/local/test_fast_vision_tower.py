"""The faster steps of vision towers give the numbers of the slow ones, and their gradients."""

import copy

import pytest
import torch
from images import noise
from tiny_models import FAMILIES
from torch import nn

from mm.engine.vision_encoder import encode_all
from mm.local.fast_vision_tower import speed_up
from mm.types import user


def loss(model, pictures) -> torch.Tensor:
    output = encode_all(model, pictures)
    features = torch.cat(list(output.pooler_output))
    return (features * torch.linspace(-1, 1, features.numel()).view_as(features)).sum()


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([(90, 60)], id="one"),
        pytest.param([(90, 60), (90, 60), (60, 120), (90, 60)], id="runs of equal sizes"),
    ],
)
def test_a_tower_gives_what_it_gave(family, sizes):
    tiny = FAMILIES[family]()
    seen = [noise(number, size) for number, size in enumerate(sizes)]
    spans = tiny.builder.build([user(*seen, "?")]).images
    pictures = [span.tensors for span in spans]
    stock, fast = copy.deepcopy(tiny.model), speed_up(copy.deepcopy(tiny.model))
    wanted, got = loss(stock, pictures), loss(fast, pictures)
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    wanted.backward()
    got.backward()
    for (name, a), b in zip(stock.named_parameters(), fast.parameters(), strict=True):
        if a.grad is not None:
            torch.testing.assert_close(b.grad, a.grad, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize(
    "size",
    [
        pytest.param((2, 4, 4), id="one patch each"),
        pytest.param((4, 8, 8), id="several, convolved as before"),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_a_patch_multiplied_is_a_patch_convolved(size, bias):
    torch.manual_seed(0)
    stock = nn.Conv3d(3, 5, (2, 4, 4), stride=(2, 4, 4), bias=bias)
    patches = torch.randn(7, 3, *size)
    wanted = stock(patches)
    holder = nn.Sequential(stock)
    holder.base_model = holder
    got = speed_up(holder)[0](patches)
    assert got.shape == wanted.shape
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5)
