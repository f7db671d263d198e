"""Muon in any precision: with torch's polynomial it is torch's own, in float32 to rounding."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from mm.errors import UserError
from training import muon
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
def test_in_bfloat16_with_its_polynomial_it_is_torchs(shape, monkeypatch):
    theirs = trained(
        lambda p: torch.optim.Muon(p, lr=0.01, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        shape,
    )
    monkeypatch.setattr(muon, "POLYNOMIALS", [(3.4445, -4.775, 2.0315)] * 5)
    monkeypatch.setattr(muon, "_MARGIN", 1)
    ours = trained(lambda p: Muon(p, lr=0.01, weight_decay=0.05, dtype=torch.bfloat16), shape)
    assert torch.equal(ours, theirs)


@SHAPES
def test_in_float32_it_differs_by_rounding_alone(shape):
    exact = trained(lambda p: Muon(p, lr=0.01, dtype=torch.float64), shape)
    single = trained(lambda p: Muon(p, lr=0.01, dtype=torch.float32), shape)
    rounded = trained(lambda p: Muon(p, lr=0.01, dtype=torch.bfloat16), shape)
    torch.testing.assert_close(single, exact, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(single, rounded, atol=5e-3, rtol=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(64, 64), (64, 176), (176, 64)], ids=["square", "wide", "tall"])
def test_singular_values_come_near_one(shape, dtype):
    update = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalised(update, dtype).float())
    assert values.median() == pytest.approx(1.0, abs=0.3)
    assert values.max() < 1.35
    assert (values > 0.6).float().mean() > 0.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(1, 64), (4, 64), (64, 64), (16, 128)], ids=str)
def test_an_update_of_nearly_one_direction_is_not_blown_up(shape, dtype):
    """As of one row: its norm is its largest singular value, which rounding brings above one."""
    for seed in range(8):
        normal = partial(torch.randn, generator=torch.Generator().manual_seed(seed))
        update = normal(shape[0], 1) @ normal(1, shape[1]) + 0.03 * normal(shape)
        assert torch.linalg.svdvals(orthogonalised(update, dtype).float()).max() < 1.35


@SHAPES
def test_gram_matrices_give_the_same(shape):
    update = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = update if shape[0] <= shape[1] else update.mT
    x = x / x.norm()
    torch.testing.assert_close(muon._by_gram(x), muon._by_itself(x), atol=1e-9, rtol=1e-9)
    single = x.float()
    torch.testing.assert_close(muon._by_gram(single), muon._by_itself(single), atol=1e-4, rtol=1e-3)


def test_rows_that_depend_on_each_other_stay_bounded():
    """Singular values of zero stay zero; nothing blows up."""
    update = torch.randn(16, 3, generator=torch.Generator().manual_seed(3)) @ torch.randn(3, 48)
    values = torch.linalg.svdvals(orthogonalised(update, torch.float32))
    assert values[:3].min() > 0.6
    assert values[3:].max() < 0.05


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


class Ends(torch.nn.Module):
    """A block between a model's ends, named as in SmolVLM."""

    def __init__(self) -> None:
        super().__init__()
        self.connector = torch.nn.Linear(4, 4)
        self.block = torch.nn.Linear(4, 4)
        self.norm = torch.nn.LayerNorm(4)
        self.patch_embedding = torch.nn.Conv2d(3, 4, 2)


def test_ends_learn_by_adamw_and_what_is_flat_does_not_decay():
    model = Ends()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        (type(part).__name__, group["weight_decay"], names[id(parameter)])
        for part in muon.muon(model, 0.1, 0.5).parts
        for group in part.param_groups
        for parameter in group["params"]
    }
    flat = ("connector.bias", "block.bias", "norm.weight", "norm.bias", "patch_embedding.bias")
    shaped = ("connector.weight", "patch_embedding.weight")
    assert found == {
        ("Muon", 0.5, "block.weight"),
        *(("AdamW", 0.5, name) for name in shaped),
        *(("AdamW", 0.0, name) for name in flat),
    }


def test_groups_of_an_earlier_version_are_refused_in_a_line():
    model = Ends()
    inner = [p for p in model.parameters() if p.ndim == 2]
    outer = [p for p in model.parameters() if p.ndim != 2]
    earlier = muon.muon_and_adamw(
        [{"params": inner}], [{"params": outer}], rate=0.1, weight_decay=0.5
    )
    made = muon.muon(model, 0.1, 0.5)
    made.load_state_dict(made.state_dict())
    with pytest.raises(UserError, match="as an earlier version did: begin again"):
        made.load_state_dict(earlier.state_dict())
