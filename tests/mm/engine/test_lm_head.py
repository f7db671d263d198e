"""Logits in 16 bits: as exact as the operands are, whatever the head is made of."""

import pytest
import torch
from torch import nn

from mm.engine.lm_head import logits_of

WIDTH, VOCABULARY = 64, 300
HALVES = [torch.bfloat16, torch.float16]


def head_and_hidden(dtype: torch.dtype, shape: tuple[int, ...] = (5,), *, bias: bool = False):
    torch.manual_seed(0)
    head = nn.Linear(WIDTH, VOCABULARY, bias=bias, dtype=dtype).requires_grad_(False)
    return head, (4 * torch.randn(*shape, WIDTH)).to(dtype)


def exact(head: nn.Linear, hidden: torch.Tensor) -> torch.Tensor:
    return hidden.double() @ head.weight.double().t()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (16,), (2, 3)], ids=str)
def test_nothing_is_lost_to_rounding(dtype, shape):
    head, hidden = head_and_hidden(dtype, shape)
    made = logits_of(head, hidden)
    assert made.dtype is torch.float32
    assert made.shape == (*shape, VOCABULARY)
    error = (made.double() - exact(head, hidden)).abs().max()
    rounding = (head(hidden).double() - exact(head, hidden)).abs().max()
    assert error < rounding / 50


def test_close_logits_stay_apart():
    head, hidden = head_and_hidden(torch.bfloat16, ())
    row = hidden / hidden.norm()
    head.weight[0], head.weight[1] = 8 * row, 8 * row
    head.weight[1, 0] += 0.0625 * row[0].sign()  # too little for the logit's own eight bits
    own, ours = head(row), logits_of(head, row)
    assert own[0] == own[1]
    assert ours[0] < ours[1]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: head_and_hidden(torch.float32), id="float32"),
        pytest.param(lambda: head_and_hidden(torch.bfloat16, bias=True), id="a bias"),
    ],
)
def test_other_heads_are_called_as_they_are(make):
    head, hidden = make()
    assert torch.equal(logits_of(head, hidden), head(hidden).float())


def test_a_head_that_is_no_plain_product_is_called():
    class Scaled(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    head = Scaled(WIDTH, VOCABULARY, bias=False, dtype=torch.bfloat16)
    _, hidden = head_and_hidden(torch.bfloat16)
    assert torch.equal(logits_of(head, hidden), head(hidden).float())
