"""The box loss gives the paper's numbers and teaches a head where a box is."""

from __future__ import annotations

import pytest
import torch

from training.trainers.box_loss import BoxHead, box_loss, centres, corners, giou


@pytest.mark.parametrize(
    ("predicted", "truth", "distance", "apart", "loss"),
    [
        pytest.param((0, 0, 0.2, 0.2), (0.8, 0.8, 1, 1), 1.6, 1.92, 5.44, id="far apart"),
        pytest.param(
            (0.1, 0.1, 0.5, 0.5), (0.2, 0.2, 0.6, 0.6), 0.2, 0.6887, 1.5774, id="overlapping"
        ),
        pytest.param((0.1, 0.2, 0.5, 0.5), (0.1, 0.2, 0.5, 0.5), 0, 0, 0, id="the same"),
        pytest.param((0.3, 0.3, 0.3, 0.3), (0.3, 0.3, 0.3, 0.3), 0, 1, 2, id="a point"),
    ],
)
def test_the_papers_numbers(predicted, truth, distance, apart, loss) -> None:
    a, b = torch.tensor([predicted]).float(), torch.tensor([truth]).float()
    assert (centres(a) - centres(b)).abs().sum().item() == pytest.approx(distance, abs=1e-4)
    assert (1 - giou(a, b)).item() == pytest.approx(apart, abs=1e-4)
    assert box_loss(centres(a), centres(b)).item() == pytest.approx(loss, abs=2e-4)


def test_corners_and_centres_are_inverse() -> None:
    boxes = torch.tensor([[0.1, 0.2, 0.5, 0.9]])
    torch.testing.assert_close(corners(centres(boxes)), boxes)


def test_a_head_learns_boxes_that_do_not_touch_at_first() -> None:
    torch.manual_seed(0)
    head, hidden = BoxHead(8), torch.randn(4, 8)
    truth = torch.tensor([[0.1, 0.1, 0.1, 0.1], [0.9, 0.9, 0.1, 0.1], [0.1, 0.9, 0.2, 0.1]])
    truth = torch.cat([truth, torch.tensor([[0.5, 0.5, 0.8, 0.8]])])
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-2)
    for _ in range(200):
        loss = box_loss(head(hidden), truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert giou(corners(head(hidden)), corners(truth)).min() > 0.7
