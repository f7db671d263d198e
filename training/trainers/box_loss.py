"""VGR's auxiliary loss: a box regressed from the hidden state where a signal ends.

It is a training signal alone: at inference the box is read from the text. The paper (section 3.2)
gives neither the regressor's shape nor the loss's weight; here two hidden layers and a sigmoid give
centre and size, and the weight is the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from training.batching.collator import Pointed

BETA = 2.0
"""The weight of the overlap's term against the distance's."""


class BoxHead(nn.Module):
    """Hidden states (N, D) to boxes (N, 4): centre x, centre y, width, height, all in (0, 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU()),
            nn.Linear(width, 4),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Boxes (N, 4), each number in [0, 1], from hidden states (N, D)."""
        return self.layers(hidden).sigmoid()


class BoxTerm:
    """The box loss of what a model's forwards point at; adds its head to `model`, as `box_head`.

    It is computed within the forward, so that the head's gradients are summed over processes.

    Attributes:
        pointed: what the next batch points at, to be set before each forward.
        loss: the mean over `pointed` of the last forward; None where it pointed at nothing.
    """

    def __init__(self, model: Any) -> None:
        width = model.config.get_text_config().hidden_size
        model.box_head = BoxHead(width).to(model.device)
        self.pointed: Sequence[Pointed] = ()
        self.loss: Tensor | None = None
        self._hidden: Tensor | None = None
        model.model.register_forward_hook(self._keep)
        model.register_forward_hook(self._compute)

    def _keep(self, body: Any, inputs: Any, output: Any) -> None:
        self._hidden = output.last_hidden_state

    def _compute(self, model: Any, inputs: Any, output: Any) -> None:
        self.loss = None
        if not self.pointed:
            return
        if self._hidden is None:
            raise RuntimeError("the box loss reads hidden states, and this forward gave none")
        rows, ends = zip(*((p.row, p.at) for p in self.pointed), strict=True)
        truth = [(p.region.x0, p.region.y0, p.region.x1, p.region.y1) for p in self.pointed]
        hidden = self._hidden[list(rows), list(ends)].float()
        wanted = centres(torch.tensor(truth, device=hidden.device))
        self.loss = box_loss(model.box_head(hidden), wanted)
        output["box_loss"] = self.loss  # so that all processes know that the head has taken part


def box_loss(predicted: Tensor, truth: Tensor, *, beta: float = BETA) -> Tensor:
    """The mean over boxes of L1 + `beta` * (1 - GIoU); both (N, 4) as centre and size."""
    distance = (predicted - truth).abs().sum(-1)
    return (distance + beta * (1 - giou(corners(predicted), corners(truth)))).mean()


def corners(boxes: Tensor) -> Tensor:
    """Centre and size (..., 4) to x0, y0, x1, y1."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def centres(boxes: Tensor) -> Tensor:
    """x0, y0, x1, y1 (..., 4) to centre and size."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], -1)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised intersection over union of xyxy boxes (..., 4), in (-1, 1]."""
    overlap = _area(torch.cat([_max(a, b, 0), _min(a, b, 1)], -1))
    union = _area(a) + _area(b) - overlap
    around = _area(torch.cat([_min(a, b, 0), _max(a, b, 1)], -1))
    least = torch.finfo(a.dtype).tiny
    return overlap / union.clamp_min(least) - (around - union) / around.clamp_min(least)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(-1)


def _max(a: Tensor, b: Tensor, corner: int) -> Tensor:
    return torch.maximum(a, b)[..., 2 * corner : 2 * corner + 2]


def _min(a: Tensor, b: Tensor, corner: int) -> Tensor:
    return torch.minimum(a, b)[..., 2 * corner : 2 * corner + 2]
