"""Muon in any precision: in bfloat16 it is torch's own, in float32 the same to rounding."""

from __future__ import annotations

import pytest
import torch

from training.muon import Muon, orthogonalised


def trained(optimizer, shape: tuple[int, int], steps: int = 4) -> torch.Tensor:
    """A matrix after some steps on noise that is the same each time."""
    noise = torch.Generator().manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(shape, generator=noise))
    made = optimizer([parameter])
    for _ in range(steps):
        parameter.grad = torch.randn(shape, generator=noise)
        made.step()
    return parameter.detach()


SHAPES = pytest.mark.parametrize(
    "shape", [(8, 8), (8, 24), (24, 8)], ids=["square", "wide", "tall"]
)


@SHAPES
def test_in_bfloat16_it_is_torchs(shape):
    theirs = trained(
        lambda p: torch.optim.Muon(p, lr=0.01, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        shape,
    )
    ours = trained(lambda p: Muon(p, lr=0.01, weight_decay=0.05, dtype=torch.bfloat16), shape)
    assert torch.equal(ours, theirs)


@SHAPES
def test_in_float32_it_differs_by_rounding_alone(shape):
    exact = trained(lambda p: Muon(p, lr=0.01, dtype=torch.float64), shape)
    single = trained(lambda p: Muon(p, lr=0.01, dtype=torch.float32), shape)
    rounded = trained(lambda p: Muon(p, lr=0.01, dtype=torch.bfloat16), shape)
    torch.testing.assert_close(single, exact, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(single, rounded, atol=5e-3, rtol=0.1)


def test_singular_values_come_near_one():
    update = torch.randn(16, 48, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalised(update, torch.float32))
    assert values.min() > 0.5
    assert values.max() < 1.5


def test_state_goes_on_from_torchs_own():
    """A training that was begun with `torch.optim.Muon` resumes."""
    parameter = torch.nn.Parameter(torch.ones(4, 4))
    parameter.grad = torch.ones(4, 4)
    theirs = torch.optim.Muon([parameter], lr=0.01)
    theirs.step()
    ours = Muon([parameter], lr=0.01)
    ours.load_state_dict(theirs.state_dict())
    ours.step()
    assert torch.isfinite(parameter).all()
